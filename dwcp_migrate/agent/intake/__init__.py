"""The doors of the agent: redirected connections, the link port, and announcements of the libvirt hook.

Modules:
    hook_server: hook socket
    hook_trial: trial of the libvirt hook
    admission: room for connections that have not shown yet who they are
    link: link port, which peers dial
    listeners: ways by which QEMU's connections come in
    loopback: loopback listeners of redirected connections
    redirect: redirect as the agent wants it
"""
