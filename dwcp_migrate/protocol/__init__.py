"""Messages between two agents, and between an agent and its data processes.

Modules:
    control: control protocol between two agents
    worker: messages between the agent and its data processes
"""
