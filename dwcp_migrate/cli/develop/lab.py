"""`dwcp-migrate lab`: hypervisors and a WAN on this one machine."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import json_option
from dwcp_migrate.lab.quantities import duration_s, parse_percent, rate_bytes_per_s, size_bytes
from dwcp_migrate.units import format_bytes, format_rate

if TYPE_CHECKING:
    from dwcp_migrate.lab.state import LabRecord
    from dwcp_migrate.lab.wan import WanLink

Decorated = Callable[..., Any]

name_option = click.option("--name", default="lab", show_default=True, help="Which lab; several run side by side.")


def link_options(function: Decorated) -> Decorated:
    """Add the options that describe the WAN."""
    for option in (
        click.option(
            "--queue", default="0", help="Bound of the bottleneck's queue [default: one bandwidth-delay product]"
        ),
        click.option("--loss", default="0.1%", show_default=True, help="Share of packets lost by chance, each way."),
        click.option("--rtt", default="40ms", show_default=True, help="Round-trip time."),
        click.option("--rate", default="200mbit", show_default=True, help="Rate of each host's uplink."),
    ):
        function = option(function)
    return function


def make_link(rate: str, rtt: str, loss: str, queue: str) -> "WanLink":
    """Build the WAN's description from the options' texts.

    Args:
        rate: as `200mbit`.
        rtt: round trip, as `40ms`; half of it is each way's delay.
        loss: as `0.1%`.
        queue: size before the bottleneck, as `1m`; 0 takes one bandwidth-delay product.

    Raises:
        LabError: one of them cannot be read.
    """
    from dwcp_migrate.lab.wan import WanLink

    return WanLink(
        rate_bytes_per_s=rate_bytes_per_s(rate),
        delay_s=duration_s(rtt) / 2,
        loss=parse_percent(loss),
        queue_bytes=size_bytes(queue),
    )


@click.group()
def command() -> None:
    """Hypervisors (real libvirt and QEMU) and a WAN on this one machine. Needs root."""


@command.command()
@click.option("--booted/--no-booted", "is_booted", default=True, help="Also for booted hosts, which tests use.")
def prepare(*, is_booted: bool) -> None:
    """Make what labs are made of, once a machine: the Debian tree, the guests' images, the relay, wheels."""
    from dwcp_migrate.lab import lab, wan
    from dwcp_migrate.lab.hosts import booted
    from dwcp_migrate.lab.images import build, cache, tree, wheels

    lab.check_privileges()
    if not tree.is_built():
        click.echo("lab: making a Debian 13 tree with libvirt and QEMU (one minute with a near mirror)")
    build.directory()
    wan.relay_program()
    if is_booted:
        booted.lower_layers()
        wheels.directory()
    click.echo(f"lab: prepared in {cache.directory()}")


@command.command()
@name_option
@click.option("--hosts", default=2, show_default=True, help="Hypervisors, called hv1, hv2, ...")
@click.option("--seed", default=1, show_default=True, help="Seed of the WAN's losses.")
@click.option("--agents", is_flag=True, help="Start the agents too.")
@link_options
def up(*, name: str, hosts: int, seed: int, agents: bool, **link: str) -> None:
    """Bring a lab up; it stays until `lab down`."""
    from dwcp_migrate.lab.lab import Lab, LabOptions

    lab = Lab.up(LabOptions(name=name, hosts=hosts, seed=seed, link=make_link(**link)))
    if agents:
        lab.start_agents()
    click.echo(f"lab '{name}' is up: {', '.join(host.name for host in lab.hypervisors)}")
    click.echo(f"try: dwcp-migrate lab guest --name {name}; dwcp-migrate lab shell hv1 --name {name}")


@command.command()
@name_option
@click.option("--all", "all_labs", is_flag=True, help="Take down every lab of this machine.")
def down(*, name: str, all_labs: bool) -> None:
    """End everything that belongs to a lab, or clear what a crash left of it."""
    from dwcp_migrate.lab import lab, state

    for each in state.names() if all_labs else [name]:
        lab.down(each)
        click.echo(f"lab '{each}' is down")


@command.command()
@json_option
def status(*, as_json: bool) -> None:
    """List the labs of this machine; clears those whose owner died."""
    from dwcp_migrate.lab import lab, state

    lab.check_privileges()
    for each in lab.clear_abandoned():
        click.echo(f"cleared '{each}': its owner is gone", err=True)
    rows = [_describe(state.read(each)) for each in state.names()]
    if as_json:
        click.echo(output.as_json(rows))
        return
    cells = [
        [row["name"], row["condition"], ", ".join(row["hosts"]), ", ".join(row["agents"]) or "-", row["wan"]]
        for row in rows
    ]
    click.echo(output.format_table(["Name", "State", "Hosts", "Agents", "WAN"], cells))


def _describe(record: "LabRecord") -> dict[str, Any]:
    from dwcp_migrate.lab import state

    link = record.link
    wan = f"{format_rate(link.rate_bytes_per_s)}, {link.delay_s * 2000:g} ms, {link.loss:.2%} loss"
    return {
        "name": record.name,
        "condition": state.condition(record),
        "hosts": [host.name for host in record.hosts],
        "agents": [host for host, process in record.agents.items() if process.is_alive()],
        "wan": wan,
        "directory": str(state.directory(record.name)),
    }


def _become(argv: list[str]) -> NoReturn:
    """Go on as another program, so that its signals, its terminal and its exit status are ours."""
    os.execvp(argv[0], argv)  # noqa: S606 - no shell in between is what is wanted


@command.command()
@click.argument("host", default="hv1")
@name_option
def shell(host: str, name: str) -> None:
    """Open a shell on the hypervisor HOST; `virsh` works there as on any other."""
    from dwcp_migrate.lab.lab import Lab

    _become(Lab.load(name)[host].namespace.inside(["bash", "-i"]))


@command.command(context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED)
@name_option
def run(host: str, argv: tuple[str, ...], name: str) -> None:
    """Run the program ARGV on the hypervisor HOST: `lab run hv1 -- virsh list`."""
    from dwcp_migrate.lab.lab import Lab

    _become(Lab.load(name)[host].namespace.inside(argv))


@command.command(context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("view", nargs=-1, required=True, type=click.UNPROCESSED)
@name_option
def ask(host: str, view: tuple[str, ...], name: str) -> None:
    """Show a VIEW of the agent on the hypervisor HOST: `lab ask hv1 top`, `lab ask hv1 show guest`."""
    from dwcp_migrate.lab.lab import Lab

    lab = Lab.load(name)
    namespace = lab[host].namespace
    root = ["--root", str(namespace.root)] if view[0] == "doctor" else []
    options = ["--config", str(lab.agents[host].config), *root]
    _become(namespace.beside([sys.executable, "-m", "dwcp_migrate", *view, *options]))


@command.command()
@click.argument("host", default="hv1")
@name_option
@click.option("--guest", "guest_name", default="guest", show_default=True, help="Name of the domain.")
@click.option("--memory", default=256, show_default=True, help="Memory, MiB.")
@click.option("--fill", default=160, show_default=True, help="Memory with checked content, MiB.")
@click.option("--dirty", default=100, show_default=True, help="Pages changed a second.")
@click.option("--disk", default=0, show_default=True, help="Size of its disk, MiB; 0 for none.")
@click.option(
    "--workload",
    type=click.Choice(["pages", "programs"]),
    default="pages",
    show_default=True,
    help="Checked pages, or real programs (give it 512 MiB or more).",
)
def guest(host: str, name: str, guest_name: str, workload: Literal["pages", "programs"], **sizes: int) -> None:
    """Start a guest on HOST that fills, changes and checks its memory."""
    from dwcp_migrate.lab.guest import GuestOptions, LabGuest
    from dwcp_migrate.lab.lab import Lab

    lab = Lab.load(name)
    options = GuestOptions(
        name=guest_name,
        memory_mib=sizes["memory"],
        fill_mib=sizes["fill"],
        dirty_pages_per_s=sizes["dirty"],
        disk_mib=sizes["disk"],
        workload=workload,
    )
    LabGuest(options).start(lab[host])
    click.echo(f"guest '{guest_name}' runs on {host}; its console: {lab[host].console(guest_name)}")


@command.command(context_settings={"ignore_unknown_options": True})
@click.argument("source")
@click.argument("destination")
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
@name_option
@click.option("--guest", "guest_name", default="guest", show_default=True, help="Name of the domain.")
def migrate(source: str, destination: str, flags: tuple[str, ...], name: str, guest_name: str) -> None:
    """Run `virsh migrate --live` on SOURCE towards DESTINATION, with FLAGS as given."""
    from dwcp_migrate.lab.lab import Lab

    uri = f"qemu+ssh://{destination}/system"
    argv = ["virsh", "migrate", "--live", "--verbose", *flags, guest_name, uri]
    click.echo(f"{source}# {' '.join(argv)}", err=True)
    _become(Lab.load(name)[source].namespace.inside(argv))


@command.group()
def wan() -> None:
    """Change the WAN of a running lab."""


@wan.command("set")
@name_option
@click.option("--host", "hosts", multiple=True, help="Only this host's uplink.")
@link_options
def set_link(name: str, hosts: tuple[str, ...], **link: str) -> None:
    """Set rate, round-trip time, loss and queue; what is not given gets its default."""
    from dwcp_migrate.lab.lab import Lab

    Lab.load(name).wan.set(make_link(**link), *hosts)


@wan.command()
@name_option
@click.argument("hosts", nargs=-1)
def cut(name: str, hosts: tuple[str, ...]) -> None:
    """Cut these HOSTS off from all others; without HOSTS, cut all of them off."""
    from dwcp_migrate.lab.lab import Lab

    Lab.load(name).wan.cut(*hosts)


@wan.command()
@name_option
@click.argument("hosts", nargs=-1)
def heal(name: str, hosts: tuple[str, ...]) -> None:
    """Undo `cut` for these HOSTS, or for all."""
    from dwcp_migrate.lab.lab import Lab

    Lab.load(name).wan.heal(*hosts)


@wan.command()
@name_option
@json_option
def show(*, name: str, as_json: bool) -> None:
    """Show the uplinks and their counters."""
    from dwcp_migrate.lab.lab import Lab

    uplinks = Lab.load(name).wan.uplinks()
    if as_json:
        click.echo(output.as_json(uplinks))
        return
    for host, uplink in uplinks.items():
        pairs = [
            ("Host", host),
            ("Rate", format_rate(uplink.rate_bytes_per_s)),
            ("Delay", f"{uplink.delay_us / 1000:g} ms one way"),
            ("Loss", f"{uplink.loss_ppm / 10000:g} %"),
            ("Queue", format_bytes(uplink.queue_bytes)),
            ("Cut", "yes" if uplink.cut else "no"),
            ("Sent", f"{format_bytes(uplink.sent_bytes)} in {uplink.sent_packets} packets"),
            ("Lost", f"{uplink.lost_packets} by chance, {uplink.dropped_packets} at the queue"),
        ]
        click.echo(output.format_block(pairs) + "\n")
