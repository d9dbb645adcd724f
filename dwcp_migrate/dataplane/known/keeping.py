"""Keeping: when a session is over, the pages of its cache go to this host's store.

The source keeps the pages that it sent, for the way back and for a retry; the destination those that it got. By then
everything was reported, so that nobody waits: a child of the data process, which shares its memory with it by copy on
write, does it at a low priority, and the data process itself ends as ever. The child holds no socket and no lock of its
parent's.
"""

import os
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Final

from dwcp_migrate.errors import DwcpError
from dwcp_migrate.protocol.worker import StoreOptions
from dwcp_migrate.qemu.layout import Words
from dwcp_migrate.store.shelf import Shelf
from dwcp_migrate.store.writer import FillReport, StoreFiller

NICE: Final = 5
"""Behind guests and migrations, but not for ever on a busy host: a retry may come at any moment."""
STANDARD_ERROR: Final = 2


def keep_pages(options: StoreOptions, fill: str, pages: Words) -> FillReport:
    """Put pages into the store.

    Args:
        options: where, and whose they are.
        fill: `sent` or `received`.
        pages: uint64[n, 512], read only.

    Raises:
        DwcpError: the store cannot be used.
    """
    shelf = Shelf(Path(options.directory), options.bytes_max)
    shelf.expire(options.keep_s, time.time())
    return StoreFiller(shelf, options.scope, fill).fill(pages, time.time())


def keep_behind(options: StoreOptions, fill: str, pages: Words) -> int:
    """Put pages into the store in a child that outlives this process.

    Call it on the main thread, last of all: the child has no other thread, and locks that those held stay held in it.

    Args:
        options: where the store is, and the scope of the pages.
        fill: `sent` or `received`.
        pages: uint64[n, 512], read only.

    Returns:
        The child's pid; 0 where there is nothing to keep.
    """
    if not len(pages):
        return 0
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which is meant
        child = os.fork()
    if child:
        return child
    try:
        os.closerange(STANDARD_ERROR + 1, os.sysconf("SC_OPEN_MAX"))
        os.nice(NICE)
        report = keep_pages(options, fill, pages)
        sys.stderr.write(
            f"store: {report.kept} pages kept of a migration ({fill}), {report.there_already} were there already"
            f"{'; ' if report.stopped else ''}{report.stopped}\n"
        )
    except (DwcpError, OSError, MemoryError) as error:
        sys.stderr.write(f"store: nothing kept: {error}\n")
    except Exception:  # noqa: BLE001 - the child ends here, whatever happened, and nobody else would say it
        sys.stderr.write(f"store: nothing kept: {traceback.format_exc()}\n")
    finally:
        sys.stderr.flush()
        os._exit(0)
