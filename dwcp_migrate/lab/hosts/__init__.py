"""Hypervisors of the lab: namespaces with libvirtd, booted ones with systemd, and the agents on them."""
