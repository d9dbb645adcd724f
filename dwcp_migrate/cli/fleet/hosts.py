"""`dwcp-migrate hosts`: the hosts of the fleet, what is promised on them, and what is used."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import click
import msgspec

from dwcp_migrate.cli.fleet import planning
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import json_option
from dwcp_migrate.placement.fleet import CPU_USED, MEMORY, VCPUS, Fleet
from dwcp_migrate.protocol.load import HostLoad, LoadRange
from dwcp_migrate.units import MIB, format_bytes, format_rate

HEADER = ("Host", "State", "Domains", "vCPUs", "Memory", "CPU used", "Memory used", "Waits", "Disk", "Network", "Note")


EMPTY: Final[Mapping[str, HostLoad]] = MappingProxyType({})


class HostRow(msgspec.Struct, frozen=True, kw_only=True):
    """A host as `hosts --json` prints it.

    Attributes:
        domains: that run there.
        vcpus: that may be promised, `vcpus_promised` those that are; memory likewise.
        cores_used: by its domains; None where it was not measured.
        load: what its agent measured over the last hour; None where it told nothing.
        note: why it is in that state, or takes no domains.
    """

    name: str
    state: str
    domains: int
    vcpus: float
    vcpus_promised: float
    memory_mib: float
    memory_mib_promised: float
    cores: float
    cores_used: float | None
    load: HostLoad | None
    note: str


@click.command()
@planning.measure_option
@json_option
@planning.fleet_options
def command(*, measure_s: float, as_json: bool, config_path: Path | None, fleet_path: Path | None) -> None:
    """List the hosts: their state, what is promised on them, and what is used there by the last hour's 0.9-quantile."""
    from dwcp_migrate.orchestration.workspace import open_workspace

    with open_workspace(config_path, fleet_path, measure_s=measure_s) as ours:
        rows = host_rows(ours.source.snapshot(), ours.load().hosts)
    if as_json:
        click.echo(output.as_json(rows))
        return
    click.echo(output.format_table(HEADER, [_words(row) for row in rows]))


def host_rows(fleet: Fleet, loads: Mapping[str, HostLoad] = EMPTY) -> list[HostRow]:
    """A row for each host.

    Args:
        fleet: as it is.
        loads: what agents told, by host.
    """
    from dwcp_migrate.placement.amounts import usable_capacity

    room = usable_capacity(fleet, [VCPUS, MEMORY])
    count, promised, used = Counter[str](), Counter[tuple[str, str]](), Counter[str]()
    for one in fleet.domains:
        for place in filter(None, (one.host, one.arriving)):
            count[place] += place == one.host
            for name in (VCPUS, MEMORY):
                promised[place, name] += one.demand.get(name, 0.0)  # type: ignore[assignment]
        used[one.host] += one.load.get(CPU_USED, 0.0)  # type: ignore[assignment]
    return [
        HostRow(
            name=host.name,
            state=host.state,
            domains=count[host.name],
            vcpus=float(room[0, at]),
            vcpus_promised=promised[host.name, VCPUS],
            memory_mib=float(room[1, at]),
            memory_mib_promised=promised[host.name, MEMORY],
            cores=host.capacity.get(VCPUS, 0.0),
            cores_used=float(used[host.name]) if CPU_USED in fleet.balance and host.state != "down" else None,
            load=loads.get(host.name),
            note=host.note or host.closed,
        )
        for at, host in enumerate(fleet.hosts)
    ]


def _words(row: HostRow) -> tuple[str, ...]:
    used = output.UNKNOWN if row.cores_used is None else f"{row.cores_used:.1f} of {row.cores:g} cores"
    load = row.load or HostLoad()
    return (
        row.name,
        row.state,
        output.UNKNOWN if row.state == "down" else str(row.domains),
        f"{row.vcpus_promised:g} of {row.vcpus:g}",
        f"{format_bytes(row.memory_mib_promised * MIB)} of {format_bytes(row.memory_mib * MIB)}",
        used,
        _high(load.memory, format_bytes),
        _high(load.stalled, lambda share: f"{share * 100:.1f} %"),
        _high(load.disk, format_rate),
        _high(load.network, format_rate),
        row.note or output.UNKNOWN,
    )


def _high(usage: LoadRange | None, words: Callable[[float], str]) -> str:
    return output.UNKNOWN if usage is None else words(usage.high)
