"""Counts and stacks of a running lab, for leak checks and for migrations that stand still.

Modules:
    census: census of a lab at one moment
    evidence: records and stacks of agents and data processes, gathered for a migration that stands still
"""
