"""The judgement of `dwcp-migrate doctor` about libvirt's keepalive, which ends a migration before the agents would."""

from collections.abc import Mapping
from typing import Final

from dwcp_migrate.cli.host.check import Check, advised_check

SHIPPED_S: Final = 30.0
"""Silence after which libvirt ends a connection by default, in seconds."""


def patience(silent_s: Mapping[str, float | None], loss_s_max: float) -> Check:
    """Judge how long libvirt's own connections bear a link that is cut; a migration ends with them.

    Args:
        silent_s: see `HostFiles.keepalive_s`.
        loss_s_max: `link.loss_s_max`.
    """
    ended = {file: seconds for file, seconds in silent_s.items() if seconds is not None}
    if ended:
        file, seconds = min(ended.items(), key=lambda entry: entry[1])
        what = f"libvirt ends its connections, and migrations with them, after {seconds:.0f} s of silence ({file})"
    else:
        seconds, what = SHIPPED_S, f"off: a cut of the link is borne for link.loss_s_max ({loss_s_max:.0f} s)"
    return advised_check(
        "keepalive",
        hold=seconds >= SHIPPED_S and len(ended) in {0, len(silent_s)},
        what=what if silent_s else "libvirt's configuration cannot be read here",
        why="a cut of the link that is longer ends the migration, however long the agents would have waited",
        remedy=f"set keepalive_interval alike, -1 for never, in {', '.join(silent_s)} on all hosts",
    )
