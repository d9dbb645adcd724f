"""Statistics of the interfaces that lead to the peers, read over netlink.

The rule: it is called on a thread of its own, every few seconds; figures that the kernel does not have are left out, as
a bridge or a tunnel has no speed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyroute2 import Ethtool, IPRoute

MBIT = 125_000
"""Bytes a second."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One look at an interface.

    Attributes:
        name: of it.
        speed_bytes_per_s: of the line; 0 where it has none.
        sent_bytes: since it came up.
        backlog_bytes: in the queue of its root discipline.
    """

    name: str
    speed_bytes_per_s: float
    sent_bytes: int
    backlog_bytes: int


def look(addresses: Iterable[str]) -> list[Interface]:
    """Look at every interface that one of these addresses is routed over; blocks for some milliseconds."""
    with IPRoute() as route:
        numbers = {number for address in addresses for number in _interface_of(route, address)}
        return [_look(route, number) for number in sorted(numbers)]


def _interface_of(route: Any, address: str) -> list[int]:
    try:
        answers = route.route("get", dst=address)
    except Exception:  # noqa: BLE001 - pyroute2's errors share no base but this; a peer without a route is no fault of ours
        return []
    return [answer.get_attr("RTA_OIF") for answer in answers if answer.get_attr("RTA_OIF")]


def _look(route: Any, number: int) -> Interface:
    (link,) = route.get_links(number)
    name = str(link.get_attr("IFLA_IFNAME"))
    statistics = link.get_attr("IFLA_STATS64") or {}
    backlogs = [
        (queue.get_attr("TCA_STATS2") or {}).get("attrs", [])
        for queue in route.get_qdiscs(number)
        if queue["parent"] == ROOT
    ]
    backlog = sum(value.get("backlog", 0) for queue in backlogs for key, value in queue if key == "TCA_STATS_QUEUE")
    return Interface(name, _speed(name), int(statistics.get("tx_bytes", 0)), int(backlog))


ROOT = 0xFFFFFFFF
"""TC_H_ROOT of linux/pkt_sched.h."""


def _speed(name: str) -> float:
    try:
        with Ethtool() as tool:
            mode = tool.get_link_mode(name)
    except Exception:  # noqa: BLE001 - as above: no speed is the usual answer of a virtual interface
        return 0.0
    speed = getattr(mode, "speed", None)
    return float(speed * MBIT) if speed and 0 < speed < UNKNOWN_SPEED else 0.0


UNKNOWN_SPEED = 0x7FFFFFFF
"""SPEED_UNKNOWN of linux/ethtool.h is -1, read as a large number by some."""
