"""The doors of the agent: redirected connections, the link port, and announcements of the libvirt hook.

Modules:
    hook_server: hook socket
    listeners: agent's TCP listeners
    redirect: redirect as the agent wants it
"""
