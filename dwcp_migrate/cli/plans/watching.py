"""`rebalance --watch` and `rebalance --report`: the service that relieves the fleet by itself, set and reported on."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from dwcp_migrate.api.watch import WatchRecord, WatchRound
from dwcp_migrate.cli.support import output
from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement.watch_settings import WatchMode, WatchSettings, parse_window

if TYPE_CHECKING:
    from dwcp_migrate.orchestration.watch_round import WatchStore

HEADER = ("At", "Hot", "Long enough", "Moves", "Plan", "What came of it")


def set_watch(store: "WatchStore", mode: WatchMode, changes: Sequence[str]) -> WatchRecord:
    """Set the service, and keep what it noted so far.

    Args:
        store: of its record.
        mode: of it.
        changes: as `threshold=0.8`, with the names of `WatchSettings`; windows are parted by commas.

    Raises:
        PlacementError: a setting is none.
    """
    stored = store.read()
    settings = settings_with(stored.record.settings, mode, changes)
    return store.put(msgspec.structs.replace(stored.record, settings=settings, since={}), stored.revision).record


def settings_with(settings: WatchSettings, mode: WatchMode, changes: Sequence[str]) -> WatchSettings:
    """Change some settings of the service; see `set_watch`.

    Args:
        settings: as they are.
        mode: new mode.
        changes: texts `NAME=VALUE`; windows are separated by commas.

    Raises:
        PlacementError: a text names no setting, or its value is not allowed.
    """
    values = {**msgspec.to_builtins(settings), "mode": mode}
    for change in changes:
        name, is_set, text = change.partition("=")
        if not is_set or name not in values or name == "mode":
            names = ", ".join(one for one in values if one != "mode")
            raise PlacementError(f"{change!r} sets nothing", hint=f"write NAME=VALUE with one of {names}")
        values[name] = [one.strip() for one in text.split(",") if one.strip()] if name == "windows" else text
    try:
        found = msgspec.convert(values, WatchSettings, strict=False)
        for window in found.windows:
            parse_window(window)
    except (msgspec.ValidationError, ValueError) as error:
        raise PlacementError(f"settings of the watch: {error}", hint="see docs/placement.md") from error
    return found


def watch_words(record: WatchRecord) -> str:
    """Settings, findings and actions of the service, for people."""
    settings = record.settings
    windows = ", ".join(settings.windows) or "always"
    looks = output.counted(record.looks, "time", "times")
    looked = f"looked {looks}, last {_at(record.looked_at)}" if record.looks else "has not looked yet"
    moves = output.counted(settings.moves_max, "move", "moves")
    head = [
        f"watch is {settings.mode}: above {settings.threshold * 100:.0f} % for {settings.hold_s:.0f} s",
        f"at most {moves} a round and {settings.at_once} at once, {windows}",
        f"{looked}{f'; {record.words}' if record.words else ''}",
    ]
    rows = [_row(one) for one in record.rounds]
    return "\n".join([*head, *([output.format_table(HEADER, rows)] if rows else ["no host was hot"])])


def _row(one: WatchRound) -> tuple[str, ...]:
    return (
        _at(one.at),
        ", ".join(f"{host} {level * 100:.0f} %" for host, level in one.hot.items()),
        ", ".join(one.due) or output.UNKNOWN,
        "; ".join(one.moves) or output.UNKNOWN,
        str(one.plan) if one.plan else output.UNKNOWN,
        one.outcome or one.words or "under way",
    )


def _at(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def say_watch(record: WatchRecord, *, as_json: bool) -> None:
    """Print the service's record.

    Args:
        record: of the service.
        as_json: print JSON instead of text.
    """
    click.echo(output.as_json(record) if as_json else watch_words(record))
