"""Counts and stacks of a running lab, for leak checks and for migrations that stand still."""
