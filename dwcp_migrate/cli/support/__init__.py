"""Options and output that all commands share.

Modules:
    agent_group: the group that keys are made for
    answers: what commands print under --json that is no answer of the control API
    completion: completion of names in a shell
    composed: those of them that put answers of the control API together
    contract: what each command prints under --json, and a JSON Schema of it
    examples: examples of each command
    failure: a failed command under --json
    migration_options: `virsh migrate`'s options on the commands that migrate
    options: options that several commands share
    output: output of the views
    schema: `dwcp-migrate schema`
"""
