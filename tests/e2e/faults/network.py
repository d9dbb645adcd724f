"""Ways between the hosts that are closed, filtered or elsewhere: link port, addresses, firewalls."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tests.e2e.faults.stage import Doctor, Side, Stage, fault

TABLE = ("inet", "fault")
LINK_PORT = "7802"


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


for _word in ("0x8000", "0x4000"):
    fault(f"foreign-marks-dropped-{_word}")(
        partial(
            lambda stage, bits: rule(stage, "source", "output", "meta", "mark", "&", bits, "==", bits, "drop"),
            bits=_word,
        )
    )
