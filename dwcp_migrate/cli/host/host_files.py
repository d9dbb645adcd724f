"""Facts that `doctor` reads without the agent: files under /proc and /etc/libvirt, the kernel's clock.

The rule: read, never change, never judge (`checks` judges); a fact that cannot be read is None or an empty string.
"""

import contextlib
import ctypes
import socket
import stat
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dwcp_migrate.hypervisor.qemu_conf import QEMU_CONF, integer_setting, text_setting

HOOK: Final = Path("etc/libvirt/hooks/qemu.d/50-dwcp-migrate")
DAEMONS: Final = ("libvirtd.conf", "virtqemud.conf", "virtproxyd.conf")
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_COUNT: Final = 5
"""Of libvirt where its files do not say."""

CONNTRACK: Final = Path("proc/sys/net/netfilter")
CONGESTION: Final = Path("proc/sys/net/ipv4/tcp_available_congestion_control")

RESOLVE_S_MAX: Final = 3.0
"""Time for all names together: `doctor` does not wait for a resolver that does not answer."""

NAMES_MAX: Final = 256
"""Names that are resolved, each on a thread of its own."""

TIME_ERROR: Final = 5
"""adjtimex(2): the clock is not synchronised."""

_TIMEX_BYTES: Final = 512
"""More than any `struct timex`; zeroed, so that `modes` is 0 and nothing is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFiles:
    """Files of the host that were read.

    Attributes:
        hook_path: where the hook should be.
        hook_problem: empty when it is there, executable and of root's; else what is not so.
        qemu_conf_readable: whether `qemu.conf` could be read (it is root's on most systems).
        port_min: `migration_port_min` of `qemu.conf`, None when it is not set there, as `port_max`.
        migration_host: name or address that this host tells others to migrate to, empty where libvirt tells its name.
        migration_address: where QEMU listens for migrations, empty where it listens everywhere.
        conntrack_count: connections tracked now, None without connection tracking in the kernel.
        conntrack_max: the limit on them.
        congestion_controls: those that the kernel offers.
        clock_synchronised: None when the kernel does not say.
        keepalive_s: by file of libvirt's, after how many silent seconds it ends a connection; None is never.
    """

    hook_path: str
    hook_problem: str
    qemu_conf_readable: bool
    port_min: int | None
    port_max: int | None
    conntrack_count: int | None
    conntrack_max: int | None
    congestion_controls: tuple[str, ...]
    clock_synchronised: bool | None
    migration_host: str = ""
    migration_address: str = ""
    keepalive_s: Mapping[str, float | None] = field(default_factory=dict)


def examine(root: Path = Path("/")) -> HostFiles:
    """Look at the host whose files are under `root`."""
    qemu_conf = _text(root / QEMU_CONF)
    return HostFiles(
        hook_path=str(Path("/") / HOOK),
        hook_problem=hook_problem(root / HOOK),
        qemu_conf_readable=qemu_conf is not None,
        port_min=integer_setting(qemu_conf or "", "migration_port_min"),
        port_max=integer_setting(qemu_conf or "", "migration_port_max"),
        migration_host=text_setting(qemu_conf or "", "migration_host"),
        migration_address=text_setting(qemu_conf or "", "migration_address"),
        conntrack_count=_number(root / CONNTRACK / "nf_conntrack_count"),
        conntrack_max=_number(root / CONNTRACK / "nf_conntrack_max"),
        congestion_controls=tuple((_text(root / CONGESTION) or "").split()),
        clock_synchronised=clock_synchronised(),
        keepalive_s=keepalives(root / QEMU_CONF.parent),
    )


def keepalives(directory: Path) -> dict[str, float | None]:
    """Return how long each of libvirt's files lets a connection be silent: `qemu.conf` rules those between hosts."""
    texts = {file: _text(directory / file) for file in (QEMU_CONF.name, *DAEMONS)}
    return {file: keepalive(text) for file, text in texts.items() if text is not None}


def keepalive(text: str) -> float | None:
    """Return after how many silent seconds a connection is ended, by a file of libvirt's; None is never."""
    interval, count = integer_setting(text, "keepalive_interval"), integer_setting(text, "keepalive_count")
    interval = KEEPALIVE_INTERVAL_S if interval is None else interval
    if interval <= 0:
        return None
    return float(interval * ((KEEPALIVE_COUNT if count is None else count) + 1))


def hook_problem(path: Path) -> str:
    """Say what is wrong with the installed hook; empty when nothing is."""
    try:
        found = path.stat()
    except PermissionError:
        return ""  # a hook that we may not look at is no finding; libvirtd runs as root
    except OSError:
        return "it is not there"
    if not found.st_mode & stat.S_IXUSR:
        return "it is not executable"
    if found.st_mode & stat.S_IWOTH:
        return "everyone may write it"
    return ""


def resolve_names(names: Iterable[str]) -> dict[str, frozenset[str]]:
    """Resolve names as libvirt would here, all at once; one that leads nowhere within `RESOLVE_S_MAX` is left out."""
    answers: dict[str, frozenset[str]] = {}

    def ask(name: str) -> None:
        with contextlib.suppress(OSError, UnicodeError):
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            answers[name] = frozenset(str(one[4][0]).partition("%")[0] for one in found)

    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in list(names)[:NAMES_MAX]]
    for thread in threads:
        thread.start()
    due = time.monotonic() + RESOLVE_S_MAX
    for thread in threads:
        thread.join(max(0.0, due - time.monotonic()))
    return dict(answers)


def clock_synchronised() -> bool | None:
    """Ask the kernel whether something disciplines its clock (adjtimex(2), read only)."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != TIME_ERROR


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text and text.strip().isdigit() else None
