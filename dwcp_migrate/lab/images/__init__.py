"""Trees, guest images and wheels that the lab is made from, built once and cached.

Modules:
    build: boot files of the lab's guests
    cache: things that are made once a machine and reused by every checkout
    cpio: writes initramfs archives
    tree: the Debian 13 tree that every hypervisor of the lab is rooted in
    wheels: wheels of this project's dependencies for the Python of the booted hypervisors, fetched once a machine
"""
