"""Plain relaying of a migration that passes through.

passthrough   connections carried byte for byte, by splice
onward        the connection to where QEMU wanted to go
held          connections of a migration that is being set up, in case the agent ends
"""
