from pathlib import Path

import pytest

from dwcp_migrate.agent.tracking.memory_budget import MemoryBudget, available_bytes, budget_bytes, grant_bytes
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.errors import NoMemoryError
from dwcp_migrate.protocol.control import Open
from dwcp_migrate.protocol.session_memory import FLOOR_BYTES, LEGACY_BYTES
from dwcp_migrate.units import GIB, MIB


def budget_of(total: int, sessions_max: int = 32, bytes_max: int = 0) -> MemoryBudget:
    """A budget on a host that has five times `total` to spare while nothing is granted."""
    made = MemoryBudget(lambda: bytes_max, lambda: sessions_max, lambda: 5 * total - made.granted_bytes)
    return made


def opened(window_bytes: int = 64 * MIB) -> Open:
    return Open(
        versions=(1,),
        session_id=bytes(16),
        token=bytes(32),
        address="192.0.2.1",
        port=49152,
        cache_bytes=GIB,
        channels_max=64,
        window_bytes=window_bytes,
    )


def record(identity: str, **settings: str) -> Migration:
    return Migration(id=identity, role="source", peer="b", address="192.0.2.1", port=49152, started_at=1.0, **settings)  # type: ignore[arg-type]


def test_the_budget_is_a_fifth_of_what_the_host_has_to_spare_and_no_more_than_configured() -> None:
    assert budget_bytes(10 * GIB, 0, 0) == 2 * GIB
    assert budget_bytes(8 * GIB, 2 * GIB, 0) == 2 * GIB  # what sessions occupy was to spare before them
    assert budget_bytes(10 * GIB, 0, GIB) == GIB


def test_64_sessions_fit_into_2_gib_and_the_65th_gets_nothing() -> None:
    budget = budget_of(2 * GIB, sessions_max=64)
    grants = [budget.grant(str(number), 2 * GIB) for number in range(65)]
    assert all(grant >= FLOOR_BYTES for grant in grants[:64])
    assert grants[64] == 0
    assert budget.granted_bytes <= 2 * GIB
    budget.release("7")
    assert budget.grant("64", GIB) >= FLOOR_BYTES


def test_the_first_session_gets_a_quarter_of_what_need_not_be_kept_for_others() -> None:
    assert grant_bytes(9 * GIB, 0, 0, 32, 100 * GIB, FLOOR_BYTES) == (9 * GIB - 31 * FLOOR_BYTES) // 4
    assert grant_bytes(9 * GIB, 0, 0, 32, 500 * MIB, FLOOR_BYTES) == 500 * MIB


def test_a_host_with_less_than_the_floor_grants_nothing_and_says_so_in_words() -> None:
    budget = budget_of(FLOOR_BYTES - 1)
    with pytest.raises(NoMemoryError, match=r"a session takes at least 32\.0 MiB; of 32\.0 MiB"):
        budget.for_source("a", GIB, 4 * GIB)
    assert budget.use().sessions_max == 0


def test_what_both_ends_do_not_use_is_free_again() -> None:
    budget = budget_of(8 * GIB)
    memory = budget.for_source("a", GIB, 4 * GIB)
    before = budget.granted_bytes
    agreed = budget.agree("a", memory, 16 * MIB, 2 * MIB)
    assert budget.granted_bytes == agreed.granted_bytes < before


def test_the_destination_takes_no_more_than_the_source_offers() -> None:
    memory = budget_of(8 * GIB).for_destination("a", opened(window_bytes=4 * MIB), 64 * MIB)
    assert memory.window_bytes == 4 * MIB
    assert memory.cache_bytes == 64 * MIB
    assert memory.granted_bytes < 128 * MIB


def test_a_source_of_before_is_granted_its_fixed_window_or_nothing() -> None:
    memory = budget_of(8 * GIB).for_destination("a", opened(window_bytes=0), GIB)
    assert memory.granted_bytes >= LEGACY_BYTES
    assert not memory.is_agreed
    with pytest.raises(NoMemoryError):
        budget_of(LEGACY_BYTES - 1).for_destination("a", opened(window_bytes=0), GIB)


def test_a_record_that_ends_or_passes_through_gives_its_memory_back() -> None:
    budget = budget_of(8 * GIB)
    for identity in "abc":
        budget.grant(identity, GIB)
    budget.observe(None, record("a"))
    budget.observe(record("b"), record("b", state="ended"))
    budget.observe(record("c"), record("c", passthrough_reason="no-link"))
    assert budget.use().sessions == 1


def test_a_kernel_that_does_not_say_what_is_available_is_asked_what_is_free(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_bytes(b"MemTotal: 8 kB\nMemAvailable:    2048 kB\n")
    assert available_bytes(tmp_path / "meminfo") == 2 * MIB
    assert available_bytes(tmp_path / "none") > 0
