"""Migrations are left alone where earlier ones to the same peer showed that the link outruns the pipeline."""

import pytest
from msgspec.structs import replace

from dwcp_migrate.agent.migrations.step_aside import (
    ASIDE,
    BOTH_ALLOW,
    CONFIRMED_MIN,
    EVIDENCE_BYTES_MIN,
    EVIDENCE_S_MAX,
    LINK_SHARE_MAX,
    PAST_MAX,
    UNCLASSIFIED_MIN,
    reason_to_step_aside,
)
from dwcp_migrate.agent.tracking.uncaught import STEP_ASIDE
from dwcp_migrate.api.migration import Migration, MigrationEvent
from dwcp_migrate.protocol.worker import MigrationCounters
from dwcp_migrate.units import GIB

NOW = 1_790_000_000.0


def accelerated(*, link: float = 0.1, unclassified: float = 0.9, seconds: float = 10.0, raw: int = GIB) -> Migration:
    counters = MigrationCounters(
        raw_bytes=raw,
        unclassified_bytes=round(raw * unclassified),
        held_up_s={"link": link * seconds, "encryption": (1 - link) * seconds},
    )
    return Migration(
        id="0" * 32,
        role="source",
        peer="b",
        address="192.0.2.2",
        port=49152,
        started_at=NOW - 60 - seconds,
        ended_at=NOW - 60,
        state="ended",
        result="completed",
        counters=counters,
        events=(MigrationEvent(at=NOW - 60, event=BOTH_ALLOW),),
    )


def left_alone(seconds: float) -> Migration:
    return replace(
        accelerated(seconds=seconds), passthrough_reason=STEP_ASIDE, counters=MigrationCounters(raw_bytes=GIB)
    )


def not_even_caught(seconds: float) -> Migration:
    return replace(left_alone(seconds), counters=MigrationCounters(), processed_bytes=GIB)


def test_one_that_went_as_it_is_and_left_the_link_idle_is_the_last_that_is_carried() -> None:
    assert "left the link idle" in reason_to_step_aside([accelerated()], "b", NOW, in_clear=True)


@pytest.mark.parametrize(
    "record",
    [
        accelerated(link=LINK_SHARE_MAX + 0.01),
        accelerated(unclassified=UNCLASSIFIED_MIN - 0.01),
        accelerated(raw=EVIDENCE_BYTES_MIN - 1),
        replace(accelerated(), peer="c"),
        replace(accelerated(), role="destination"),
        replace(accelerated(), kind="disk"),
        replace(accelerated(), result="failed"),
        replace(accelerated(), ended_at=NOW - EVIDENCE_S_MAX - 1),
        replace(accelerated(), passthrough_reason="unreachable"),
    ],
)
def test_what_shows_no_faster_link_to_this_peer_changes_nothing(record: Migration) -> None:
    assert not reason_to_step_aside([record], "b", NOW, in_clear=True)


def test_evidence_holds_at_its_limits() -> None:
    at_limits = accelerated(link=LINK_SHARE_MAX, unclassified=UNCLASSIFIED_MIN, raw=EVIDENCE_BYTES_MIN)
    assert reason_to_step_aside([replace(at_limits, ended_at=NOW - EVIDENCE_S_MAX)], "b", NOW, in_clear=True)


def test_nothing_is_left_alone_without_evidence() -> None:
    assert not reason_to_step_aside([], "b", NOW, in_clear=True)
    assert not reason_to_step_aside([left_alone(10)], "b", NOW, in_clear=True)


def test_one_left_alone_confirms_while_it_is_about_as_fast_and_refutes_once_it_is_slower() -> None:
    evidence = accelerated(seconds=10)
    assert reason_to_step_aside([left_alone(10 / CONFIRMED_MIN - 0.1), evidence], "b", NOW, in_clear=True)
    assert reason_to_step_aside([not_even_caught(10 / CONFIRMED_MIN - 0.1), evidence], "b", NOW, in_clear=True)
    assert not reason_to_step_aside([not_even_caught(10 / CONFIRMED_MIN + 0.1), evidence], "b", NOW, in_clear=True)
    assert not reason_to_step_aside([left_alone(10 / CONFIRMED_MIN + 0.1), evidence], "b", NOW, in_clear=True)


def test_the_newest_accelerated_one_counts() -> None:
    assert not reason_to_step_aside([accelerated(link=0.9), accelerated()], "b", NOW, in_clear=True)
    assert reason_to_step_aside([accelerated(), accelerated(link=0.9)], "b", NOW, in_clear=True)


def in_tls(seconds: float) -> Migration:
    event = MigrationEvent(at=NOW - 60 - seconds, event=ASIDE, detail="it left the link idle")
    return replace(accelerated(seconds=seconds), counters=MigrationCounters(raw_bytes=GIB), events=(event,))


def test_one_that_went_past_the_pipeline_in_tls_confirms_and_refutes_like_one_left_alone() -> None:
    evidence = accelerated(seconds=10)
    assert reason_to_step_aside([in_tls(10 / CONFIRMED_MIN - 0.1), evidence], "b", NOW, in_clear=True)
    assert not reason_to_step_aside([in_tls(10 / CONFIRMED_MIN + 0.1), evidence], "b", NOW, in_clear=True)
    assert not reason_to_step_aside([in_tls(10)], "b", NOW, in_clear=True)


def test_after_so_many_that_went_past_it_one_shows_anew_whether_that_is_right() -> None:
    evidence = accelerated()
    assert reason_to_step_aside([*(PAST_MAX - 1) * [in_tls(10)], evidence], "b", NOW, in_clear=True)
    assert not reason_to_step_aside([*PAST_MAX * [in_tls(10)], evidence], "b", NOW, in_clear=True)


def test_nothing_goes_in_clear_that_the_peer_has_not_allowed_and_its_connections_may_leave_in_tls() -> None:
    evidence = replace(accelerated(), events=())
    assert not reason_to_step_aside([evidence], "b", NOW, in_clear=True)
    assert reason_to_step_aside([evidence], "b", NOW, in_clear=False)
