"""Options and output that all commands share.

Modules:
    migration_options: `virsh migrate`'s options on the commands that migrate
    options: options that several commands share
    output: output of the views
"""
