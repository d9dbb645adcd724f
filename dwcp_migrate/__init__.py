"""dwcp_migrate: an agent that makes libvirt live migration faster over real networks."""

__version__ = "0.1.0"
