"""Hosts that take each other, or themselves, for somebody else: clocks, names, certificates."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from dwcp_migrate import pki
from dwcp_migrate.lab.hosts.agents import give
from tests.e2e.faults.stage import SIDES, Doctor, Side, Stage, fault

HOUR_S: Final = 3600

CLOCK: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
static long shift(void) { const char *said = getenv("CLOCK_AHEAD_S"); return said ? atol(said) : 0; }
int clock_gettime(clockid_t clock, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += shift();
    return failed;
}
time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}
"""
"""A wall clock that is wrong for one program: Python and OpenSSL read it through these two functions."""


def clock_ahead(directory: Path, seconds: int) -> dict[str, str]:
    """Return the environment of programs that read a wall clock which is ahead; its library is made in `directory`."""
    source, library = directory / "clock.c", directory / "clock.so"
    source.write_text(CLOCK)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_AHEAD_S": str(seconds)}


@contextmanager
def clock(stage: Stage, side: Side, ahead_s: int) -> Iterator[None]:
    """Have a side's agent read a wall clock that is ahead, or behind."""
    with stage.directory(side) as made:
        with stage.started_with(clock_ahead(made, ahead_s)):
            give(stage.host(side), made)
            stage.configure(side, {})
        yield


for _side, _other in (SIDES, SIDES[::-1]):
    for _ahead_s, _word in ((HOUR_S, "ahead of"), (-HOUR_S, "behind")):
        fault(
            f"{_side}-clock-{'ahead' if _ahead_s > 0 else 'behind'}",
            says="clocks differ" if (_side == "source") == (_ahead_s < 0) else "",
            doctor=Doctor(_other, "peer-", f"3600 s {_word} this host's"),
            clock_ahead_s=_ahead_s if _side == "source" else 0.0,
        )(partial(clock, side=_side, ahead_s=_ahead_s))


@fault(
    "source-named-otherwise", says="the source calls itself", doctor=Doctor("source", "certificate-name", "elsewhere")
)
@contextmanager
def source_named_otherwise(stage: Stage) -> Iterator[None]:
    stage.configure("source", {"name": "elsewhere.example.net"})
    yield


@fault(
    "destination-named-otherwise",
    says="the source calls this host",
    doctor=Doctor("source", "peer-", "it calls itself elsewhere.example.net"),
)
@contextmanager
def destination_named_otherwise(stage: Stage) -> Iterator[None]:
    stage.configure("destination", {"name": "elsewhere.example.net"})
    yield


@fault("source-in-capitals")
@contextmanager
def source_in_capitals(stage: Stage) -> Iterator[None]:
    stage.configure("source", {"name": stage.source.name.upper()})
    yield


@fault("peer-in-capitals")
@contextmanager
def peer_in_capitals(stage: Stage) -> Iterator[None]:
    peer = {"name": stage.destination.name.upper(), "addresses": [stage.destination.address]}
    stage.configure("source", {"peers": [peer]})
    yield


@fault("name-unset")
@contextmanager
def name_unset(stage: Stage) -> Iterator[None]:
    for side in SIDES:
        stage.configure(side, {"name": ""})
    yield


def paths(directory: Path, name: str) -> dict[str, str]:
    return {
        "ca": str(directory / "ca.pem"),
        "certificate": str(directory / f"{name}.pem"),
        "key": str(directory / f"{name}.key"),
    }


def issue_tomorrow(directory: Path, name: str) -> None:
    """Issue a certificate by a clock that is two days ahead."""
    program = "import pathlib, sys; from dwcp_migrate import pki; pki.issue(pathlib.Path(sys.argv[1]), sys.argv[2])"
    environment = {**os.environ, **clock_ahead(directory, 48 * HOUR_S)}
    subprocess.run([sys.executable, "-c", program, directory, name], env=environment, check=True)


@contextmanager
def certificate(stage: Stage, side: Side, kind: str) -> Iterator[None]:
    """Give a side's agent a certificate that the other one cannot accept."""
    own, host = stage.world.agent(stage.host(side)).config.parent, stage.host(side)
    with stage.directory(side) as directory:
        name = host.name
        if kind == "foreign":
            pki.create_authority(directory, name="somebody else")
        else:
            authority = stage.world.lab.directory / "authority"
            for file in ("ca.pem", "ca.key"):
                (directory / file).write_bytes((authority / file).read_bytes())
        if kind == "misnamed":
            name = "stranger"
        if kind == "early":
            issue_tomorrow(directory, name)
        else:
            pki.issue(directory, name, days=-1 if kind == "expired" else 10)
        changes: dict[str, Any] = paths(directory, name)
        if kind == "absent":
            changes["certificate"] = str(own / "nothing.pem")
        give(host, directory)
        stage.configure(side, {"tls": changes})
        yield


for _side in SIDES:
    for _kind, _check, _words in (
        ("foreign", "peer-", ""),
        ("expired", "certificate-host", "expired"),
        ("early", "certificate-host", "not valid yet"),
        ("misnamed", "certificate-name", "does not carry"),
        ("absent", "certificate-host", "No such file"),
    ):
        fault(
            f"{_side}-certificate-{_kind}",
            reason=("certificate", "unreachable"),
            says="passthrough",
            doctor=Doctor(_side, _check, _words),
        )(partial(certificate, side=_side, kind=_kind))


SPEAKS: Final = """\
from dwcp_migrate.protocol import control
control.VERSIONS = {versions}
"""
"""Run by an agent before anything of its own: it speaks other versions of the protocol."""


@contextmanager
def speaking(stage: Stage, side: Side, versions: tuple[int, ...]) -> Iterator[None]:
    """Have a side's agent be of a release that speaks other versions of the protocol."""
    with stage.directory(side) as made:
        (made / "sitecustomize.py").write_text(SPEAKS.format(versions=versions))
        give(stage.host(side), made)
        with stage.started_with({"PYTHONPATH": str(made)}):
            stage.configure(side, {})
        yield


for _side in SIDES:
    fault(f"{_side}-of-another-protocol", reason="version", says="What to do", doctor=Doctor("source", "peer-", ""))(
        partial(speaking, side=_side, versions=(2,))
    )
    fault(f"{_side}-of-a-newer-release")(partial(speaking, side=_side, versions=(1, 2)))
