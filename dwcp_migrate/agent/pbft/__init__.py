"""This host's membership of a PBFT group: local member, membership records, changes of the membership.

Modules:
    group: the PBFT group as this host's agent uses it
    local_member: this host's part in the PBFT group as its newest membership has it
    membership_change: change of the PBFT group's members as an operator asks for it
    membership_store: memberships of the PBFT group that this host believes
    membership_sync: keeps up with who the PBFT group's members are
"""
