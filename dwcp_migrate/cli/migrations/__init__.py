"""Commands about migrations: start, watch, predict, look back.

Modules:
    history: `dwcp-migrate history`
    migrate: `dwcp-migrate migrate`
    predict: `dwcp-migrate predict`
    share: `dwcp-migrate share`
    show: `dwcp-migrate show ID`
    top: `dwcp-migrate top`
    events: `dwcp-migrate events`
    abort: `dwcp-migrate abort`
"""
