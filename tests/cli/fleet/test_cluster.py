"""What an operator sees of the fleet's shared state."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dwcp_migrate.agent.pbft.membership_change import Change, Named
from dwcp_migrate.api import schema
from dwcp_migrate.api.cluster import (
    Changed,
    Chosen,
    Cluster,
    EngineEvent,
    GroupMember,
    GroupStatus,
    HeldLease,
    Locks,
    PbftView,
    TicketList,
)
from dwcp_migrate.config import PbftMemberConfig, parse
from dwcp_migrate.errors import CoordinationError
from dwcp_migrate.state.engine_status import EngineMember, EngineStatus
from dwcp_migrate.state.fleet.model import HostCapacity, HostRecord, Lease, Limits, LinkReservation, Ticket

Call = Callable[..., tuple[int, str, str]]
NOW = 1_790_000_000.0


def make_cluster(**changes: Any) -> Cluster:
    engine = EngineStatus(
        engine="raft",
        state="follower",
        leader="hv1",
        term=4,
        commit_index=120,
        applied_index=120,
        log_bytes=2048,
        members=[
            EngineMember(name="hv1", role="leader", connected=True, behind=0),
            EngineMember(name="hv2", role="voter", connected=True),
            EngineMember(name="hv3", role="observer", connected=False),
        ],
        requests=7,
        requests_failed=1,
        commit_ms_p50=1.25,
        commit_ms_p99=3.5,
    )
    host = HostRecord(name="hv1", trust_domain="x", capacity=HostCapacity(cpus=8, memory_bytes=1 << 34), heard_at=NOW)
    fields: dict[str, Any] = {
        "name": "hv2",
        "is_shared": True,
        "is_required": True,
        "trust_domain": "x",
        "pbft": "off",
        "engine": engine,
        "hosts": [host],
    }
    return Cluster(**(fields | changes))


def make_ticket(**changes: Any) -> Ticket:
    fields: dict[str, Any] = {
        "token": 42,
        "uuid": "0123",
        "source": "hv1",
        "destination": "hv2",
        "generation": 3,
        "granted_at": NOW,
        "expires_at": NOW + 60,
    }
    return Ticket(**(fields | changes))


def test_cluster_status_shows_leader_log_members_and_hosts(call: Call, agent: Any) -> None:
    agent.more["/v1/cluster"] = make_cluster()
    code, out, _ = call("cluster", "status")
    assert code == 0
    assert "raft, this host is follower" in out
    assert "hv1, term 4" in out
    assert "120 committed, 120 applied, 2.0 KiB" in out
    assert "1.2 ms half of them, 3.5 ms 99 of 100" in out
    assert " hv1      leader     yes         0" in out
    assert " hv3      observer   no          -" in out
    assert "16.0 GiB" in out
    assert all(line == line.rstrip() for line in out.splitlines())


def test_a_host_by_itself_says_so(call: Call, agent: Any) -> None:
    agent.more["/v1/cluster"] = make_cluster(is_shared=False, is_required=False, hosts=[])
    _, out, _ = call("cluster", "status")
    assert "this host's own" in out


@pytest.mark.parametrize(("policy", "words"), [("off", "one trust domain"), ("certificates", "needs a certificate")])
def test_the_policy_across_trust_domains_is_shown(call: Call, agent: Any, policy: str, words: str) -> None:
    agent.more["/v1/cluster"] = make_cluster(pbft=policy)
    assert words in call("cluster", "status")[1]


def test_the_group_and_who_decided_why_is_shown(call: Call, agent: Any) -> None:
    group = GroupStatus(
        role="replica",
        members=["hv1", "hv2", "hv3", "hv4"],
        connected=["hv1", "hv3"],
        faulty_max=1,
        primary="hv2",
        view=1,
        sequence=17,
        view_changes=1,
        batch_p50=2.0,
        batch_max=5,
        decisions=9,
        decisions_failed=1,
        decision_ms_p50=3.25,
        decision_ms_max=80.0,
    )
    chosen = Chosen(at=NOW, source="hv1", destination="hv3", engine="pbft", reason="x and y differ", fallback=False)
    event = EngineEvent(at=NOW, engine="raft", usable=False, reason="no majority")
    agent.more["/v1/pbft"] = PbftView(mode="auto", group=group, choices=[chosen], events=[event])
    code, out, _ = call("cluster", "pbft")
    assert code == 0
    for words in (
        "1 that fail or lie",
        "1, primary hv2, 1 changes",
        "2 requests half of them, 5 at most",
        "9 for this host, 1 not in time",
        "3.2 ms half of them, 80.0 ms at most",
        "x and y differ",
        "no majority",
    ):
        assert words in out
    shown = json.loads(call("cluster", "pbft", "--json")[1])
    assert (shown["group"]["sequence"], shown["choices"][0]["engine"]) == (17, "pbft")


def test_members_that_were_verified_are_shown_beside_what_is_configured(call: Call, agent: Any) -> None:
    seats = [
        GroupMember(name="hv1", key="0f" * 32, votes=True, operator=True),
        GroupMember(name="hv2", key="a1" * 32, votes=False, operator=False),
    ]
    group = GroupStatus(
        role="replica",
        members=["hv1"],
        epoch=2,
        epoch_configured=0,
        epoch_replica=1,
        unreachable=["hv1"],
        note="epoch 2 counts",
    )
    agent.more["/v1/pbft"] = PbftView(mode="auto", group=group, cluster="5a" * 16, seats=seats)
    out = call("cluster", "pbft")[1]
    assert "2; the configuration is of epoch 0; the replica here is still in 1; epoch 2 counts" in out
    assert re.search(f"hv1 +member +yes +{'0f' * 32}", out)
    assert re.search("No peers here: +hv1", out)
    shown = parse(call("cluster", "pbft", "--toml")[1]).coordination.pbft
    assert (shown.cluster, shown.epoch) == ("5a" * 16, 2)
    assert shown.members == (PbftMemberConfig("hv1", "0f" * 32, operator=True),)
    assert shown.clients == (PbftMemberConfig("hv2", "a1" * 32),)


def test_a_change_of_members_is_proposed(call: Call, agent: Any) -> None:
    agent.more["/v1/pbft/propose"] = Changed(message="epoch 1 is in force, its members are hv1, hv5")
    key = "AB" * 32
    code, out, _ = call(
        "cluster", "pbft", "propose", "--add", f"hv5={key}", "--client", "hv2", "--remove", "hv3", "--operator", "hv5"
    )
    assert (code, out) == (0, "epoch 1 is in force, its members are hv1, hv5\n")
    assert msgspec.json.decode(agent.bodies[-1], type=Change) == Change(
        add=(Named(name="hv5", key=key.lower()),), clients=(Named(name="hv2"),), remove=("hv3",), operators=("hv5",)
    )


def test_a_domain_is_given_to_a_host_for_the_group_after_a_question(call: Call, agent: Any) -> None:
    agent.more["/v1/pbft/assign"] = Changed(message="hv2 owns it for the group, generation 3")
    assert call("cluster", "pbft", "assign", "1-2", "hv2", "--yes")[:2] == (
        0,
        "hv2 owns it for the group, generation 3\n",
    )
    assert call("cluster", "pbft", "assign", "1-2", "hv2")[0] != 0  # nobody answers the question


def test_a_host_outside_of_any_group_says_so(call: Call, agent: Any) -> None:
    agent.more["/v1/pbft"] = PbftView(mode="auto", group=GroupStatus(error="no group is configured"))
    out = call("cluster", "pbft")[1]
    assert "no group is configured" in out
    assert "primary" not in out
    code, out, err = call("cluster", "pbft", "--toml")
    assert (code, out, err) == (3, "", "error: there are no members to print: no group is configured\n")


def test_a_key_is_made_once_and_shown_again(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "pbft.key"
    first = call("cluster", "key", "--file", str(path))[1].strip()
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(call("cluster", "key", "--file", str(path), "--json")[1])["public_key"] == first
    path.write_text("beef\n")
    code, _, error = call("cluster", "key", "--file", str(path))
    assert (code, "2 bytes, not 32" in error) == (2, True)


def test_members_are_listed(call: Call, agent: Any) -> None:
    agent.more["/v1/cluster"] = make_cluster()
    assert "observer" in call("cluster", "members")[1]
    listed = json.loads(call("cluster", "members", "--json")[1])
    assert [member["name"] for member in listed["members"]] == ["hv1", "hv2", "hv3"]
    assert json.loads(call("cluster", "status", "--json")[1])["engine"]["term"] == 4


@pytest.mark.parametrize(("verb", "name"), [("add", "hv4"), ("remove", "hv4"), ("transfer-leader", "hv4")])
def test_changes_are_asked_of_the_agent(call: Call, agent: Any, verb: str, name: str) -> None:
    agent.raw = b'{"message": "done"}'
    assert call("cluster", verb, name)[:2] == (0, "done\n")
    agent.raw = None
    agent.failure = (503, schema.Failure(error="no majority", hint="wait"))
    code, _, err = call("cluster", verb, name)
    assert (code, err) == (CoordinationError.exit_code, "error: no majority\nhint: wait\n")


REPAIRS = [
    ("cluster", "forget-host", "hv9"),
    ("cluster", "forget-domain", "u1"),
    ("cluster", "assign", "u1", "hv2"),
    ("cluster", "set-time"),
    ("cluster", "raise-version"),
    ("tickets", "fail", "42"),
]


@pytest.mark.parametrize("words", REPAIRS)
def test_a_repair_asks_back_and_is_done_when_it_is_sure(call: Call, agent: Any, words: tuple[str, ...]) -> None:
    agent.raw = b'{"message": "done"}'
    assert call(*words)[0] != 0  # nobody answers the question
    assert call(*words, "--yes")[:2] == (0, "done\n")
    assert call("tickets", "fail", "0", "--yes")[0] == 2


def test_open_tickets_are_listed_and_ended_ones_when_asked_for(call: Call, agent: Any) -> None:
    ended = make_ticket(token=41, state="failed", reason="cancelled")
    agent.more["/v1/tickets"] = TicketList(is_fresh=True, tickets=[make_ticket(), ended])
    code, out, _ = call("tickets")
    assert code == 0
    assert " 42" in out
    assert "cancelled" not in out
    assert "cancelled" in call("tickets", "--all")[1]
    assert [one["token"] for one in json.loads(call("tickets", "--json", "--all")[1])["tickets"]] == [42, 41]


def test_what_may_be_old_is_said_to_be(call: Call, agent: Any) -> None:
    agent.more["/v1/tickets"] = TicketList(is_fresh=False, tickets=[])
    assert call("tickets")[1] == " No ticket is open.\n\nThe fleet cannot be asked; this is what this host knows.\n"
    agent.more["/v1/locks"] = Locks(is_fresh=False, now=NOW, leases=[], reservations=[])
    assert "this host knows" in call("locks")[1]


def test_locks_show_leases_and_reservations(call: Call, agent: Any) -> None:
    agent.more["/v1/locks"] = Locks(
        is_fresh=True,
        now=NOW,
        leases=[Lease(name="upgrade", holder="hv1", token=9, expires_at=NOW + 42)],
        reservations=[
            LinkReservation(
                name="r",
                source="hv1",
                destination="hv2",
                holder="hv1",
                bytes_per_s=25_000_000,
                token=10,
                expires_at=NOW + 60,
            )
        ],
    )
    _, out, _ = call("locks")
    assert " upgrade   hv1      9       42 s" in out
    assert "200.0 Mbit/s" in out
    assert json.loads(call("locks", "--json")[1])["leases"][0]["token"] == 9


def test_nothing_held_is_said(call: Call, agent: Any) -> None:
    agent.more["/v1/locks"] = Locks(is_fresh=True, now=NOW, leases=[], reservations=[])
    assert call("locks")[1] == " Nothing is held.\n"


def test_holds_are_taken_and_given_back(call: Call, agent: Any) -> None:
    agent.more["/v1/locks/acquire"] = HeldLease(name="upgrade", token=9)
    agent.more["/v1/locks/reserve"] = HeldLease(name="nightly", token=10)
    assert call("locks", "acquire", "upgrade", "--lifetime", "60")[:2] == (0, "9\n")
    assert call("locks", "release", "upgrade", "9")[:2] == (0, "done: /v1/locks/release\n")
    assert json.loads(call("locks", "reserve", "nightly", "hv1", "hv2", "200", "--json")[1])["token"] == 10
    assert call("locks", "unreserve", "nightly", "10")[0] == 0
    link = {"source": "hv1", "destination": "hv2", "bytes_per_s": "25000000", "lifetime_s": "600.0"}
    assert agent.posted == [
        ("/v1/locks/acquire", {"name": "upgrade", "lifetime_s": "60.0"}),
        ("/v1/locks/release", {"name": "upgrade", "token": "9"}),
        ("/v1/locks/reserve", {"name": "nightly", **link}),
        ("/v1/locks/unreserve", {"name": "nightly", "token": "10"}),
    ]


def test_limits_are_shown_and_those_that_are_given_are_set(call: Call, agent: Any) -> None:
    known = Limits(fleet=4, link_bytes_per_s={"hv1>hv2": 125_000_000, "hv2>hv1": 1_000_000})
    agent.more["/v1/cluster"] = make_cluster(limits=known)
    out = call("cluster", "limits")[1]
    assert "4 migrations at once" in out
    assert "1.0 Gbit/s" in out
    assert agent.posted == []
    said = call("cluster", "limits", "--incoming", "0", "--link", "hv1", "hv2", "800", "--link", "hv2", "hv1", "0")[1]
    assert "no limit" in said
    assert "800.0 Mbit/s" in said
    assert "hv2>hv1" not in said
    assert [path for path, _ in agent.posted] == ["/v1/cluster/limits"]
