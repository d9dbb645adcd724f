"""Hosts that take each other, or themselves, for somebody else: clocks, names, certificates."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from dwcp_migrate import pki
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


@contextmanager
def clock(stage: Stage, side: Side, ahead_s: int) -> Iterator[None]:
    """Have a side's agent read a wall clock that is ahead, or behind."""
    with tempfile.TemporaryDirectory() as made:
        source, library = Path(made) / "clock.c", Path(made) / "clock.so"
        source.write_text(CLOCK)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        os.environ.update({"LD_PRELOAD": str(library), "CLOCK_AHEAD_S": str(ahead_s)})
        try:
            stage.configure(side, {})
        finally:
            del os.environ["LD_PRELOAD"], os.environ["CLOCK_AHEAD_S"]
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


@contextmanager
def certificate(stage: Stage, side: Side, kind: str) -> Iterator[None]:
    """Give a side's agent a certificate that the other one cannot accept."""
    own, host = stage.world.agent(stage.host(side)).config.parent, stage.host(side)
    with tempfile.TemporaryDirectory() as made:
        directory, name = Path(made), host.name
        if kind == "foreign":
            pki.create_authority(directory, name="somebody else")
        else:
            authority = stage.world.lab.directory / "authority"
            for file in ("ca.pem", "ca.key"):
                (directory / file).write_bytes((authority / file).read_bytes())
        if kind == "misnamed":
            name = "stranger"
        pki.issue(directory, name, days=-1 if kind == "expired" else 10)
        changes: dict[str, Any] = paths(directory, name)
        if kind == "absent":
            changes["certificate"] = str(own / "nothing.pem")
        stage.configure(side, {"tls": changes})
        yield


for _side in SIDES:
    for _kind, _check, _words in (
        ("foreign", "peer-", ""),
        ("expired", "certificate-host", "expired"),
        ("misnamed", "certificate-name", "does not carry"),
        ("absent", "certificate-host", "No such file"),
    ):
        fault(
            f"{_side}-certificate-{_kind}",
            reason=("certificate", "unreachable"),
            says="passthrough",
            doctor=Doctor(_side, _check, _words),
        )(partial(certificate, side=_side, kind=_kind))
