"""Peers that the configuration calls by names: redirected where the names lead, now and after they changed."""

import asyncio
import time
from typing import TYPE_CHECKING

from dwcp_migrate.agent.peers.addresses import PeerAddresses, in_background
from dwcp_migrate.config import PeerConfig
from tests.agent.hosts import DESTINATION_ADDRESS, Host, echoing, exchange

if TYPE_CHECKING:
    from pathlib import Path

    from dwcp_migrate.agent.peers.directory import PeerDirectory

Hosts = tuple[Host, Host]
NAME = "mig.destination.example"
OTHER_ADDRESS = "10.77.0.22"
RELOAD_S_MAX = 1.0
"""A name server that is silent holds a look-up for 10 s and more."""


def with_hosts_file(host: Host, *lines: str) -> "Path":
    """Have the agent resolve names by a file of its own, and by nothing else."""
    path = host.directory / "hosts"
    path.write_text("".join(f"{line}\n" for line in ["127.0.0.1 localhost", *lines]))
    bind = 'mount --bind "$0" /etc/hosts && mount --bind /dev/null /etc/resolv.conf && exec "$@"'
    host.prefix = ["unshare", "--mount", "sh", "-c", bind, str(path)]
    return path


def redirected(host: Host) -> list[str]:
    return [rule.address for rule in host.status().intercept.rules]


def test_the_redirect_follows_a_name(hosts: Hosts) -> None:
    source, destination = hosts
    names = with_hosts_file(source, f"{DESTINATION_ADDRESS} {NAME}")
    source.peers = [("destination.lab", [NAME])]
    source.start()
    assert redirected(source) == [DESTINATION_ADDRESS]
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    assert source.ended()[0].peer == "destination.lab"
    names.write_text(f"{OTHER_ADDRESS} {NAME}\n")
    assert source.reload() == 200  # names are looked up again at once, and every 30 s without it
    source.wait(lambda status: [rule.address for rule in status.intercept.rules] == [OTHER_ADDRESS])
    names.write_text("127.0.0.1 localhost\n")
    assert source.reload() == 200
    assert source.get("/v1/doctor")[0] == 200
    assert redirected(source) == [OTHER_ADDRESS]  # the last that was known


def test_a_name_that_is_not_known_is_said_and_plain_migrations_are_left_alone(hosts: Hosts) -> None:
    source, destination = hosts
    names = with_hosts_file(source)
    source.peers = [("destination.lab", [NAME])]
    source.spawn()
    assert source.notify.recv(100).startswith(b"READY=1")
    (peer,) = source.facts().peers
    assert NAME in peer.not_redirected
    assert source.status().intercept.error == "no peer has an IP address that is known"
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"plain") == b"plain"
    names.write_text(f"{DESTINATION_ADDRESS} {NAME}\n")
    assert source.reload() == 200
    source.wait(lambda status: status.intercept.armed)


def test_a_name_server_that_answers_nothing_holds_nothing_up(hosts: Hosts) -> None:
    source, destination = hosts
    destination.namespace.run("nft", "add table ip mute; add chain ip mute in { type filter hook input priority 0; }")
    destination.namespace.run("nft", "add rule ip mute in udp dport 53 drop")
    with_hosts_file(source)
    resolver = source.directory / "resolv.conf"
    resolver.write_text(f"nameserver {DESTINATION_ADDRESS}\n")
    source.prefix = [part.replace("/dev/null", str(resolver)) for part in source.prefix]
    source.peers = [("destination.lab", [DESTINATION_ADDRESS, NAME])]
    source.start()
    took_s = []
    for _ in range(10):
        began = time.monotonic()
        assert source.reload() == 200
        took_s.append(time.monotonic() - began)
    assert min(took_s) < RELOAD_S_MAX
    assert redirected(source) == [DESTINATION_ADDRESS]
    assert source.stop() == 0  # a look-up that hangs is left behind


def test_an_own_address_that_comes_up_late_is_no_peers_any_more(hosts: Hosts) -> None:
    source, _ = hosts
    source.peers = [("destination.lab", [DESTINATION_ADDRESS]), ("itself.lab", [OTHER_ADDRESS])]
    source.start()
    assert redirected(source) == [DESTINATION_ADDRESS, OTHER_ADDRESS]
    source.namespace.run("ip", "address", "add", f"{OTHER_ADDRESS}/32", "dev", "lo")
    source.wait(lambda status: [rule.address for rule in status.intercept.rules] == [DESTINATION_ADDRESS])
    source.namespace.run("ip", "address", "del", f"{OTHER_ADDRESS}/32", "dev", "lo")
    source.wait(lambda status: len(status.intercept.rules) == 2)


async def test_what_localhost_leads_to_is_no_peer() -> None:
    said: asyncio.Queue[PeerDirectory] = asyncio.Queue()
    addresses = PeerAddresses("hv1", lambda _: False, said.put_nowait)
    addresses.use([PeerConfig("hv2", ["localhost"])])
    addresses.start()
    await in_background(lambda: None)
    await addresses.close()
    assert said.empty()


async def test_an_error_on_a_thread_reaches_whoever_waits() -> None:
    def fail() -> None:
        raise ValueError("no")

    answer = await asyncio.gather(in_background(fail), return_exceptions=True)
    assert [str(error) for error in answer] == ["no"]
