"""Faults that no migration may fail of, one a row of `test_never_worse`.

stage         what a row is, and the stage that it is played on
identity      clocks, names, certificates
network       link port, addresses, firewalls, mirrored ways
processes     agents that are absent, hang or stop, and their data processes
host          libvirt and its hook, disks, the fleet's state
"""
