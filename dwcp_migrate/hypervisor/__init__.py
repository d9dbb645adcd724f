"""The host as the agent needs it: libvirt's events and inventory, the nftables redirect, the hook's announcements.

    base, fake                      the interfaces, and stand-ins that the contract tests hold to the same behaviour
    libvirt_events                  libvirtd: events and statistics of domains
    inventory                       hosts and domains for placement, and migrations among them
    libvirt_calls, libvirt_facts    its calls on threads of their purpose, with time-outs; what its answers mean
    load_counters                   bulk statistics of a host and its guests as counters
    speed_limits                    limits of the agent's on domains' migrations, put back whatever happens
    intercept, network              the redirect of migration connections, and the host's addresses
    listening, tcp_connections      addresses at which a waiting QEMU listens; connections that are established
    qemu_conf                       settings of qemu.conf that migrations depend on
    hook, announcements             what libvirt's hook says of incoming migrations
    netlink, cgroups                tables and rules of the kernel, and services that these leave alone

Everything that knows libvirt or nftables is in here.
"""
