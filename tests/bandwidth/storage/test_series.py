import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_migrate.bandwidth.forecasting.resampling import Samples
from dwcp_migrate.bandwidth.storage import series
from dwcp_migrate.bandwidth.storage.series import CAPACITY, FILE_BYTES, KEY_BYTES_MAX, Key
from dwcp_migrate.bandwidth.storage.series_store import Store, read_all, read_file

RATE = Key("link", "rate", "hv2.example.net")


def files_of(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def test_samples_become_the_mean_of_a_step() -> None:
    samples = Samples(3)
    samples.add(np.array([0, 2]), np.array([4.0, 1.0]))
    samples.add(np.array([0, 1]), np.array([6.0, np.nan]))
    slots, means = samples.take()
    assert list(slots) == [0, 2]
    assert list(means) == [5.0, 1.0]
    assert not len(samples.take()[0])


def test_a_series_comes_back_as_it_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for value in (1.0, 2.5, 4.0):
        store.add(RATE, value, 1000 + value)
    store.flush()
    store.add(RATE, 5.0, 2000.0)
    store.flush()
    (ring,) = read_all(tmp_path)
    assert ring.key == RATE
    assert list(ring.values) == [1.0, 2.5, 4.0, 5.0]
    assert (ring.taken, ring.last_at) == (4, 2000.0)
    assert list(Store(tmp_path).tail(RATE, 2)) == [4.0, 5.0]


@pytest.mark.parametrize("count", [CAPACITY - 1, CAPACITY, CAPACITY + 1, 2 * CAPACITY + 7])
def test_a_ring_keeps_the_newest_and_its_file_never_grows(tmp_path: Path, count: int) -> None:
    store = Store(tmp_path)
    for value in range(count):
        store.add(RATE, float(value), 0.0)
        if value % 5000 == 0:
            store.flush()
    store.flush()
    (ring,) = read_all(tmp_path)
    assert ring.taken == count
    assert list(ring.values) == [float(value) for value in range(max(0, count - CAPACITY), count)]
    assert files_of(tmp_path)[0].stat().st_size == FILE_BYTES


def test_a_store_that_begins_again_goes_on_where_it_was(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        store = Store(tmp_path)
        store.add(RATE, value, 0.0)
        store.flush()
    assert list(Store(tmp_path).tail(RATE, 10)) == [1.0, 2.0]


def test_the_limit_of_files_holds_and_the_longest_unchanged_goes(tmp_path: Path) -> None:
    store = Store(tmp_path, series_max=2)
    for number, name in enumerate(("a", "b")):
        store.add(Key("link", "rate", name), 1.0, 0.0)
        store.flush()
        os.utime(files_of(tmp_path)[number], (number, number))
    assert len(files_of(tmp_path)) == 2
    store.add(Key("link", "rate", "c"), 1.0, 0.0)
    store.flush()
    assert {ring.key.subject for ring in read_all(tmp_path)} == {"b", "c"}


@pytest.mark.parametrize("at", [0, 20, 40, 255])
def test_a_broken_header_is_no_series_and_is_begun_anew(tmp_path: Path, at: int) -> None:
    store = Store(tmp_path)
    store.add(RATE, 1.0, 0.0)
    store.flush()
    (path,) = files_of(tmp_path)
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    assert read_all(tmp_path) == []
    fresh = Store(tmp_path)
    fresh.add(RATE, 3.0, 0.0)
    fresh.flush()
    assert list(fresh.tail(RATE, 9)) == [3.0]


@given(st.binary(max_size=600))
def test_garbage_is_no_series(data: bytes) -> None:
    assert series.read(data) is None
    assert series.read(data.ljust(FILE_BYTES, b"\0")[:FILE_BYTES]) is None


def test_a_directory_that_cannot_be_written_is_said_and_stops_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    store = Store(blocked)
    store.add(RATE, 1.0, 0.0)
    store.flush()
    assert str(blocked) in store.error
    assert read_file(blocked / "x") is None


def test_a_subject_of_the_longest_kind_fits_and_one_longer_does_not(tmp_path: Path) -> None:
    room = KEY_BYTES_MAX - len("link/rate/")
    longest = Key("link", "rate", "x" * room)
    store = Store(tmp_path / "short")
    ring = series.read(series.header(longest, step_s=1.0, last_at=0.0, taken=0) + bytes(FILE_BYTES - 256))
    assert ring is not None
    assert ring.key == longest
    assert store.error == ""
    with pytest.raises(ValueError, match="subject"):
        Key("link", "rate", "x" * (room + 1))
    with pytest.raises(ValueError, match="quantity"):
        Key("link", "dirty", "x")
