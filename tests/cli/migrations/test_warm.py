"""`warm`: what is asked of the agent, what is shown meanwhile, and how it ends."""

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from dwcp_migrate.api.warm import WarmUp, WarmUpList
from dwcp_migrate.cli.migrations import warm

Call = Callable[..., tuple[int, str, str]]
BEGUN = WarmUp(id="a1", domain="web1", uuid="u1", peer="hv2", started_at=0.0)
DONE = replace(BEGUN, state="ended", passes=1, pages=1000, known_pages=200, wire_bytes=3 << 20)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "LOOK_S", 0.001)


def answers(agent: Any, *states: WarmUp) -> None:
    """Have the agent show these states, one after the other; the last one stays."""
    left = list(states)
    find = agent.answer

    def answer(method: str, target: str) -> tuple[int, bytes]:
        if (method, target) == ("GET", "/v1/warm"):
            agent.more["/v1/warm"] = WarmUpList(warm_ups=[left.pop(0) if len(left) > 1 else left[0]])
        elif method == "POST":
            agent.more |= {"/v1/warm": BEGUN, "/v1/warm/end": BEGUN}
        found: tuple[int, bytes] = find(method, target)
        return found

    agent.answer = answer


def test_it_is_begun_as_asked_shown_and_summed_up(agent: Any, call: Call) -> None:
    under_way = replace(BEGUN, pages=500, wire_bytes=1 << 20, readable_bytes=4 << 30)
    answers(agent, under_way, replace(under_way, state="waiting", detail="a migration runs on this host"), DONE)
    code, out, err = call("warm", "web1", "--to", "hv2", "--rate", "200Mbit/s", "--for", "2h")
    query = {"domain": "web1", "peer": "hv2", "bytes_per_s": "25000000.0", "for_s": "7200.0"}
    assert agent.posted == [("/v1/warm", query)]
    assert code == 0
    assert out == "web1: 1000 pages carried to hv2 in 1 pass, 200 of them were there already, 3.0 MiB sent\n"
    assert "web1: pass 1, 500 pages of a guest of 4.0 GiB" in err
    assert "web1: waits: a migration runs on this host" in err


def test_json_is_the_record_alone(agent: Any, call: Call) -> None:
    answers(agent, BEGUN, DONE)
    code, out, err = call("warm", "web1", "--to", "hv2", "--json")
    assert (code, msgspec.json.decode(out, type=WarmUp), err) == (0, DONE, "")


def test_one_that_fails_says_why_and_what_to_do(agent: Any, call: Call) -> None:
    answers(
        agent, replace(BEGUN, state="failed", error="hv2 refused: it has no page store", hint="set store.bytes_max")
    )
    code, _, err = call("warm", "web1", "--to", "hv2")
    assert code == 9
    assert err.splitlines()[-2:] == ["error: web1: hv2 refused: it has no page store", "hint: set store.bytes_max"]


def test_ctrl_c_ends_it_in_order(agent: Any, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(agent, replace(DONE, detail="ended by command"))

    def interrupt(_: float) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    monkeypatch.setenv("DWCP_MIGRATE_SOCKET", str(agent.socket_path))
    code, out, _ = call("warm", "web1", "--to", "hv2")
    assert (code, out.endswith("sent; ended by command\n")) == (0, True)
    assert agent.posted[-1] == ("/v1/warm/end", {"id": "a1"})


def test_an_agent_that_was_started_again_knows_it_no_more(agent: Any, call: Call) -> None:
    answers(agent, replace(DONE, id="another"))
    code, _, err = call("warm", "web1", "--to", "hv2")
    assert code == 3
    assert "begin it again" in err


def test_more_than_a_day_is_refused(call: Call) -> None:
    code, _, err = call("warm", "web1", "--to", "hv2", "--for", "25h")
    assert code == 2
    assert "at most 24h" in err


def test_status_shows_warm_ups_beside_migrations(agent: Any, call: Call) -> None:
    agent.status = replace(agent.status, warm_ups=[replace(BEGUN, state="waiting", detail="a migration runs")])
    code, out, _ = call("status")
    assert code == 0
    (row,) = [line for line in out.splitlines() if line.lstrip().startswith("web1 ") and "waiting" in line]
    assert row.split()[:5] == ["web1", "hv2", "waiting", "0", "0"]
    assert row.endswith("a migration runs")
