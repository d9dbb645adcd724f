"""Options and output that all commands share.

Modules:
    options: options that several commands share
    output: output of the views
"""
