"""Settings of the whole suite."""

import gc


def pytest_collection_finish() -> None:
    """Keep the collector off what was imported and collected: all of it lives until the end, and it is much."""
    gc.collect()
    gc.freeze()
