"""The host as the agent needs it: libvirt's events and inventory, the nftables redirect, the hook's announcements.

    base, fake                      the interfaces, and stand-ins that the contract tests hold to the same behaviour
    libvirt_events                  libvirtd: events and statistics of domains
    inventory                       hosts and domains for placement, and migrations among them
    libvirt_calls, libvirt_facts    its calls on threads of their purpose, with time-outs; its answers as plain values
    load_counters                   bulk statistics of a host and its guests as counters
    speed_limits                    limits that the agent sets on domains' migrations, and restores in any case
    intercept, network              the redirect of migration connections, and the host's addresses
    listening, tcp_connections      addresses at which a waiting QEMU listens; connections that are established
    qemu_conf                       settings of qemu.conf that migrations depend on
    hook, announcements             announcements of incoming migrations by libvirt's hook
    memory                          memory of a guest that runs, read ahead of its migration
    netlink, cgroups                tables and rules of the kernel, and services that these leave alone

No other package uses libvirt or nftables.
"""
