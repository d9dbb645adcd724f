"""Compiled searches over the placement arrays: single moves, chains, ruin and recreate.

Modules:
    chains: kernel
    moves: parts of all kernels
    recreate: kernel
    search: kernels
"""
