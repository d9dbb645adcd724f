"""This host's membership of a PBFT group: local member, membership records, changes of the membership."""
