"""Real agents over a link that outruns them: the first migration leaves its channels, the next one from its start."""

import pytest

from dwcp_migrate.api import schema
from dwcp_migrate.units import MIB
from tests.agent.hosts import Host
from tests.agent.streams import carry_blocks

BLOCKS = 600
"""Of a stream that is not watched; the first one lasts until it has left, on a machine that others use too."""
BLOCKS_MAX = 30_000
LOOK_BLOCKS = 100
CARRIED_MAX = 15


def carry(source: Host, destination: Host, *, until_aside: bool = False) -> schema.Migration:
    """Bring blocks across, where that is asked until some went past the channels; returns the source's record."""

    def is_aside(sent: int) -> bool:
        return until_aside and sent >= BLOCKS and not sent % LOOK_BLOCKS and left(source.status().migrations)

    blocks = carry_blocks(source, destination, BLOCKS_MAX if until_aside else BLOCKS, between=is_aside)
    record = source.ended()[0]
    assert record.counters.raw_bytes == blocks * MIB
    assert (record.result, record.passthrough_reason, record.counters.channels_lost) == ("completed", "", 0)
    return record


def left(running: list[schema.Migration]) -> bool:
    return any(record.counters.aside_bytes > LOOK_BLOCKS * MIB for record in running)


def detail(record: schema.Migration, event: str) -> str:
    return next((found.detail for found in record.events if found.event == event), "")


@pytest.mark.timeout(240)
def test_bytes_that_outrun_the_pipeline_leave_it_in_tls_and_the_next_migration_at_once(
    pair: tuple[Host, Host],
) -> None:
    source, destination = pair
    records = [carry(source, destination, until_aside=True)]
    assert not detail(records[0], "aside")
    while not detail(records[-1], "aside"):  # the link of a busy machine is not idle each time
        assert len(records) < CARRIED_MAX
        records.append(carry(source, destination, until_aside=True))
    assert "left the link idle" in detail(records[-1], "aside")
    for record in records:
        assert detail(record, "stands-aside").startswith("each connection in TLS of its own: ")
    assert records[-1].counters.aside_bytes > records[-1].counters.raw_bytes / 2
    totals = source.status().totals
    assert (totals.aside_bytes, totals.plain_bytes) == (sum(record.counters.aside_bytes for record in records), 0)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("side", ["source", "destination"])
def test_one_host_that_never_lets_bytes_past_its_channels_keeps_them_there(pair: tuple[Host, Host], side: str) -> None:
    stays = pair[0] if side == "source" else pair[1]
    stays.tables["policy"] = {"require_announcement": False, "step_aside": "never"}
    stays.reload()
    for record in (carry(*pair), carry(*pair)):
        assert record.counters.aside_bytes == 0
        assert not detail(record, "stands-aside")
        assert not detail(record, "aside")
