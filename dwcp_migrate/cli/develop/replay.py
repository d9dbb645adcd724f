"""`dwcp-migrate replay`: recorded streams through parser, encoder, frames and decoder, in one process."""

from pathlib import Path
from typing import Final

import click

from dwcp_migrate.cli.support.output import UNKNOWN, as_json, format_block, format_table
from dwcp_migrate.dataplane.malloc import keep_freed_memory
from dwcp_migrate.dataplane.recording.replay import Replay, ReplayOptions, ReplayReport, Volume, replay_recordings
from dwcp_migrate.delta import LEVEL_MAX, pinned
from dwcp_migrate.errors import ConfigError, DwcpError, NotFoundError
from dwcp_migrate.units import MIB, format_bytes

ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--codec",
    type=click.Choice(["none", "lz4", "zstd"]),
    default="zstd",
    show_default=True,
    help="Codec for all pages.",
)
@click.option("--level", type=click.IntRange(1, LEVEL_MAX), default=1, show_default=True, help="Level of zstd.")
@click.option(
    "--cache-mib",
    "--cache-mb",
    type=click.IntRange(0, 1 << 20),
    default=1024,
    show_default=True,
    help="Page cache, in MiB.",
)
@click.option("--prefault", is_flag=True, help="Touch the caches first: their page faults are not counted.")
@click.option("--json", "in_json", is_flag=True, help="Print one JSON value.")
def command(  # one argument for each option
    files: tuple[Path, ...], codec: str, level: int, cache_mib: int, *, prefault: bool, in_json: bool
) -> None:
    """Replay the FILES that were recorded of one migration, the main channel's first, multifd's after it.

    Of a file that was cut off the figures are those of what is there, and what it lacks is said.
    """
    coding = pinned(codec, level)
    assert coding is not None
    for file in files:
        _refuse_what_is_no_stream(file)
    keep_freed_memory()
    result = replay_recordings(list(files), ReplayOptions(coding, cache_mib * MIB, prefault=prefault))
    click.echo(as_json(result) if in_json else _text(result))
    if not result.total.identical:
        raise DwcpError("a rebuilt stream differs from the recorded one", hint="keep the recording and report it")


def _refuse_what_is_no_stream(file: Path) -> None:
    """Refuse a file that would be replayed as opaque bytes, or as nothing, without a word about it.

    Raises:
        NotFoundError: it cannot be read.
        ConfigError: it is empty or compressed.
    """
    try:
        with file.open("rb") as opened:
            head = opened.read(len(ZSTD_MAGIC))
    except OSError as error:
        raise NotFoundError(f"cannot read {file}: {error.strerror}") from error
    if not head:
        raise ConfigError(f"{file} is empty", hint="name the files that `dwcp-migrate record` wrote")
    if head == ZSTD_MAGIC:
        raise ConfigError(f"{file} is compressed", hint="unpack it first: zstd -d")


def _text(result: Replay) -> str:
    header = ("File", "Kind", "Identical", "Raw", "Wire", "Ratio", "Not parsed")
    rows = [_row(report) for report in (*result.files, result.total)]
    total = result.total
    pages = total.pages
    pairs = [
        ("Pages", f"{pages.zero} zero, {pages.duplicate} duplicate, {pages.same} same"),
        ("Pages with a body", f"{pages.delta} delta, {pages.new} new; {pages.resent} of all resent"),
        ("Opaque", format_bytes(pages.opaque_bytes)),
        ("First pass", _volume(total.first_pass)),
        ("Resent", _volume(total.resent)),
        ("Encode", f"{format_bytes(total.encode_bytes_per_s)}/s, {total.encode_cpu_s_per_gb:.2f} CPU s/GB"),
        ("Decode", f"{format_bytes(total.decode_bytes_per_s)}/s, {total.decode_cpu_s_per_gb:.2f} CPU s/GB"),
        ("Peak memory", format_bytes(total.peak_memory_bytes)),
    ]
    cut = [
        f"{each.file} ends after {format_bytes(each.raw_bytes)} without {each.unfinished}: it was cut off"
        for each in result.files
        if each.unfinished
    ]
    return "\n\n".join([format_table(header, rows), *cut, format_block(pairs)])


def _row(report: ReplayReport) -> tuple[str, ...]:
    return (
        report.file,
        report.kind,
        "yes" if report.identical else "NO",
        format_bytes(report.raw_bytes),
        format_bytes(report.wire_bytes),
        _ratio(report.raw_bytes, report.wire_bytes),
        report.opaque_reason or "-",
    )


def _volume(volume: Volume) -> str:
    ratio = _ratio(volume.raw_bytes, volume.wire_bytes)
    return f"{format_bytes(volume.raw_bytes)} as {format_bytes(volume.wire_bytes)} (ratio {ratio})"


def _ratio(raw_bytes: int, wire_bytes: int) -> str:
    """Raw bytes for each byte on the wire, as every command has it."""
    return f"{raw_bytes / wire_bytes:.1f}" if wire_bytes else UNKNOWN
