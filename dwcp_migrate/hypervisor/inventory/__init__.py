"""Hosts and domains of a fleet as its libvirtds show them, and migrations among them: for placement.

Modules:
    connection: connections to libvirtds, opened within a bound
    domain_description: libvirt's descriptions of domains as facts
    fake: stand-in for the libvirtds of a fleet
    host_description: those of hosts: memory, CPU, machine types, storage pools
    hypervisors: libvirtds of a fleet: what they answer, and what they can be told
    libvirt_hypervisors: these questions put to libvirt
    migration_options: virsh's options of a migration as libvirt's flags and parameters
"""
