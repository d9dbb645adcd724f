"""The doors of the agent: redirected connections, the link port, and announcements of the libvirt hook."""
