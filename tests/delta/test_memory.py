"""Memory of both sides is bounded by what is configured, however large the guest is."""

import subprocess
import sys
from pathlib import Path

import pytest

from dwcp_migrate.units import MIB

BEYOND_CACHE_BYTES = 300 * MIB


@pytest.mark.parametrize(
    ("mebibytes", "cache_mebibytes"),
    [(384, 32), pytest.param(2048, 256, marks=pytest.mark.long)],
    ids=["short", "two gigabytes of memory"],
)
def test_neither_side_grows_with_the_guest(mebibytes: int, cache_mebibytes: int) -> None:
    encoder, decoder = (_command(role, mebibytes, cache_mebibytes) for role in ("encoder", "decoder"))
    root = Path(__file__).parents[2]
    with (
        subprocess.Popen(encoder, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as source,
        subprocess.Popen(decoder, cwd=root, stdin=source.stdout, stderr=subprocess.PIPE) as destination,
    ):
        said = [process.stderr.read() for process in (source, destination) if process.stderr is not None]
    assert (source.returncode, destination.returncode) == (0, 0), said
    peaks = [int(text) for text in said]
    assert all(cache_mebibytes * MIB < peak < cache_mebibytes * MIB + BEYOND_CACHE_BYTES for peak in peaks), peaks
    assert mebibytes * MIB > cache_mebibytes * MIB + BEYOND_CACHE_BYTES, "the guest must not fit below the bound"


def _command(role: str, mebibytes: int, cache_mebibytes: int) -> list[str]:
    return [sys.executable, "-m", "tests.delta.sides", role, str(mebibytes), str(cache_mebibytes)]
