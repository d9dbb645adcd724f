"""Messages between two agents, and between an agent and its data processes.

Modules:
    control: control protocol between two agents
    load: loads of guests and hosts
    recap: sums over the migrations of one host
    session_memory: memory of a session, and the division of a grant
    worker: messages between the agent and its data processes
"""
