"""Cutting: bounds, blocks that make no difference, and content that keeps its chunks when it moves."""

import random
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp_migrate.bulk.core.chunking import (
    CHUNKS_AIMED_AT,
    MEAN_BYTES_MAX,
    MEAN_BYTES_MIN,
    ChunkCutter,
    choose_mean_bytes,
)
from dwcp_migrate.bulk.core.manifest import digest_chunk
from dwcp_migrate.errors import LocalProtocolError

MEAN = MEAN_BYTES_MIN


def cut(data: bytes, mean: int = MEAN, block: int = 1 << 20) -> list[int]:
    cutter = ChunkCutter(mean)
    lengths = [length for at in range(0, len(data), block) for length in cutter.feed(data[at : at + block])]
    return lengths + cutter.finish()


def names(data: bytes) -> set[bytes]:
    ends = list(accumulate(cut(data)))
    return {digest_chunk(data[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(0, 60_000),
    block=st.integers(1, 20_000),
    letters=st.sampled_from([b"\0", b",", b"ab,", bytes(range(256))]),
)
def test_lengths_add_up_within_bounds_whatever_the_blocks_are(seed: int, size: int, block: int, letters: bytes) -> None:
    data = bytes(random.Random(seed).choices(letters, k=size))
    lengths = cut(data, block=block)
    assert sum(lengths) == size
    assert all(MEAN // 2 <= length <= 4 * MEAN for length in lengths[:-1])
    assert all(0 < length <= 4 * MEAN for length in lengths)
    assert lengths == cut(data)


@pytest.mark.parametrize("content", ["random", "text"])
def test_chunks_behind_an_insertion_keep_their_names(content: str) -> None:
    draw = random.Random(7)
    if content == "random":
        data = draw.randbytes(400_000)
    else:
        data = "".join(
            f'{{"host": "hv{draw.randrange(999)}", "bytes": {draw.randrange(10**9)}}}\n' for _ in range(9000)
        ).encode()
    changed = data[:100_000] + b"one entry more" + data[100_000:]
    before, after = names(data), names(changed)
    assert len(after - before) <= 3
    assert len(before) > len(data) // (2 * MEAN)


def test_mean_size_of_random_bytes_is_about_as_asked() -> None:
    data = random.Random(1).randbytes(1_000_000)
    assert 0.7 * MEAN < len(data) / len(cut(data)) < 1.4 * MEAN


def test_mean_size_grows_with_the_object_between_its_bounds() -> None:
    assert choose_mean_bytes(0) == MEAN_BYTES_MIN
    assert choose_mean_bytes(MEAN_BYTES_MIN * CHUNKS_AIMED_AT) == MEAN_BYTES_MIN
    assert choose_mean_bytes(MEAN_BYTES_MIN * CHUNKS_AIMED_AT + 1) == 2 * MEAN_BYTES_MIN
    assert choose_mean_bytes(1 << 50) == MEAN_BYTES_MAX


@pytest.mark.parametrize("mean", [MEAN_BYTES_MIN, MEAN_BYTES_MAX])
def test_mean_sizes_at_the_bounds_are_taken(mean: int) -> None:
    assert cut(bytes(5 * mean), mean) == [4 * mean, mean]


@pytest.mark.parametrize("mean", [0, MEAN_BYTES_MIN // 2, MEAN_BYTES_MIN + 1, MEAN_BYTES_MAX * 2])
def test_mean_sizes_past_the_bounds_are_refused(mean: int) -> None:
    with pytest.raises(LocalProtocolError):
        ChunkCutter(mean)
