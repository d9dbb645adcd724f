"""Surroundings of an agent on its host: libvirt and its hook, disks, the fleet's state."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from dwcp_migrate.lab import commands
from dwcp_migrate.lab.guest import GuestOptions, LabGuest
from tests.e2e.faults.stage import SIDES, Doctor, Side, Stage, fault

HOOKS = "etc/libvirt/hooks/qemu.d"
HOOK = "50-dwcp-migrate"


@contextmanager
def without_hook(stage: Stage) -> Iterator[None]:
    """Take the destination's hook away; libvirt runs every executable in the directory."""
    hook = stage.destination.namespace.root / HOOKS / HOOK
    aside = hook.with_name("aside")
    hook.rename(aside)
    aside.chmod(0o644)
    try:
        yield
    finally:
        aside.chmod(0o755)
        aside.rename(hook)


fault("hook-missing", doctor=Doctor("destination", "hook-installed", ""))(without_hook)


@fault("hook-not-executable", doctor=Doctor("destination", "hook-installed", "not executable"))
@contextmanager
def hook_not_executable(stage: Stage) -> Iterator[None]:
    hook = stage.destination.namespace.root / HOOKS / HOOK
    hook.chmod(0o644)
    try:
        yield
    finally:
        hook.chmod(0o755)


@fault(
    "hook-and-libvirt-unheard", reason="not-announced", says="hook", doctor=Doctor("destination", "libvirt", "not used")
)
@contextmanager
def unheard(stage: Stage) -> Iterator[None]:
    stage.configure("destination", {"libvirt_uri": ""})
    with without_hook(stage):
        yield


@contextmanager
def another_hook(stage: Stage, text: str) -> Iterator[None]:
    """Put another hook beside the agent's, as other software does; it runs first."""
    path = stage.destination.namespace.root / HOOKS / "10-another"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    try:
        yield
    finally:
        path.unlink()


fault("another-hook")(partial(another_hook, text="cat > /dev/null"))
fault("another-hook-is-slow")(partial(another_hook, text="sleep 3"))


@fault("hook-socket-gone", doctor=None)
@contextmanager
def hook_socket_gone(stage: Stage) -> Iterator[None]:
    (stage.destination.run_directory / "hook.sock").unlink()
    stage.world.configure({}, stage.source)
    yield
    stage.configure("destination", {})


@contextmanager
def configured(stage: Stage, side: Side, changes: Mapping[str, Any]) -> Iterator[None]:
    stage.configure(side, changes)
    yield


for _side in SIDES:
    fault(f"{_side}-without-libvirt", doctor=Doctor(_side, "libvirt", "not used"))(
        partial(configured, side=_side, changes={"libvirt_uri": ""})
    )
    fault(f"{_side}-libvirt-unreachable", doctor=Doctor(_side, "libvirt", "qemu:///system?socket=/nowhere"))(
        partial(configured, side=_side, changes={"libvirt_uri": "qemu:///system?socket=/nowhere"})
    )


@contextmanager
def state_directory(stage: Stage, side: Side, kind: str) -> Iterator[None]:
    """Have a side's agent find a state directory that it cannot write: `full`, `read-only`, or `foreign`."""
    agent = stage.world.agent(stage.host(side))
    agent.stop()
    options = {"full": "size=4k", "read-only": "ro", "foreign": "mode=755"}[kind]
    commands.run_program(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(agent.state)], timeout_s=10, check=True)
    try:
        if kind == "full":
            (agent.state / "filler").write_bytes(bytes(4096))
        stage.configure(side, {})
        yield
        stage.world.agent(stage.host(side)).stop()
    finally:
        commands.run_program(["umount", "--lazy", str(agent.state)], timeout_s=10, check=True)
        stage.configure(side, {})


for _side in SIDES:
    for _kind, _row, _words in (
        ("full", "disk-full", "No space"),
        ("read-only", "disk-read-only", "Read-only"),
        ("foreign", "state-unwritable", "Permission denied"),
    ):
        fault(f"{_side}-{_row}", doctor=Doctor(_side, "history", _words))(
            partial(state_directory, side=_side, kind=_kind)
        )


@contextmanager
def libvirtd_restarted(stage: Stage, side: Side) -> Iterator[None]:
    stage.host(side).restart_libvirtd()
    yield
    stage.configure(side, {})  # a connection that was made again holds a descriptor less than the first one


for _side in SIDES:
    fault(f"{_side}-libvirtd-restarted")(partial(libvirtd_restarted, side=_side))


@fault("another-guest-hangs")
@contextmanager
def another_guest_hangs(stage: Stage) -> Iterator[None]:
    """A second guest at the source whose QEMU answers no monitor, with a call that waits for it."""
    guest = LabGuest(GuestOptions(name="hung", memory_mib=128, fill_mib=1))
    guest.define(stage.source)
    pid = int(stage.source.run(["cat", "/run/libvirt/qemu/hung.pid"]).stdout)
    stage.source.run(["kill", "-STOP", str(pid)])
    waiting = stage.source.popen(["virsh", "dommemstat", "hung"])
    try:
        yield
    finally:
        stage.source.run(["kill", "-KILL", str(pid)])
        waiting.communicate(timeout=60)
        stage.source.wait_gone("hung")


@fault("fleet-without-quorum", says="point-to-point: no majority")
@contextmanager
def without_quorum(stage: Stage) -> Iterator[None]:
    """Name voters of which most do not exist."""
    for side in SIDES:
        peer = stage.destination if side == "source" else stage.source
        peers = [{"name": peer.name, "addresses": [peer.address]}]
        peers += [{"name": f"ghost{number}", "addresses": [f"10.77.0.{200 + number}"]} for number in (1, 2)]
        voters = [stage.host(side).name, "ghost1", "ghost2"]
        stage.configure(side, {"peers": peers, "coordination": {"voters": voters, "timeout_s": 1.0}})
    yield
