"""The event loop of a replica's or client's process: uvloop where it is installed (extra `fast`), else asyncio's own.

A prototype of four replicas on two cores decided in 0.5 ms with uvloop, in 1.7 ms without. It stays out of the agent's
process, where libvirt's event loop lives (docs/adr/0004).
"""

import asyncio
import gc
from collections.abc import Coroutine
from importlib.util import find_spec
from typing import Final, TypeVar

YOUNG_OBJECTS: Final = 20_000
"""Between two searches for cycles, of which messages make none: with CPython's 700, 3 % of the time under load."""

T = TypeVar("T")


def run(main: Coroutine[object, object, T]) -> T:
    """Run a coroutine to its end on the fastest loop there is."""
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    if find_spec("uvloop") is None:
        return asyncio.run(main)
    import uvloop

    return uvloop.run(main)
