"""Real agents whose PBFT group changes its members while they run: a host is added, dies, is removed, comes back.

Six hosts on one switch: `a` is a member and the operator and the source of all migrations; `b`, `c`, `d` are members;
`e` is to become one; `f` only asks, and judges certificates by itself: it is the destination of all migrations.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec
import pytest

from dwcp_migrate.agent.pbft.membership_store import FILE
from dwcp_migrate.api.cluster import Changed, GroupStatus, PbftView
from dwcp_migrate.api.schema import Failure
from dwcp_migrate.consensus.io.key_file import make_identity
from dwcp_migrate.pki import create_authority, issue
from tests.agent.hosts import Host, announce, echoing, exchange
from tests.agent.test_tickets import UUID
from tests.hypervisor.namespace import Namespace

TURNS_MAX = 50
CLUSTER = "5b" * 16
FIRST = ["a", "b", "c", "d"]
ALL = [*FIRST, "e", "f"]


def dns(name: str) -> str:
    return f"{name}.lab"


class Fleet:
    """The hosts by letter; no agent runs yet."""

    def __init__(self, directory: Path) -> None:
        tls = directory / "tls"
        create_authority(tls)
        self.switch = Namespace()
        self.switch.run("ip", "link", "add", "switch", "type", "bridge")
        self.switch.run("ip", "link", "set", "switch", "up")
        self.addresses = {name: f"10.78.0.{number}" for number, name in enumerate(ALL, 1)}
        self.hosts: dict[str, Host] = {}
        for name in ALL:
            issue(tls, dns(name))
            self.hosts[name] = self._connected(directory / name, tls, name)
        self.keys = {name: make_identity(host.directory / "pbft.key").public.hex() for name, host in self.hosts.items()}
        for name in ALL:
            self._configure(name)

    def _connected(self, directory: Path, tls: Path, name: str) -> Host:
        namespace, address = Namespace(), self.addresses[name]
        port = f"port-{name}"
        link = ("ip", "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", self.switch.path)
        namespace.run(*link)
        namespace.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        namespace.run("ip", "link", "set", "eth0", "up")
        self.switch.run("ip", "link", "set", port, "up", "master", "switch")
        return Host(namespace, directory, tls, dns(name), address)

    def _configure(self, name: str) -> None:
        host = self.hosts[name]
        host.settings["log_level"] = "info"
        host.tables["intercept"] = {"redirect": name == "a"}
        host.tables["policy"] = {"require_announcement": True}
        host.tables["coordination"] = {"voters": ["nobody.lab"], "timeout_s": 0.2, "trust_domain": name}
        host.tables["coordination.pbft"] = {
            "mode": "pbft",
            "cluster": CLUSTER,
            "key": host.directory / "pbft.key",
            "timeout_s": 5.0,
        }
        for number, member in enumerate(FIRST):
            table = {"name": dns(member), "key": self.keys[member], "operator": member == "a"}
            host.tables[f"[coordination.pbft.members]#{number}"] = table
        host.tables["[coordination.pbft.clients]#0"] = {"name": dns("f"), "key": self.keys["f"]}
        host.peers = [(dns(other), [self.addresses[other]]) for other in ALL if other != name]
        host.peers.append(("nobody.lab", ["10.78.0.99"]))

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def start(self, *names: str) -> None:
        for name in names:
            self[name].spawn()
        for name in names:
            self[name].ready()

    def group(self, name: str) -> GroupStatus:
        return msgspec.json.decode(self[name].get("/v1/pbft")[1], type=PbftView).group

    def until(self, name: str, *, epoch: int, role: str) -> GroupStatus:
        self[name].wait(lambda _: (self.group(name).epoch, self.group(name).role) == (epoch, role))
        return self.group(name)

    def settled(self, epoch: int, members: list[str]) -> None:
        """Wait until the members are in an epoch, and hold one state there."""
        for name in members:
            found = self.until(name, epoch=epoch, role="replica")
            assert found.members == [dns(member) for member in members]
            self[name].wait(lambda _, name=name: self.group(name).epoch_replica == epoch)  # type: ignore[misc]
            newest = max(self.group(member).sequence for member in members)
            self[name].wait(lambda _, name=name, newest=newest: self.group(name).sequence >= newest)  # type: ignore[misc]

    def propose(self, by: str, change: dict[str, object]) -> tuple[int, bytes]:
        return self[by].get("/v1/pbft/propose", "POST", msgspec.json.encode(change))

    def change(self, **change: object) -> str:
        status, body = self.propose("a", change)
        assert status == 200, body
        return msgspec.json.decode(body, type=Changed).message

    def refusal(self, by: str = "a", **change: object) -> str:
        status, body = self.propose(by, change)
        assert status == 400, body
        failure = msgspec.json.decode(body, type=Failure)
        return f"{failure.error}; {failure.hint}"

    def migrate(self) -> None:
        """From `a` to `f`, on a certificate and nothing else.

        The same domain goes again and again, quicker than a real one could come back: until the group has heard how the
        last time ended it refuses the next, rightly.
        """
        source, destination = self["a"], self["f"]
        for _ in range(TURNS_MAX):
            announce(destination, "vm", UUID)
            with echoing(destination.listen()) as brought, contextlib.suppress(ConnectionResetError):
                assert exchange(source.connect(destination.address), b"stream") == b"stream"
            (record,) = source.ended()
            if "another ticket for this domain is open" not in record.reason:
                break
        assert brought == [b"stream"], record.reason
        said = {event.event: event.detail for event in record.events}
        assert said["agreement"].startswith("certificate alone: "), said
        assert said["agreed"] == "certificate"

    def close(self) -> None:
        for host in self.hosts.values():
            host.close()
            print(host.name, host.log)  # noqa: T201 - shown when a test failed
            host.namespace.close()
        self.switch.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    found = Fleet(tmp_path)
    yield found
    found.close()


class Migrations:
    """One after the other, on a thread, until it is left; each must run on a certificate."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._stopping = threading.Event()
        self._first = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self.count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._first.wait(60)
        return self

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._fleet.migrate()
                self.count += 1
                self._first.set()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error
            self._first.set()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        if self._error is not None:
            raise self._error


def test_tickets_are_certified_before_during_and_after_each_change_and_over_restarts(fleet: Fleet) -> None:
    fleet.start(*ALL)
    fleet["a"].wait(lambda _: fleet.group("a").connected == sorted(map(dns, FIRST)))
    fleet.settled(0, FIRST)
    newcomer = fleet.group("e")
    assert newcomer.role == "none"
    assert "does not name e.lab: it follows and has no part yet" in newcomer.error
    fleet.migrate()

    # 4 -> 5 while migrations begin one after the other
    with Migrations(fleet) as moving:
        said = fleet.change(add=[{"name": dns("e"), "key": fleet.keys["e"]}])
        assert said == "epoch 1 is in force, its members are a.lab, b.lab, c.lab, d.lab, e.lab"
        fleet.settled(1, [*FIRST, "e"])
        before = moving.count
        fleet["a"].wait(lambda _: moving.count > before + 1)
    fleet.until("f", epoch=1, role="client")

    # a quorum of five is four: without `d` it takes the vote of `e`
    fleet["d"].stop(signal.SIGKILL)
    fleet.migrate()
    fleet.start("d")
    fleet.settled(1, [*FIRST, "e"])

    # 5 -> 4: who goes says so, and has no part any more
    with Migrations(fleet) as moving:
        fleet.change(remove=[dns("d")])
        removed = fleet.until("d", epoch=2, role="none")
        assert "d.lab has no part in the group since epoch 2: it was removed" in removed.error
        assert "this host has no vote any more" in fleet["d"].log
        fleet.settled(2, ["a", "b", "c", "e"])
        before = moving.count
        fleet["a"].wait(lambda _: moving.count > before + 1)

    # all that was restarted goes on where it was, with a configuration of epoch 0
    for name in ("f", "b", "d"):
        assert fleet[name].stop() == 0
    fleet.start("f", "b", "d")
    assert fleet.group("f").epoch == 2  # from its disk, before anybody could tell it
    assert fleet.group("f").note == "epoch 2 counts, which the members of 0 to 1 signed one by one"
    assert "it was removed" in fleet.until("d", epoch=2, role="none").error
    fleet.settled(2, ["a", "b", "c", "e"])
    fleet.migrate()


def test_a_dead_member_is_replaced_in_one_step_and_the_group_bears_the_next_loss(fleet: Fleet) -> None:
    fleet.start(*ALL)
    fleet["a"].wait(lambda _: fleet.group("a").connected == sorted(map(dns, FIRST)))
    fleet.migrate()
    fleet["c"].stop(signal.SIGKILL)
    fleet.change(add=[{"name": dns("e"), "key": fleet.keys["e"]}], remove=[dns("c")])
    fleet.settled(1, ["a", "b", "d", "e"])
    fleet["b"].stop(signal.SIGKILL)  # three of four decide, one of them the new one
    fleet.migrate()
    for name in ("a", "f"):
        assert (fleet[name].directory / "state" / FILE).exists()


def test_what_a_group_cannot_want_is_refused_with_what_to_do(fleet: Fleet) -> None:
    fleet.start(*FIRST)
    fleet["a"].wait(lambda _: fleet.group("a").connected == sorted(map(dns, FIRST)))
    newcomer = {"name": dns("e"), "key": fleet.keys["e"]}
    assert "b.lab is no operator of the group; a.lab is" in fleet.refusal("b", add=[newcomer])
    assert "e.lab does not answer" in fleet.refusal(add=[newcomer])
    fleet.start("e")
    wrong = {"name": dns("e"), "key": fleet.keys["f"]}
    assert f"e.lab has the key {fleet.keys['e']}" in fleet.refusal(add=[wrong])
    assert "is no peer here" in fleet.refusal(add=[{"name": "stranger.lab", "key": fleet.keys["f"]}])
    assert "2 of 4 members would stay" in fleet.refusal(
        remove=[dns("c"), dns("d")], add=[newcomer, wrong | {"name": dns("f")}]
    )
    status, body = fleet.propose("a", {"add": [{"name": dns("e"), "key": "zz"}]})
    assert (status, b"not a change of members" in body) == (400, True)
    assert fleet.group("a").epoch == 0
