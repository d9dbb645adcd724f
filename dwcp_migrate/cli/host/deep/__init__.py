"""Things that a configuration leads to, tried from here: for `config check --deep`, and `doctor` without an agent.

The rule: read and connect, never change.

Modules:
    files: the files that it names, and its sizes against this machine
    network: names, ports and peers
"""
