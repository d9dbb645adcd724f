"""Commands about migrations: start, watch, predict, look back.

Modules:
    check: `dwcp-migrate check PEER`
    peer_judgement: judgements of `check`
    history: `dwcp-migrate history`
    limit: `dwcp-migrate limit`
    migrate: `dwcp-migrate migrate`
    predict: `dwcp-migrate predict`
    report: `dwcp-migrate report`
    share: `dwcp-migrate share`
    show: `dwcp-migrate show ID`
    top: `dwcp-migrate top`
    screen: the screen of `top`: picture, keys, loop
    disable: `dwcp-migrate disable`
    enable: `dwcp-migrate enable`
    events: `dwcp-migrate events`
    abort: `dwcp-migrate abort`
    warm: `dwcp-migrate warm`
    warm_ahead: warm-ups of `migrate --warm`
"""
