"""Peers that the fleet's state finds: who is believed, which addresses count, and a thousand of them."""

import time
from pathlib import Path
from typing import cast

import msgspec
import pytest

from dwcp_migrate.agent.authorization.fleet_members import FleetMembers
from dwcp_migrate.agent.peers.client import KEPT_MAX, ControlClient, ControlConnection
from dwcp_migrate.agent.peers.directory import PeerDirectory
from dwcp_migrate.agent.peers.fleet_peers import fleet_peers, is_allowed, ports_that_differ, usable_addresses
from dwcp_migrate.agent.peers.own_reach import own_reach
from dwcp_migrate.config import Config, CoordinationConfig, PeerConfig
from dwcp_migrate.errors import CoordinationError
from dwcp_migrate.state.fleet import commands as do
from dwcp_migrate.state.fleet.machine import apply
from dwcp_migrate.state.fleet.model import VERSION, FleetState, HostReach, HostRecord
from tests.agent.authorization.world import World

HOSTS = 1000
CONFIG = Config(coordination=CoordinationConfig(voters=("hv1.example.net",), discover=("*.example.net",)))


def host(name: str, *addresses: str, **settings: str) -> HostRecord:
    return HostRecord(name=name, reach=HostReach(addresses=addresses), **settings)  # type: ignore[arg-type]


def found(*hosts: HostRecord, config: Config = CONFIG) -> list[tuple[str, list[str]]]:
    peers = fleet_peers({one.name: one for one in hosts}, "hv1.example.net", config)
    return [(peer.name, peer.addresses) for peer in peers]


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("hv2.example.net", True),
        ("HV2.Example.NET.", True),
        ("example.net", False),
        ("a.hv2.example.net", False),
        ("hv2.example.net.evil.org", False),
        ("one.other.org", True),
        ("two.other.org", False),
    ],
)
def test_a_name_is_allowed_by_one_label_before_a_domain_or_whole(name: str, allowed: bool) -> None:  # noqa: FBT001
    assert is_allowed(name, ("*.example.net", "one.other.org")) is allowed


def test_a_host_is_found_by_what_it_publishes_its_migration_address_first() -> None:
    record = host("hv2.example.net", "192.0.2.2", "2001:db8::2")
    record = msgspec.structs.replace(record, reach=msgspec.structs.replace(record.reach, migration_address="192.0.2.9"))
    assert found(record) == [("hv2.example.net", ["192.0.2.9", "192.0.2.2", "2001:db8::2"])]


def test_itself_the_listed_strangers_and_hosts_in_other_hands_are_none() -> None:
    config = msgspec.structs.replace(CONFIG, peers=[PeerConfig("HV3.example.net", ["192.0.2.3"])])
    hosts = (
        host("hv1.example.net", "192.0.2.1"),
        host("hv3.example.net", "192.0.2.33"),
        host("hv4.other.org", "192.0.2.4"),
        host("hv5.example.net", "192.0.2.5", trust_domain="other"),
        host("hv6.example.net"),
    )
    assert found(*hosts, config=config) == []
    assert found(host("hv2.example.net", "192.0.2.2"), config=Config()) == []


def test_addresses_that_mean_another_host_to_everybody_are_none() -> None:
    said = ["127.0.0.1", "::1", "0.0.0.0", "fe80::1", "224.0.0.1", "hv2", "192.0.2.2", "192.0.2.2", "2001:DB8:0::2"]  # noqa: S104
    assert usable_addresses(said) == ["192.0.2.2", "2001:db8::2"]


def test_a_listed_peers_address_stays_its_own_whoever_else_publishes_it() -> None:
    listed = PeerConfig("hv3.example.net", ["192.0.2.3"])
    config = msgspec.structs.replace(CONFIG, peers=[listed])
    thief = fleet_peers({"a": host("a.example.net", "192.0.2.3")}, "hv1.example.net", config)
    owner = PeerDirectory([listed, *thief], "hv1.example.net", lambda _: False).by_address("192.0.2.3")
    assert owner is not None
    assert owner.name == "hv3.example.net"


def test_this_host_publishes_what_qemu_conf_and_the_configuration_say(tmp_path: Path) -> None:
    (tmp_path / "etc/libvirt").mkdir(parents=True)
    (tmp_path / "etc/libvirt/qemu.conf").write_text('migration_address = "192.0.2.9"\nmigration_port_min = 50000\n')
    coordination = CoordinationConfig(addresses=("192.0.2.1", "127.0.0.1"))
    reach = own_reach(Config(coordination=coordination), "hv1.example.net", tmp_path)
    assert (reach.addresses, reach.migration_address) == (("192.0.2.1",), "192.0.2.9")
    assert (reach.port, reach.port_min, reach.port_max) == (7802, 50000, 49215)
    assert "at 50000 to 50100" in ports_that_differ(msgspec.structs.replace(reach, port_max=50100), Config())
    assert ports_that_differ(HostReach(), Config()) == ""


def test_only_the_host_itself_says_where_it_is_and_what_it_said_outlives_its_beats() -> None:
    fleet = FleetState()
    reach = HostReach(addresses=("192.0.2.2",))

    def does(by: str, body: do.PutHost | do.PutReach) -> str:
        return apply(fleet, do.Command(request=f"r{fleet.index}-{by}", by=by, at=1.0, body=body)).code

    assert does("hv2", do.PutReach(name="hv2", reach=reach)) == "unknown-host"
    assert does("hv2", do.PutHost(name="hv2")) == ""
    assert does("hv3", do.PutReach(name="hv2", reach=reach)) == "stranger"
    assert does("hv2", do.PutReach(name="hv2", reach=reach)) == ""
    assert does("hv2", do.PutHost(name="hv2", reads=VERSION)) == ""
    assert fleet.hosts["hv2"].reach == reach


async def test_a_host_tells_the_fleet_once_every_host_reads_it_and_finds_who_told(tmp_path: Path) -> None:
    world = World(tmp_path, CoordinationConfig(voters=("a",)))
    runtime = world.hosts["a"].runtime
    coordination = CoordinationConfig(voters=("a",), discover=("b", "*.x.y"), addresses=("192.0.2.1",))
    runtime.config = msgspec.structs.replace(runtime.config, coordination=coordination)
    heard: list[tuple[PeerConfig, ...]] = []
    here = world.hosts["a"].coordination
    await here.start()
    members = FleetMembers(runtime, here, heard.append)
    await here.submit(do.PutHost(name="a", reads=VERSION))
    await world.hosts["b"].engine.submit(do.PutHost(name="b"), 1.0)
    with pytest.raises(CoordinationError, match="b: the software there"):
        await members.look()
    await world.hosts["b"].engine.submit(do.PutHost(name="b", reads=VERSION), 1.0)
    await members.look()
    assert await here.look(lambda fleet: fleet.hosts["a"].reach.addresses) == ("192.0.2.1",)
    told = HostReach(addresses=("192.0.2.2",), port=7900, port_max=50000)
    await world.hosts["b"].engine.submit(do.PutReach(name="b", reach=told), 1.0)
    await members.look()
    await members.look()  # nothing new: nobody is told again
    assert heard == [(PeerConfig("b", ["192.0.2.2"], 7900),)]
    assert members.ports_not_redirected == ["b: it migrates at 49152 to 50000, here 49152 to 49215 are redirected"]
    await here.close()


def test_a_thousand_hosts_are_found_in_a_second_from_one_state_and_no_file() -> None:
    fleet = FleetState()
    for number in range(HOSTS):
        name = f"hv{number}.example.net"
        reach = HostReach(addresses=(f"10.1.{number // 250}.{1 + number % 250}", f"fd00::{number + 1:x}"))
        said: list[do.PutHost | do.PutReach] = [
            do.PutHost(name=name, reads=VERSION),
            do.PutReach(name=name, reach=reach),
        ]
        for turn, body in enumerate(said):
            assert apply(fleet, do.Command(request=f"{number}-{turn}", by=name, at=1.0, body=body)).code == ""
    took_s = []
    for _ in range(3):  # the collector may look at the whole suite's objects in one of them
        began = time.process_time()
        peers = fleet_peers(fleet.hosts, "hv1.example.net", CONFIG)
        directory = PeerDirectory(peers, "hv1.example.net", lambda _: False)
        took_s.append(time.process_time() - began)
    assert min(took_s) < 1.0
    assert len(directory.all()) == HOSTS - 1
    assert len(directory.redirected()) == 2 * (HOSTS - 1)


def test_a_host_that_asked_a_thousand_others_keeps_few_connections() -> None:
    client = ControlClient(lambda: None, 1.0, 0)  # type: ignore[arg-type, return-value]
    closed = []

    class Kept:
        used_at = 0.0

        def close(self) -> None:
            closed.append(self)

    for number in range(HOSTS):
        client._keep((f"hv{number}", "10.0.0.1", 7802), cast("ControlConnection", Kept()))
    assert client.kept == KEPT_MAX
    assert len(closed) == HOSTS - KEPT_MAX
