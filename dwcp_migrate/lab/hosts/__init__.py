"""Hypervisors of the lab: namespaces with libvirtd, booted ones with systemd, and the agents on them.

Modules:
    agents: agents of a lab's hypervisors
    booted: hypervisors that are booted
    hypervisor: one hypervisor of the lab
    namespace: the namespaces of one host
    processes: processes that the lab started, identified beyond reuse of a pid
    service: the agent's unit, applied without systemd
    settings: files that make a Debian tree a hypervisor of the lab
"""
