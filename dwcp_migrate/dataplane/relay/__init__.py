"""Plain relaying of a migration that passes through.

passthrough   connections carried byte for byte, by splice
onward        the connection to where QEMU wanted to go
"""
