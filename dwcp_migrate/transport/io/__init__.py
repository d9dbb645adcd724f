"""Sockets and threads that carry the multi-stream protocol.

Modules:
    channel: one TCP connection between two agents
    channel_table: channels as the thread waits for them
    io_thread: thread that moves a link's bytes
    link: `Link`
    tcp_info: kernel statistics of one TCP connection
    totals: figures of all channels together
"""
