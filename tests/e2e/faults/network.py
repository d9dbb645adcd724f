"""Ways between the hosts that are closed, filtered or elsewhere: link port, addresses, firewalls."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Final

from dwcp_migrate.lab import commands
from tests.e2e.faults.stage import NOT_SEEN, SIDES, Doctor, Side, Stage, fault

TABLE = ("inet", "fault")
LINK_PORT = "7802"
RELOAD_EVERY_S = 0.5


@contextmanager
def rule(stage: Stage, side: Side, hook: str, *words: str) -> Iterator[None]:
    """Have a side's firewall do something to the packets that match."""
    chain = "{ type filter hook " + hook + " priority 10; }"
    stage.beside(side, "nft", "add", "table", *TABLE)
    try:
        stage.beside(side, "nft", "add", "chain", *TABLE, hook, chain)
        stage.beside(side, "nft", "add", "rule", *TABLE, hook, *words)
        yield
    finally:
        stage.beside(side, "nft", "delete", "table", *TABLE)


def _filtered(name: str, side: Side, hook: str, *words: str, flags: tuple[str, ...] = ()) -> None:
    """A row of a link port that the destination cannot be reached at."""
    fault(name, reason="unreachable", says="Unaccelerated", doctor=Doctor("source", "peer-", ""), flags=flags)(
        lambda stage: rule(stage, side, hook, *words)
    )


_filtered("link-port-dropped-at-the-destination", "destination", "input", "tcp", "dport", LINK_PORT, "drop")
_filtered("link-port-rejected-at-the-destination", "destination", "input", "tcp", "dport", LINK_PORT, "reject")
_filtered("link-port-dropped-at-the-source", "source", "output", "tcp", "dport", LINK_PORT, "drop")
_filtered("link-answers-dropped", "source", "input", "tcp", "sport", LINK_PORT, "drop")
_filtered(
    "link-carries-only-empty-packets", "source", "output", "tcp", "dport", LINK_PORT, "ip", "length", ">", "80", "drop"
)
_filtered(
    "link-port-dropped-with-parallel-channels",
    "destination",
    "input",
    "tcp",
    "dport",
    LINK_PORT,
    "drop",
    flags=("--parallel", "--parallel-connections", "4"),
)


@fault(
    "destination-listens-elsewhere", reason="unreachable", says="refused", doctor=Doctor("source", "peer-", "refused")
)
@contextmanager
def listens_elsewhere(stage: Stage) -> Iterator[None]:
    stage.configure("destination", {"link": {"port": 7999}})
    yield


@fault("peer-has-a-dead-address-first", doctor=Doctor("source", "peer-", "at 10.77.0.99 it does not answer"))
@contextmanager
def dead_address(stage: Stage) -> Iterator[None]:
    peer = {"name": stage.destination.name, "addresses": ["10.77.0.99", stage.destination.address]}
    stage.configure("source", {"peers": [peer]})
    yield


@fault("peer-has-an-ipv6-address-too", doctor=Doctor("source", "peer-", "at 2001:db8::99 it does not answer"))
@contextmanager
def ipv6_address(stage: Stage) -> Iterator[None]:
    peer = {"name": stage.destination.name, "addresses": ["2001:db8::99", stage.destination.address]}
    stage.configure("source", {"peers": [peer]})
    yield


def _with_ipv6(stage: Stage) -> dict[str, list[dict[str, object]]]:
    return {"peers": [{"name": stage.destination.name, "addresses": [stage.destination.address, "2001:db8::99"]}]}


@contextmanager
def without_ipv6_loopback(stage: Stage) -> Iterator[None]:
    """A host that has no ::1 and is told of a peer's IPv6 address."""
    switch = "net.ipv6.conf.lo.disable_ipv6"
    stage.source.run(["sysctl", "-q", "-w", f"{switch}=1"])
    try:
        stage.configure("source", _with_ipv6(stage))
        yield
    finally:
        stage.source.run(["sysctl", "-q", "-w", f"{switch}=0"])


fault("no-ipv6-loopback")(without_ipv6_loopback)


@fault("ipv6-added-by-reload", doctor=Doctor("source", "peer-", "at 2001:db8::99 it does not answer"))
@contextmanager
def ipv6_added(stage: Stage) -> Iterator[None]:
    stage.reload("source", _with_ipv6(stage))
    yield


@fault("ipv6-removed-by-reload")
@contextmanager
def ipv6_removed(stage: Stage) -> Iterator[None]:
    stage.configure("source", _with_ipv6(stage))
    stage.reload("source", {})
    yield


@contextmanager
def silent_name_server(stage: Stage, addresses: tuple[str, ...]) -> Iterator[None]:
    """A name server that answers nothing, and a peer that is known by a name, perhaps among addresses."""
    resolver = stage.source.namespace.root / "etc/resolv.conf"
    with rule(stage, "source", "output", "udp", "dport", "53", "drop"):
        resolver.write_text("nameserver 10.77.0.253\n")
        try:
            known = [stage.destination.address if each == "address" else each for each in addresses]
            stage.configure("source", {"peers": [{"name": stage.destination.name, "addresses": known}]})
            yield
        finally:
            resolver.write_text("")


fault("name-server-silent", doctor=None)(partial(silent_name_server, addresses=("hv.example.net", "address")))
fault("name-server-silent-no-address", reason=NOT_SEEN, doctor=Doctor("source", "addresses-", "no address"))(
    partial(silent_name_server, addresses=("hv.example.net",))
)


@fault(
    "ports-differ",
    reason="port",
    says="outside the destination's migration range",
    doctor=Doctor("destination", "ports", "covers 40000"),
)
@contextmanager
def ports_differ(stage: Stage) -> Iterator[None]:
    stage.configure("destination", {"intercept": {"port_min": 40000, "port_max": 40063}})
    yield


@fault("rulesets-flushed")
@contextmanager
def flushed(stage: Stage) -> Iterator[None]:
    stage.beside("source", "nft", "flush", "ruleset")
    stage.beside("destination", "nft", "flush", "ruleset")
    yield


RULESET: Final = """
flush ruleset
table inet firewall {
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        ct state invalid drop
        iif lo accept
        ip protocol icmp accept
        tcp dport { 22, 7802, 16509, 49152-49215 } accept
    }
    chain prerouting { type nat hook prerouting priority -100; }
    chain output { type nat hook output priority -100; }
}
"""
"""What firewalld and nftables.service do at a reload: everything goes, and what is configured comes back."""


@contextmanager
def reloaded(stage: Stage) -> Iterator[None]:
    """Have both hosts' firewalls reloaded before the migration, and again and again while it runs."""
    over = threading.Event()

    def reload() -> None:
        for side in SIDES:
            commands.run_program(stage.host(side).namespace.beside(["nft", "-f", "-"]), stdin=RULESET, timeout_s=20)

    def again() -> None:
        while not over.wait(RELOAD_EVERY_S):
            reload()

    reload()
    with ThreadPoolExecutor(1) as threads:
        reloading = threads.submit(again)
        try:
            yield
        finally:
            over.set()
            reloading.result()
            for side in SIDES:
                stage.beside(side, "nft", "delete", "table", "inet", "firewall")


fault("firewall-reloaded")(reloaded)


for _word in ("0x8000", "0x4000"):
    fault(f"foreign-marks-dropped-{_word}")(
        partial(
            lambda stage, bits: rule(stage, "source", "output", "meta", "mark", "&", bits, "==", bits, "drop"),
            bits=_word,
        )
    )
