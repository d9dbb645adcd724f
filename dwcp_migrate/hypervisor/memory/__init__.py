"""Memory of a running guest, read page by page while it runs; nothing is ever written.

    base, opening                   the interface, and the way to it by libvirt's URI
    libvirt_peek                    through libvirtd: `virDomainMemoryPeek` of guest-physical addresses
    fake                            a file in the place of a guest
    address_map                     which guest-physical addresses are plain memory, out of QEMU's own words

The rule: only what QEMU itself calls plain memory is read. Reading a device's registers may change the device, so
whatever is not understood for certain is refused, or left out.
"""
