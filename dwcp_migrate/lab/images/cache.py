"""Things that are made once a machine and reused by every checkout: the Debian tree, the relay, the guest's images.

The rule here: an entry is either whole or absent. It is built under a temporary name, under a lock, and renamed into
place; what an interrupted build left is removed by the next one. The entry's name holds a digest of its recipe, so a
changed recipe never meets an old product.

    with entry("wan", digest) -> Path        # exists already: returned at once
        build(temporary_directory)           # else: built, renamed, returned
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

DIGEST_CHARACTERS: Final = 12
"""48 bits: a handful of recipes ever exist, so this cannot collide by accident."""


def directory() -> Path:
    """Return the cache's directory: `DWCP_LAB_CACHE`, or else /var/cache/dwcp-migrate."""
    return Path(os.environ.get("DWCP_LAB_CACHE", "/var/cache/dwcp-migrate"))


def digest(*parts: str | bytes) -> str:
    """Name a recipe by its parts; the order counts and neighbours cannot run into each other."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:DIGEST_CHARACTERS]


def entry(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """Return the cached directory `kind-key`, building it first where it is absent.

    Args:
        kind: what it is, for people who look into the cache.
        key: digest of its recipe.
        build: fills the empty directory that it is given; an exception leaves no entry behind.
    """
    final = directory() / f"{kind}-{key}"
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with _locked(final.parent / f"{kind}.lock"):
        if final.is_dir():  # somebody else built it while we waited for the lock
            return final
        _remove_unfinished(final.parent, kind)
        temporary = final.with_name(f"{final.name}.unfinished")
        temporary.mkdir()
        try:
            build(temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        temporary.rename(final)
    return final


def _remove_unfinished(parent: Path, kind: str) -> None:
    """Remove what interrupted builds of this kind left; the caller holds the kind's lock, so none is under way."""
    for left in parent.glob(f"{kind}-*.unfinished"):
        shutil.rmtree(left)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
