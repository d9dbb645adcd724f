"""Real agents over a link that outruns them: the first migration leaves its channels, the next one from its start."""

import pytest

from dwcp_migrate.api import schema
from dwcp_migrate.units import MIB
from tests.agent.hosts import Host
from tests.agent.streams import carry_blocks

BLOCKS = 600
CARRIED_MAX = 10


def carry(source: Host, destination: Host) -> schema.Migration:
    """Bring all blocks across; returns the source's record."""
    carry_blocks(source, destination, BLOCKS)
    record = source.ended()[0]
    assert record.counters.raw_bytes == BLOCKS * MIB
    assert (record.result, record.passthrough_reason, record.counters.channels_lost) == ("completed", "", 0)
    return record


def detail(record: schema.Migration, event: str) -> str:
    return next((found.detail for found in record.events if found.event == event), "")


@pytest.mark.timeout(240)
def test_bytes_that_outrun_the_pipeline_leave_it_in_tls_and_the_next_migration_at_once(
    pair: tuple[Host, Host],
) -> None:
    source, destination = pair
    records = [carry(source, destination)]
    while not detail(records[-1], "aside"):  # a machine that others use too is not outrun each time
        assert len(records) < CARRIED_MAX
        records.append(carry(source, destination))
    left = [record for record in records if detail(record, "stands-aside")]
    assert "left the link idle" in detail(records[-1], "aside")
    assert all(detail(record, "stands-aside").startswith("each connection in TLS of its own: ") for record in left)
    assert all((record.counters.aside_bytes > 0) == (record in left) for record in records)
    assert records[-1] in left
    assert records[-1].counters.aside_bytes > BLOCKS * MIB / 2
    totals = source.status().totals
    assert (totals.aside_bytes, totals.plain_bytes) == (sum(record.counters.aside_bytes for record in left), 0)


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
