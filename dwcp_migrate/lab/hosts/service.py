"""The agent's unit, applied without systemd: user, capabilities, limits, and a sandbox made of mounts.

The rule here: the unit file is read, never repeated, so that an agent of the lab may do what one on a real host may and
nothing besides. What systemd does by filtering system calls is left to the booted hypervisors (`booted`), under whose
systemd the very unit runs.

    nsenter [network, UTS] -> unshare [mounts] -> CONFINE: hides, binds, read-only -> prlimit -> setpriv -> the agent
"""

import resource
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dwcp_migrate.errors import LabError

UNIT: Final = Path(__file__).parents[3] / "systemd" / "dwcp-migrate.service"

USER_FIRST: Final = 61700
"""First of the users' numbers, from the range of systemd's dynamic users, where no account is. One a host, because the
kernel limits pipes and processes by user."""

HIDDEN: Final = {"ProtectHome": ("/home", "/root", "/run/user"), "PrivateTmp": ("/tmp", "/var/tmp")}  # noqa: S108
"""Paths that a setting of the unit hides from the agent."""

LIMITS: Final = {"LimitNOFILE": "nofile", "LimitCORE": "core", "LimitNICE": "nice"}
"""A setting of the unit, and what prlimit(1) calls it."""

NICE_ZERO: Final = 20
"""RLIMIT_NICE counts from 1 for nice 19 to 40 for nice -20."""

READ_ALL: Final = "CAP_DAC_READ_SEARCH"

CONFINE: Final = r"""
directory=$1 umask=$2 adjust=$3 hidden=$4 shown=$5
shift 5
IFS='
'
number=0
for path in $shown; do
    number=$((number + 1))
    mkdir -p "$directory/shown/$number"
    mount --rbind "$path" "$directory/shown/$number"
done
for path in $hidden; do
    case "$path" in */tmp) mode=1777 ;; *) mode=755 ;; esac
    [ ! -d "$path" ] || mount -t tmpfs -o "mode=$mode" tmpfs "$path"
done
number=0
for path in $shown; do
    number=$((number + 1))
    mkdir -p "$path"
    mount --move "$directory/shown/$number" "$path"
done
for path in run agent/state; do
    mount --bind "$directory/$path" "$directory/$path"
done
for file in hosts resolv.conf; do
    mount --bind "$directory/upper/etc/$file" "/etc/$file"
done
mount -o remount,bind,ro /
mount -t proc -o nosuid,nodev,noexec,hidepid=invisible proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
echo "$adjust" > /proc/self/oom_score_adj
umask "$umask"
cd /
exec "$@"
"""
"""Makes the agent's view of the machine: its own directories stay writable, names are looked up as its host does."""


@dataclass(frozen=True, slots=True)
class UnitSettings:
    """Settings of the unit, as the kernel's tools take them.

    Attributes:
        capabilities: that the agent has.
        bounding: that it and its children could ever have.
        limits: what prlimit(1) calls them, and their values.
        umask: octal.
        oom_score_adjust: when memory runs out.
        hidden: directories that it does not see.
    """

    capabilities: tuple[str, ...]
    bounding: tuple[str, ...]
    limits: dict[str, int]
    umask: str
    oom_score_adjust: str
    hidden: tuple[str, ...]


def parse_unit(text: str) -> UnitSettings:
    """Read the settings of a unit that hold without systemd.

    Raises:
        LabError: one is missing that the lab goes by.
    """
    said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    try:
        return UnitSettings(
            capabilities=tuple(said["AmbientCapabilities"].split()),
            bounding=tuple(said["CapabilityBoundingSet"].split()),
            limits={name: _limit(key, int(said[key])) for key, name in LIMITS.items()},
            umask=said["UMask"],
            oom_score_adjust=said["OOMScoreAdjust"],
            hidden=tuple(path for key, paths in HIDDEN.items() if said.get(key) == "yes" for path in paths),
        )
    except KeyError as error:
        raise LabError(f"the unit has no {error.args[0]}", hint=f"see {UNIT}") from error


def _limit(key: str, value: int) -> int:
    return NICE_ZERO - value if key == "LimitNICE" else value


def attainable(limits: Mapping[str, int]) -> list[str]:
    """Return the arguments that set these limits, or what of them the machine lets root have: containers keep some."""
    found = []
    for name, value in limits.items():
        _, most = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))
        found.append(f"--{name}={value if most == resource.RLIM_INFINITY else min(value, most)}")
    return found


def user_of(address: str) -> int:
    """Return the number of the user, and of its group, that a host's agent runs as."""
    return USER_FIRST + int(address.rpartition(".")[2])


def group_of(root: Path, name: str) -> int:
    """Return the number of a group of a host.

    Args:
        root: of the host's files.
        name: of the group.

    Raises:
        LabError: the host has no such group.
    """
    for line in (root / "etc" / "group").read_text().splitlines():
        group, _, number, *_ = line.split(":")
        if group == name:
            return int(number)
    raise LabError(f"{root} has no group {name}")


def confined(argv: Sequence[str], unit: UnitSettings, directory: Path, user: int, groups: Iterable[int]) -> list[str]:
    """Return the command that runs a program of this machine as the unit runs the agent; it needs root.

    Args:
        argv: what to run; it becomes the process that is started.
        unit: what the unit says.
        directory: of the host, with `run`, `agent/state` and `upper`.
        user: that it runs as; its group has the same number.
        groups: that it is in besides.
    """
    # The checkout itself too: an editable installation may find it by a hook instead of `sys.path`.
    places = {*sys.path, sys.prefix, sys.base_prefix, str(UNIT.parents[1])} - {""}
    needed = [directory, *map(Path, sorted(places))]
    hidden = [path for path in unit.hidden if not directory.is_relative_to(path)]
    shown = outermost(path for path in needed if path.exists() and any(path.is_relative_to(top) for top in hidden))
    capabilities = [*unit.capabilities, *([] if is_readable(needed, hidden) else [READ_ALL])]
    bounding = [*unit.bounding, *capabilities[len(unit.capabilities) :]]
    words = [str(directory), unit.umask, unit.oom_score_adjust, "\n".join(hidden), "\n".join(map(str, shown))]
    unshared = ["unshare", "--mount", "--propagation", "private", "sh", "-eu", "-c", CONFINE, "confine", *words]
    identity = [f"--reuid={user}", f"--regid={user}", f"--groups={','.join(map(str, groups))}"]
    rights = [f"--inh-caps={_only(capabilities)}", f"--ambient-caps={_only(capabilities)}"]
    privileges = ["setpriv", *identity, *rights, f"--bounding-set={_only(bounding)}", "--no-new-privs"]
    return [*unshared, "prlimit", *attainable(unit.limits), *privileges, *argv]


def _only(capabilities: Sequence[str]) -> str:
    return ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities)])


def outermost(paths: Iterable[Path]) -> list[Path]:
    """Leave out what lies below another one."""
    found: list[Path] = []
    for path in sorted({path.resolve() for path in paths}):
        if not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found


def is_readable(paths: Iterable[Path], hidden: Sequence[str]) -> bool:
    """Tell whether a user who owns none of these directories can read them.

    A checkout below a closed home directory is readable, because that is hidden and made again with open permissions; a
    directory that is closed itself is not.

    Args:
        paths: to judge; those that do not exist are left out.
        hidden: directories that are hidden from the agent and made again.
    """
    for path in filter(Path.is_dir, paths):
        for part in (path, *path.parents):
            anew = part != path and any(part.is_relative_to(top) for top in hidden)
            if not anew and not part.stat().st_mode & stat.S_IXOTH:
                return False
    return True
