"""Bulk synchronisation without I/O: time and bytes are arguments.

Modules:
    chunking: cuts an object at places that its content decides
    manifest: description of an object, and the list of its chunks
    messages: requests and answers of a bulk connection
    schedule: which chunks are asked of whom
"""
