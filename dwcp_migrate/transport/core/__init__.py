"""The multi-stream protocol, without I/O: frames, queues, channel health, rates.

Modules:
    channel_count: number of channels of a link
    channel_health: health of a channel
    dial_policy: dial policy
    frames: frames of the agents' link
    options: options, counters and callbacks of a link
    paths: the peer's addresses over which a link's channels are spread
    protocol: link's protocol, sans-IO
    rate_limiter: rate limiter of a link's bulk
    reassembly: puts one connection's segments in order again
    receive_queue: receive queue
    segment: unit that the transport carries
    send_queue: send queue
    usage: time of a link's thread and its channels, by the state that it is spent in
    window: window of raw bytes in flight between the two QEMUs
"""
