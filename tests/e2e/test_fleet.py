"""Three hosts that keep one record of who runs what, and one in other hands: real libvirt, real QEMU, only on tickets.

What must hold, whatever is killed or cut: the guest runs on exactly one host, the fleet says which, nobody moves it on
a ticket that is forged, used or somebody else's, and its memory is sound (`Fleet.restore`, before and after each test).
"""

import json
import os
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from dwcp_migrate.api.cluster import TicketList
from dwcp_migrate.consensus.io.key_file import make_identity
from dwcp_migrate.consensus.pbft.certificate import decode_certificate, encode_certificate
from dwcp_migrate.lab.hosts.agents import LabAgent
from dwcp_migrate.lab.hosts.processes import identify_process
from dwcp_migrate.lab.lab import Lab, LabOptions
from dwcp_migrate.lab.observation.census import children
from dwcp_migrate.lab.shuttle import Move, Watch, newest_record
from dwcp_migrate.state.fleet.model import Ticket
from tests.e2e.small_fleet import NAMES, SmallFleet
from tests.e2e.world import GUEST, SLOW, WAN

pytestmark = pytest.mark.lab

STRANGER: Final = "hv4"
"""Of another trust domain: no vote, but one of the four that certify."""

GROUP: Final = (*NAMES, STRANGER)
LOSS_S_MAX: Final = 20.0
"""So long a data process waits for the other side, which was killed for good; two minutes by default."""

FORGER: Final = Path(__file__).with_name("forger.py")


class Fleet(SmallFleet):
    """The lab, its three agents, one in other hands, and the guest."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.keys = {name: make_identity(self.key(name)).public.hex() for name in GROUP}
        super().__init__(lab, {name: {} for name in GROUP})
        self.uuid = lab["hv1"].virsh("domuuid", GUEST.name).stdout.strip()

    def key(self, name: str) -> Path:
        """The file of a host's key, where its agent's own files are."""
        return self.lab[name].directory / "agent" / "pbft.key"

    def agent(self, name: str) -> LabAgent:
        return self.lab.agents[name]

    def restart(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        shared = {"voters": list(NAMES), "require": True, "timeout_s": 5.0}
        group = {"cluster": "5e" * 16, "key": str(self.key(name))}
        configuration = {
            "coordination": {**shared, "trust_domain": "theirs" if name == STRANGER else "ours"},
            "coordination.pbft": group,
            "coordination.pbft.members": [{"name": member, "key": key} for member, key in self.keys.items()],
            "link": {"loss_s_max": LOSS_S_MAX},
        }
        self.lab.start_agent(name, configuration, environment)

    def tickets(self, name: str) -> TicketList:
        return msgspec.json.decode(json.dumps(self.agent(name).get("/v1/tickets")), type=TicketList)

    def newest(self, name: str) -> Ticket:
        return max(self.tickets(name).tickets, key=lambda ticket: ticket.token)

    def lead(self, name: str) -> None:
        """Have a host lead."""
        leader = next(other for other in NAMES if self.cluster(other).engine.state == "leader")
        if leader != name:
            self.agent(leader).post(f"/v1/cluster/transfer-leader?name={name}")
        self.until(lambda: self.cluster(name).engine.state == "leader")

    def restore(self) -> None:
        self.lab.wan.heal()
        self.lab.wan.set(WAN)
        for name in GROUP:
            if not self.agent(name).is_alive():
                self.restart(name)
        self.until(lambda: all(self.cluster(name).engine.leader for name in NAMES))
        self.until(lambda: all(one.state != "running" for one in self.tickets("hv1").tickets))
        self.guest.wait_healthy(self.host())

    def carry(self, destination: str) -> Ticket:
        """Migrate and return the ticket, once the fleet has it as completed."""
        source = self.host().name
        outcome = self.begin(destination).wait()
        record = self.agent(source).get("/v1/history?limit=1")["migrations"][0]
        assert outcome.succeeded, f"{outcome.said}: {record['reason']}"
        self.until(lambda: self.newest("hv1").state == "completed")
        ticket = self.newest("hv1")
        assert (ticket.uuid, ticket.destination, self.host().name) == (self.uuid, destination, destination)
        return ticket

    def judged(self, by: str, at: str, permit: dict[str, Any]) -> str:
        """Show a permit at a host in the name of another; returns its answer."""
        own = self.lab[by].directory / "agent"
        files = [str(own / "ca.pem"), str(own / f"{by}.pem"), str(own / f"{by}.key")]
        with socket.socket(socket.AF_UNIX) as hook:
            hook.connect(str(self.lab[at].run_directory / "hook.sock"))
            announcement = {"operation": "migrate begin", "name": GUEST.name, "uuid": self.uuid}
            hook.sendall(json.dumps(announcement).encode() + b"\n")
            hook.recv(4096)
        argv = [sys.executable, str(FORGER), self.lab[at].address, "49152", *files, at, json.dumps(permit)]
        ran = subprocess.run(self.lab[by].namespace.beside(argv), capture_output=True, text=True, check=True)
        return ran.stdout.strip()


@pytest.fixture(scope="module")
def standing() -> Iterator[Fleet]:
    with Lab.up(LabOptions(name=f"fleet-{os.getpid()}", hosts=len(GROUP), link=WAN, owned=True)) as lab:
        yield Fleet(lab)


@pytest.fixture
def fleet(standing: Fleet) -> Iterator[Fleet]:
    standing.restore()
    yield standing
    standing.restore()


def other(fleet: Fleet) -> str:
    """Of hv1 and hv2 the one that the guest is not on."""
    return "hv2" if fleet.host().name == "hv1" else "hv1"


def permit_of(ticket: Ticket, **changes: Any) -> dict[str, Any]:
    """What a source shows of a ticket, as JSON has it."""
    fields = ("token", "uuid", "source", "destination", "generation", "expires_at", "certificate")
    shown = {field: getattr(ticket, field) for field in fields} | changes
    return {**shown, "certificate": b64encode(shown["certificate"]).decode()}


def test_a_migration_runs_on_a_ticket_and_the_fleet_knows_the_new_owner(fleet: Fleet) -> None:
    source, destination, begin = fleet.host().name, other(fleet), time.time()
    outcome = fleet.begin(destination).wait()
    assert outcome.succeeded, outcome.said
    record = newest_record(fleet.agent(source), "source", after=begin)
    assert record.passthrough_reason == ""
    assert "fleet" in {event.detail for event in record.events if event.event == "agreed"}
    fleet.until(lambda: fleet.newest("hv3").state == "completed")
    ticket = fleet.newest("hv3")
    assert (ticket.uuid, ticket.source, ticket.destination) == (fleet.uuid, source, destination)


def test_a_leader_killed_in_mid_migration_costs_nothing(fleet: Fleet) -> None:
    destination, source = other(fleet), fleet.host().name
    fleet.lead("hv3")
    fleet.lab.wan.set(SLOW)
    with Watch(fleet.agent(source)) as watch:
        move = fleet.begin(destination)
        watch.until(lambda record: record.counters.raw_bytes > 4 << 20)
    fleet.agent("hv3").kill()
    fleet.until(lambda: fleet.cluster(source).engine.leader in {source, destination})
    fleet.lab.wan.set(WAN)
    outcome = move.wait()
    assert outcome.succeeded, outcome.said
    fleet.until(lambda: fleet.newest(destination).state == "completed")
    fleet.restart("hv3")
    fleet.until(lambda: fleet.tickets("hv3").is_fresh)
    assert fleet.newest("hv3") == fleet.newest(destination)


@pytest.mark.parametrize("side", ["source", "destination"])
def test_an_agent_killed_in_mid_migration_costs_neither_the_migration_nor_its_ticket(fleet: Fleet, side: str) -> None:
    destination, source = other(fleet), fleet.host().name
    victim, move = begin_and_kill(fleet, side)
    fleet.lab.wan.set(WAN)
    outcome = move.wait()
    assert outcome.succeeded, outcome.said
    fleet.restart(victim)
    assert fleet.host().name == destination
    fleet.until(lambda: fleet.newest("hv3").state == "completed")
    assert fleet.newest("hv3").source == source


@pytest.mark.parametrize("side", ["source", pytest.param("destination", marks=pytest.mark.long)])
def test_agent_and_data_process_killed_in_mid_migration_leave_a_ticket_that_is_settled(fleet: Fleet, side: str) -> None:
    source = fleet.host().name
    victim, move = begin_and_kill(fleet, side, data_process=True)
    assert not move.wait().succeeded
    assert fleet.host().name == source
    fleet.restart(victim)
    fleet.lab.wan.set(WAN)
    fleet.until(lambda: fleet.newest("hv3").state == "failed")
    assert fleet.newest("hv3").source == source
    destination = other(fleet)
    fleet.until(lambda: fleet.begin(destination).wait().succeeded)  # once the group has settled what it certified, too
    assert fleet.host().name == destination


def begin_and_kill(fleet: Fleet, side: str, *, data_process: bool = False) -> tuple[str, Move]:
    """Start a slow migration and kill the agent of one side in its midst; returns the victim and the migration."""
    destination, source = other(fleet), fleet.host().name
    fleet.lab.wan.set(SLOW)
    with Watch(fleet.agent(source)) as watch:
        move = fleet.begin(destination)
        watch.until(lambda record: record.counters.raw_bytes > 4 << 20)
    victim = source if side == "source" else destination
    carrying = min(
        (identify_process(pid) for pid in children(fleet.agent(victim).process.pid)), key=lambda one: one.start_ticks
    )
    fleet.agent(victim).kill()
    if data_process:
        carrying.end(grace_s=0)
    return victim, move


def test_a_minority_that_is_cut_off_knows_that_it_is_and_catches_up(fleet: Fleet) -> None:
    fleet.carry(other(fleet))
    fleet.lead("hv3")
    fleet.until(lambda: fleet.tickets("hv3").tickets)
    fleet.lab.wan.cut("hv3")
    destination = other(fleet)
    fleet.until(lambda: all(fleet.cluster(name).engine.leader in {"hv1", "hv2"} for name in ("hv1", "hv2")))
    outcome = fleet.begin(destination).wait()
    assert outcome.succeeded, outcome.said
    fleet.until(lambda: fleet.newest(destination).state == "completed")
    assert not fleet.tickets("hv3").is_fresh
    assert fleet.newest("hv3").token < fleet.newest(destination).token
    fleet.lab.wan.heal("hv3")
    fleet.until(lambda: fleet.tickets("hv3").is_fresh)
    assert fleet.newest("hv3") == fleet.newest(destination)


def test_a_forged_ticket_a_used_one_and_somebody_elses_are_refused(fleet: Fleet) -> None:
    destination, source = other(fleet), fleet.host().name
    outcome = fleet.begin(destination).wait()
    assert outcome.succeeded, outcome.said
    fleet.until(lambda: fleet.newest("hv3").state == "completed")
    used = fleet.newest("hv3")
    permit = permit_of(used)
    assert fleet.judged(source, destination, permit) == "ticket"
    fresh = {**permit, "token": used.token + 1000, "expires_at": time.time() + 60}
    assert fleet.judged(source, destination, fresh) == "ticket"
    assert fleet.judged("hv3", destination, permit) == "ticket"
    assert fleet.judged("hv3", destination, {**permit, "source": "hv3", "token": 0}) == "ticket"
    assert fleet.host().name == destination


def test_a_guest_sent_to_two_hosts_at_once_arrives_on_one(fleet: Fleet) -> None:
    source, second = fleet.host().name, other(fleet)
    moves = [fleet.begin(second), fleet.begin("hv3")]
    succeeded = [move.wait().succeeded for move in moves]
    assert sum(succeeded) == 1
    arrived = second if succeeded[0] else "hv3"
    assert fleet.host().name == arrived != source
    fleet.until(lambda: fleet.newest("hv1").state == "completed")
    assert fleet.newest("hv1").destination == arrived
    if arrived == "hv3":
        assert fleet.begin(source).wait().succeeded


def test_across_trust_domains_it_takes_a_certificate_and_no_forged_one_will_do(fleet: Fleet) -> None:
    source = fleet.host().name
    ticket = fleet.carry(STRANGER)
    certificate = decode_certificate(ticket.certificate)
    assert len(certificate.signatures) >= 3  # 2 f + 1 of four
    first, second, third, *_ = certificate.signatures
    signatures = certificate.signatures
    too_few = {name: signatures[name] for name in (first, second)}
    forged = {**signatures, third: signatures[first]}
    for wrong, why in ((too_few, "signatures"), (forged, f"wrong signature of {third}"), (signatures, "used already")):
        shown = encode_certificate(msgspec.structs.replace(certificate, signatures=wrong))
        before = fleet.agent(STRANGER).log.stat().st_size
        assert fleet.judged(source, STRANGER, permit_of(ticket, token=0, certificate=shown)) == "ticket"
        with fleet.agent(STRANGER).log.open() as log:
            log.seek(before)
            assert why in log.read()
    assert fleet.judged(source, STRANGER, permit_of(ticket, certificate=b"")) == "ticket"
    assert fleet.host().name == STRANGER
    back = fleet.carry(source)
    assert decode_certificate(back.certificate).signatures
    assert back.generation == ticket.generation + 1
