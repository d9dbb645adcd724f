"""Kernels: compiled where numba is installed, interpreted where it is not; the same functions either way.

The rule here: a kernel takes one table. Compiled, that is a vector of sizes and addresses: a call costs a fifth of a
microsecond however many arrays the kernel reads, where passing thirty arrays would cost three. Interpreted, the table
is the tuple of arrays itself. Entry points have explicit signatures and are cached on disk, so nothing is compiled
while something waits.
"""

import contextlib
import hashlib
import mmap
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

try:
    numba: Any = import_module("numba")
except ImportError:  # the extra `coordinator` is not installed
    numba = None


def may_compile() -> bool:
    """Whether this process may make memory executable; a unit with MemoryDenyWriteExecute may not."""
    try:
        with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC):
            return True
    except OSError:
        return False


if numba is not None and (numba.config.DISABLE_JIT or not may_compile()):
    numba = None  # kernels are interpreted then

COMPILED: Final = numba is not None
"""Whether kernels run as machine code."""

SOURCES: Final = (
    "kernel.py",
    "arrays.py",
    "kernels/moves.py",
    "kernels/search.py",
    "kernels/chains.py",
    "kernels/recreate.py",
)
"""Files that kernels are made of, below this package."""


def cache_directory(package: Path, home: Path) -> Path | None:
    """Directory of compiled kernels: beside the package, or else in the user's cache; None if there is none.

    numba tells by one file's time whether what it kept is still good, but a kernel is made of parts from several
    files: so each version of all of them has a directory of its own.

    Args:
        package: directory of this package.
        home: of the user.
    """
    digest = hashlib.sha256(b"".join((package / name).read_bytes() for name in SOURCES)).hexdigest()[:16]
    for base in (package / "__pycache__", home / ".cache" / "dwcp-migrate"):
        directory = base / f"kernels-{digest}"
        with contextlib.suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
            probe = directory / ".probe"
            probe.touch()
            probe.unlink()
            return directory
    return None


_kept = cache_directory(Path(__file__).parent, Path.home()) if numba is not None else None
if numba is not None and _kept is not None and not numba.config.CACHE_DIR:
    numba.config.CACHE_DIR = str(_kept)
_CACHED: Final = _kept is not None

F = TypeVar("F", bound=Callable[..., Any])


def compile_part(function: F) -> F:
    """Make a function a part of kernels; the compiler decides whether it is inlined."""
    if numba is None:
        return function
    compiled: F = numba.njit(cache=_CACHED, nogil=True, error_model="numpy")(function)
    return compiled


def compile_inlined(function: F) -> F:
    """Make a part of kernels that is copied into each: in inner loops passing the arrays would cost more."""
    if numba is None:
        return function
    compiled: F = numba.njit(cache=_CACHED, nogil=True, error_model="numpy", forceinline=True)(function)
    return compiled


def compile_entry(signature: str) -> Callable[[F], F]:
    """Make a function a kernel that is called from outside; `signature` is numba's, `table` stands for the table."""

    def made(function: F) -> F:
        if numba is None:
            return function
        compiled: F = numba.njit(
            signature.replace("table", "int64[::1]"), cache=_CACHED, nogil=True, error_model="numpy"
        )(function)
        return compiled

    return made


if numba is not None:
    _types: Any = import_module("numba.core.types")
    _extending: Any = import_module("numba.extending")

    def _typed_pointer(_context: Any, address: Any) -> Any:
        """Turn an address into a pointer: the type, and how to make it."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return _types.voidptr(address), generate

    _pointer: Any = _extending.intrinsic(_typed_pointer)

    @compile_part
    def integers(table: Any, slot: int, shape: Any) -> Any:
        """Int64 array whose address is in a slot of the table."""
        return numba.carray(_pointer(table[slot]), shape, np.int64)

    @compile_part
    def floats(table: Any, slot: int, shape: Any) -> Any:
        """Float64 array whose address is in a slot of the table."""
        return numba.carray(_pointer(table[slot]), shape, np.float64)
