"""HTML of the reports and of the agent's page: elements, and the frame that all pages share.

Modules:
    agent_page: page that an agent serves
    document: frame of a page, its style in light and dark
    markup: elements of HTML and their escaping
"""
