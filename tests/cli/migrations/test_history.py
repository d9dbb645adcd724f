"""`history`, `events` and `abort` against an agent that answers from a list."""

import csv
import io
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from dwcp_migrate.api import schema
from dwcp_migrate.cli.migrations.abort import running
from dwcp_migrate.cli.migrations.events import text
from dwcp_migrate.errors import NotFoundError
from tests.agent.records import make_expected

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def some(agent: Any, ended: Callable[..., schema.Migration]) -> None:
    now = time.time()
    agent.ended = [
        ended(id="a" * 32, domain="web1", peer="hv2", ended_at=now - 60, result="completed"),
        ended(id="b" * 32, domain="db1", peer="HV3", ended_at=now - 7200, result="failed", reason="cancelled"),
        ended(id="c" * 32, domain="db1", peer="hv2", ended_at=now - 9 * 86400, passthrough_reason="unreachable"),
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "abc"),
        (["--since", "1h"], "a"),
        (["--since", "7d"], "ab"),
        (["--since", "1970-01-01"], "abc"),
        (["--domain", "db1"], "bc"),
        (["--peer", "hv3"], "b"),
        (["--failed"], "b"),
        (["--unaccelerated"], "c"),
        (["--domain", "db1", "-n", "1"], "b"),
        (["--domain", "none"], ""),
    ],
)
def test_history_is_filtered(some: None, call: Call, options: list[str], expected: str) -> None:
    del some
    code, out, _ = call("history", "--json", *options)
    assert code == 0
    assert "".join(one["id"][0] for one in json.loads(out)) == expected


def test_an_observed_migration_is_told_with_what_it_would_have_taken(
    agent: Any, call: Call, ended: Callable[..., schema.Migration]
) -> None:
    expected = make_expected(9.0, 12.0, 15.0)
    agent.ended = [ended(passthrough_reason="observe", expected=expected)]  # it took 50 s
    assert "observed: accelerated 12 s (9.0 s to 15 s)" in call("history")[1]
    assert "12 s (9.0 s to 15 s) if it had been accelerated: 35 s to 41 s saved" in call("show", "aa")[1]


def test_history_as_csv_is_read_back_by_a_csv_reader(some: None, call: Call) -> None:
    del some
    code, out, _ = call("history", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [(row["domain"], row["result"], row["reason"]) for row in rows][1] == ("db1", "failed", "cancelled")


def test_a_time_that_is_none_is_refused_with_examples(call: Call) -> None:
    code, _, err = call("history", "--since", "yesterday")
    assert code == 2
    assert "2h or 7d" in err


def test_an_event_is_one_line_that_says_what_happened(ended: Callable[..., schema.Migration]) -> None:
    failed = ended(domain="web1", peer="hv2", result="failed", reason="link lost")
    line = text(schema.Update(at=0.0, state="running", migration=failed))
    assert "\n" not in line
    assert "web1" in line
    assert line.endswith("failed: link lost")
    assert text(schema.Update(at=0.0, state="draining")).endswith("agent draining")


def test_abort_finds_the_one_migration_that_is_meant(migration: Callable[..., schema.Migration]) -> None:
    here = migration(id="a" * 32, role="source", domain="web1", uuid="u1", state="precopy")
    there = migration(id="b" * 32, role="destination", domain="db1", uuid="u2", peer="hv2", state="precopy")
    late = migration(id="c" * 32, role="source", domain="db2", uuid="u3", state="postcopy")
    everything = [here, there, late]
    assert running(everything, "web1") is running(everything, "u1") is running(everything, "aa") is here
    for wanted, why in (("db1", "leaves this host"), ("none", "leaves this host"), ("db2", "postcopy")):
        with pytest.raises(NotFoundError, match=why):
            running(everything, wanted)
    with pytest.raises(NotFoundError) as told:
        running(everything, "db1")
    assert "hv2" in (told.value.hint or "")
