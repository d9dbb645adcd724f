"""Two or more hypervisors and a WAN on one machine, for trying out, for tests and for benchmarks.

The rule here: the parts are real (libvirt, QEMU, TCP, a kernel in the guest); what the lab changes goes away with it.

    lab         a whole lab: up, load, down          arms        one migration, measured
    hypervisor  one host: libvirtd in a namespace     guest       memory that proves that it survived
    agents      the agents of the hosts               wan         rate, delay, loss, queue; cut and heal
    tree, images, cache   what labs are made of       fixtures    for pytest
    namespace, processes, state, commands, settings   the ground floor

See docs/lab.md.
"""
