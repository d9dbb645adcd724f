"""Commands about plans that agents carry out.

Modules:
    attached: a terminal and a kept plan
    carry: `dwcp-migrate carry`, the helper process of an agent
    plan: `dwcp-migrate plan`
    plans: `dwcp-migrate plans`
"""
