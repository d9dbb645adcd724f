"""The two clocks of the agent; the core packages take their times from here, as arguments."""

import time


def wall_clock() -> float:
    """Seconds since the epoch, for records."""
    return time.time()


def steady_clock() -> float:
    """Seconds that never jump, for lifetimes."""
    return time.monotonic()
