"""The lab: two or more hypervisors and a WAN on one machine, for trying out, for tests and for benchmarks.

The parts are real (libvirt, QEMU, TCP, a kernel in the guest); what the lab changes goes away with it. See docs/lab.md.

Modules:
    lab: a whole lab: up, load, down
    hosts: its hypervisors, in namespaces or booted, and their agents
    guest: a guest with memory that proves that it survived
    wan: rate, delay, loss and queue of the network; cut and heal
    images: trees, guest images and wheels, built once and cached
    arms: one migration, measured
    shuttle: a guest that goes back and forth between two hosts
    disturb: faults made on purpose: channels that die
    clock: a wall clock that is wrong, for one program
    observation: counts for leak checks, stacks for migrations that stand still
    fixtures: pytest fixtures
    state, commands, quantities: the record of a running lab, running programs, rates and times as typed
"""
