"""Settings of the whole suite."""

import gc
import signal

# A run that was begun in the background is told to ignore Ctrl-C, and so would be every command that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep the collector off what was imported and collected: all of it lives until the end, and it is much."""
    gc.collect()
    gc.freeze()
