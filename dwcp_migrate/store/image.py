"""A disk image as a volume: its blocks are named once, at low priority, and read back where they lie.

The rule: an image counts only as long as it is the one that was read: same file, size and time of change. Each block is
compared with its name when it is read, so that one that is written to all the same costs a repeated segment.

Of blocks with equal content the first counts; blocks of zeros do not.
"""

import os
import stat
from pathlib import Path
from typing import Final

import numpy as np

from dwcp_migrate.delta.cache import hash_pages
from dwcp_migrate.durable import write_whole
from dwcp_migrate.errors import StoreError
from dwcp_migrate.qemu.layout import Words
from dwcp_migrate.store.digests import PageDigest, search_keys
from dwcp_migrate.store.qcow2 import extents
from dwcp_migrate.store.shelf import INDEX, Shelf, check_image, fresh_name
from dwcp_migrate.store.volume import IMAGE_PAGES_MAX, PageNumbers, VolumeHead, VolumeIndex, pack_index
from dwcp_migrate.units import MIB, PAGE_BYTES

READ_BYTES: Final = 1 * MIB
"""Read at a time."""
INDEX_BYTES_A_PAGE: Final = 20


def add_image(shelf: Shelf, scope: str, path: Path, now: float) -> int:
    """Name the blocks of an image for a scope; the volume of an earlier reading is replaced.

    Args:
        shelf: of this host.
        scope: whose guests may use it.
        path: of the image, raw or qcow2.
        now: seconds since the epoch.

    Returns:
        Blocks that are named.

    Raises:
        StoreError: it cannot be used: no file, a form that is not read, changed meanwhile, or no room for its index.
    """
    path = Path(os.path.realpath(path))
    try:
        with path.open("rb", buffering=0) as file:
            found = _facts(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            columns = _named(file.fileno(), found.st_size, PageDigest(shelf.key(scope)))
    except OSError as error:
        hint = f"let the agent's user read it: setfacl -m u:dwcp-migrate:r {path}"
        raise StoreError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except StoreError as error:
        raise StoreError(f"{path}: {error}", hint=error.hint) from error
    head = VolumeHead(
        pages=len(columns[1]),
        made_at=now,
        fill="image",
        scope=scope,
        image=str(path),
        image_bytes=found.st_size,
        image_changed_ns=found.st_mtime_ns,
        image_inode=found.st_ino,
    )
    check_image(head)
    _put(shelf, VolumeIndex(head, *columns, np.empty(0, np.uint64)), now)
    return head.pages


def _facts(descriptor: int) -> os.stat_result:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise StoreError("it is no file", hint="block devices are not read")
    return found


def is_current(shelf: Shelf, scope: str, path: Path) -> bool:
    """Tell whether an image is there for a scope as it is now.

    Args:
        shelf: of this host.
        scope: whose guests may use it.
        path: of the image.
    """
    wanted = os.path.realpath(path)
    for volume in shelf.volumes(scope):
        if volume.head.image == wanted:
            try:
                check_image(volume.head)
            except (StoreError, OSError):
                return False
            return True
    return False


def _named(descriptor: int, image_bytes: int, digest: PageDigest) -> tuple[Words, Words, PageNumbers]:
    """Hashes, keys and numbers of all blocks that are not zero."""
    hashes, keys, numbers, count = [], [], [], 0
    for extent in extents(lambda offset, size: os.pread(descriptor, size, offset), image_bytes):
        for offset in range(extent.offset, extent.offset + extent.size, READ_BYTES):
            size = min(READ_BYTES, extent.offset + extent.size - offset)
            data = os.pread(descriptor, size, offset)
            pages = np.frombuffer(data[: len(data) // PAGE_BYTES * PAGE_BYTES], np.uint64).reshape(-1, PAGE_BYTES // 8)
            solid = np.flatnonzero(pages.any(axis=1))
            if len(solid):
                chosen = pages[solid]
                hashes.append(hash_pages(chosen))
                keys.append(search_keys(digest.of(chosen)))
                numbers.append((solid + offset // PAGE_BYTES).astype(np.uint32))
                count += len(solid)
            if count > IMAGE_PAGES_MAX:
                raise StoreError(f"it has more than {IMAGE_PAGES_MAX} blocks of data")
    if not keys:
        return np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint32)
    all_keys, first = np.unique(np.concatenate(keys), return_index=True)
    return np.concatenate(hashes)[first], all_keys, np.concatenate(numbers)[first]


def _put(shelf: Shelf, index: VolumeIndex, now: float) -> None:
    before = [found for found in shelf.volumes(index.head.scope) if found.head.image == index.head.image]
    if not shelf.make_room(len(index.keys) * INDEX_BYTES_A_PAGE + READ_BYTES):
        raise StoreError(
            f"the index of {index.head.image} takes {len(index.keys) * INDEX_BYTES_A_PAGE} bytes, and there is no room",
            hint="raise store.bytes_max",
        )
    path = shelf.folder(index.head.scope) / f"{fresh_name()}{INDEX}"
    with shelf.locked():
        write_whole(path, pack_index(index), sync=False)
        shelf.give(path)
        os.utime(path, (now, now))
        for volume in before:
            shelf.discard(volume)
