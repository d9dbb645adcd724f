"""Messages between two agents, and between an agent and its data processes.

Modules:
    control: control protocol between two agents
    load: loads of guests and hosts
    recap: sums over the migrations of one host
    session_memory: what a session may keep in memory, and how a grant is divided
    worker: messages between the agent and its data processes
"""
