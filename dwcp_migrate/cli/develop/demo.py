"""`dwcp-migrate demo`: one guest, one WAN, three ways to migrate it, side by side."""

import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dwcp_migrate.cli.develop.lab import link_options, make_link
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import json_option
from dwcp_migrate.errors import LabError
from dwcp_migrate.units import format_bytes, format_rate

if TYPE_CHECKING:
    from dwcp_migrate.lab.arms import ArmResult
    from dwcp_migrate.lab.wan import WanLink

HEADER: Final = ("Arm", "Time", "Speed-up", "Downtime", "On the wire", "Ratio", "Throughput", "Guest's memory")


@click.command()
@click.option("--name", default="demo", show_default=True, help="Name of the lab.")
@click.option("--memory", default=256, show_default=True, help="Memory of the guest, MiB.")
@click.option("--fill", default=160, show_default=True, help="Part of its memory that holds content, MiB.")
@click.option("--arm", "wanted", multiple=True, help="Run only this arm; may be given several times.")
@click.option("--output", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON there too.")
@json_option
@link_options
def command(
    *, name: str, memory: int, fill: int, wanted: tuple[str, ...], path: Path | None, as_json: bool, **link: str
) -> None:
    """Migrate a lab guest stock, with multifd and zstd, and accelerated, and compare."""
    from dwcp_migrate.lab.arms import ARMS, run_arm
    from dwcp_migrate.lab.guest import GuestOptions
    from dwcp_migrate.lab.lab import Lab, LabOptions

    arms = [arm for arm in ARMS if not wanted or arm.name in wanted]
    if not arms:
        raise LabError(f"no such arm; there are {', '.join(arm.name for arm in ARMS)}")
    wan = make_link(**link)
    guest = GuestOptions(memory_mib=memory, fill_mib=fill)
    say(f"lab '{name}': two hypervisors, {describe(wan)}")
    with Lab.up(LabOptions(name=name, link=wan, owned=True)) as lab:
        results = [run_arm(lab, arm, guest, say=say) for arm in arms]
    document = {"machine": machine(), "commit": commit(), "link": wan, "guest": guest, "arms": results}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(output.as_json(document) + "\n")
    click.echo(output.as_json(document) if as_json else output.format_table(HEADER, rows(results)))


def say(text: str) -> None:
    """Say what is going on, beside the result."""
    click.echo(text, err=True)


def describe(link: "WanLink") -> str:
    """Say what the WAN is."""
    return (
        f"{format_rate(link.rate_bytes_per_s)}, {link.delay_s * 2000:g} ms round trip, {link.loss:.2%} loss, "
        "CUBIC on every arm"
    )


def rows(results: "list[ArmResult]") -> list[tuple[str, ...]]:
    """Lay out the arms, compared with the first."""
    first = results[0]
    return [
        (
            one.arm,
            f"{one.time_s:.1f} s",
            f"{first.time_s / one.time_s:.1f}x",
            f"{one.downtime_ms} ms",
            format_bytes(one.wire_bytes),
            f"{first.wire_bytes / one.wire_bytes:.1f}x",
            format_rate(one.throughput_bytes_per_s),
            one.guest_check + (f" (not accelerated: {one.passthrough_reason})" if one.passthrough_reason else ""),
        )
        for one in results
    ]


def machine() -> dict[str, Any]:
    """Describe this machine as far as it explains figures."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": memory_bytes,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def commit() -> str:
    """Return the checkout's commit, marked when it was changed since; empty outside a checkout."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
