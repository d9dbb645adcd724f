"""Commands about plans that agents carry out.

Modules:
    attached: a terminal and a kept plan
    carry: `dwcp-migrate carry`, the helper process of an agent
    lookout: `dwcp-migrate lookout`, one look of the service that relieves the fleet
    plan: `dwcp-migrate plan`
    plans: `dwcp-migrate plans`
    warm_first: options and words of plans whose guests are warmed up first
    watching: that service, set and reported on
"""
