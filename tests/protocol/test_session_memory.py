import pytest

from dwcp_migrate.protocol.session_memory import (
    FLOOR_BYTES,
    INDEX_BYTES_A_PAGE,
    LEGACY_BYTES,
    OVERHEAD_BYTES,
    WINDOW_BYTES_MAX,
    WINDOW_BYTES_MIN,
    WINDOW_COPIES,
    SessionMemory,
    agree_on_sizes,
    divide_grant,
    incoming_bytes_max,
    need_bytes,
)
from dwcp_migrate.units import GIB, KIB, MIB, PAGE_BYTES

GRANTS = (FLOOR_BYTES, FLOOR_BYTES + 1, 48 * MIB, 100 * MIB, 333 * MIB, GIB, 5 * GIB)
GUESTS = (0, 256 * MIB, 4 * GIB, 64 * GIB, 1024 * GIB)


def sum_of_parts(memory: SessionMemory) -> int:
    cache = memory.cache_bytes // PAGE_BYTES * (PAGE_BYTES + INDEX_BYTES_A_PAGE)
    return OVERHEAD_BYTES + WINDOW_COPIES * memory.window_bytes + memory.table_bytes + cache


@pytest.mark.parametrize("has_table", [True, False])
@pytest.mark.parametrize("guest", GUESTS)
@pytest.mark.parametrize("grant", GRANTS)
def test_the_parts_of_a_grant_never_exceed_it(grant: int, guest: int, has_table: bool) -> None:  # noqa: FBT001
    memory = divide_grant(grant, 64 * GIB, guest, has_table=has_table)
    assert sum_of_parts(memory) <= grant
    assert WINDOW_BYTES_MIN <= memory.window_bytes <= WINDOW_BYTES_MAX


@pytest.mark.parametrize("guest", GUESTS)
def test_a_session_that_gets_what_it_needs_has_its_whole_cache_window_and_table(guest: int) -> None:
    memory = divide_grant(need_bytes(GIB, guest, has_table=True), min(GIB, guest or GIB), guest, has_table=True)
    assert memory.cache_bytes == min(GIB, guest or GIB)
    assert memory.window_bytes == WINDOW_BYTES_MAX
    assert memory.table_bytes >= guest // PAGE_BYTES * 4


def test_both_ends_keep_to_the_smaller_cache_and_window_and_give_the_rest_back() -> None:
    large, small = divide_grant(2 * GIB, GIB, 4 * GIB, has_table=True), divide_grant(FLOOR_BYTES, GIB, has_table=False)
    agreed = agree_on_sizes(large, small.cache_bytes, small.window_bytes)
    assert (agreed.cache_bytes, agreed.window_bytes) == (small.cache_bytes, small.window_bytes)
    assert FLOOR_BYTES <= agreed.granted_bytes < 64 * MIB
    assert agreed.is_agreed


def test_a_peer_that_names_no_window_is_met_with_the_constants_of_before() -> None:
    memory = agree_on_sizes(divide_grant(2 * GIB, GIB, has_table=False), 0, 0)
    assert not memory.is_agreed
    assert memory.granted_bytes == LEGACY_BYTES


def test_what_a_peer_may_leave_waiting_follows_the_window_and_counts_no_more_connections_than_qemu_opens() -> None:
    assert incoming_bytes_max(2 * MIB, 1, 64 * KIB) == 8 * MIB + 64 * KIB
    assert incoming_bytes_max(2 * MIB, 1024, 64 * KIB) == incoming_bytes_max(2 * MIB, 260, 64 * KIB) < FLOOR_BYTES
