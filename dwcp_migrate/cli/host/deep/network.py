"""Names, ports and peers that a configuration leads to: resolved, bound, dialled."""

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from dwcp_migrate.cli.host.check import Check, required_check
from dwcp_migrate.cli.host.host_files import resolve_names
from dwcp_migrate.config import Config, PeerConfig
from dwcp_migrate.config.addresses import is_ip_address
from dwcp_migrate.units import MIB

PEM_BYTES_MAX: Final = MIB
CONNECT_S_MAX: Final = 3.0
CONNECTIONS_AT_ONCE_MAX: Final = 32
DAY_S: Final = 86400.0
MEMORY_SHARE_MAX: Final = 0.25
"""Of this host's memory, for one migration's page cache; the other side of a second one needs as much again."""

_TLS_WHY: Final = "agents prove who they are to each other with these files; without them migrations run unaccelerated"


def judge_network(config: Config, *, agent_runs: bool) -> Iterator[Check]:
    """Judge names, ports and peers: what they resolve to, whether they are free, whether they answer.

    Args:
        config: to judge.
        agent_runs: its agent holds the ports, so that they are not tried.
    """
    named = [name for peer in config.peers for name in peer.addresses if not is_ip_address(name)]
    known = resolve_names(named)
    for name in named:
        yield required_check(
            f"dns-{name}",
            hold=name in known,
            what=f"{name} is {', '.join(sorted(known[name]))}" if name in known else f"{name} resolves to nothing here",
            why="the redirect matches IP addresses; a peer without one is not redirected",
            remedy=f"getent ahosts {name}; list IP addresses, or correct the name or the resolver",
        )
    if not agent_runs:
        yield from _ports(config)
    yield from _peers(config.peers)


def _ports(config: Config) -> Iterator[Check]:
    wanted = {"link.port": (config.link.listen, config.link.port)}
    wanted["intercept.port"] = ("127.0.0.1", config.intercept.port)
    if config.metrics_listen:
        address, _, listened = config.metrics_listen.rpartition(":")
        wanted["metrics_listen"] = (address.strip("[]"), int(listened))
    for key, (address, port) in wanted.items():
        why = _taken(address, port)
        yield required_check(
            f"port-{key}",
            hold=not why,
            what=f"{address} port {port}: {why or 'free'}",
            why="the agent listens there",
            remedy=f"ss -ltnp 'sport = {port}' shows who holds it; take another one, or end that program",
        )


def _taken(address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.closing(socket.socket(family)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
            sock.listen(1)
        except OSError as error:
            return f"{error.strerror or error}".lower()
    return ""


def _peers(peers: list[PeerConfig]) -> Iterator[Check]:
    tried = [(peer, address) for peer in peers for address in peer.addresses]
    with ThreadPoolExecutor(CONNECTIONS_AT_ONCE_MAX) as pool:
        answers = list(pool.map(lambda one: _refusal(one[1], one[0].port), tried))
    for (peer, address), why in zip(tried, answers, strict=True):
        yield required_check(
            f"peer-{peer.name}-{address}",
            hold=not why,
            what=f"{address} port {peer.port}: {why or 'accepts connections'}",
            why="migrations to a host whose link port cannot be reached run unaccelerated",
            remedy=f"is the agent of {peer.name} running, and does every firewall let port {peer.port} in?",
        )


def _refusal(address: str, port: int) -> str:
    try:
        with socket.create_connection((address, port), CONNECT_S_MAX):
            return ""
    except TimeoutError:
        return f"no answer in {CONNECT_S_MAX:.0f} s"
    except OSError as error:
        return f"{error.strerror or error}".lower()
