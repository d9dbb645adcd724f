"""The doors of the agent: redirected connections, the link port, and announcements of the libvirt hook.

Modules:
    accept_loop: listening TCP socket and the task that accepts on it
    hook_server: hook socket
    listeners: agent's TCP listeners
    loopback: loopback listeners of redirected connections
    redirect: redirect as the agent wants it
"""
