"""Running the system's programs: one way to call them, one typed error when they fail.

The rule here: arguments are lists, output is captured, and what a failing program said ends up in the error's text.
"""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from dwcp_migrate.errors import LabError

TIMEOUT_S: Final = 120.0
"""Default bound of one command: the slowest that the lab runs without a bound of its own (virsh) answers in seconds."""

OUTPUT_CHARACTERS_MAX: Final = 4000
"""Part of a failing program's output that the error holds: its end, where the reason stands."""


def run_program(
    argv: Sequence[str],
    *,
    timeout_s: float = TIMEOUT_S,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it printed.

    Args:
        argv: the program and its arguments.
        timeout_s: longest run in seconds; the program is killed then.
        env: its whole environment; None inherits this process's.
        stdin: text for its standard input; None is an empty one.
        check: raise when it exits with another code than 0.

    Raises:
        LabError: it is not installed, did not end within `timeout_s`, or (with `check`) did not exit with 0.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=env,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not installed", hint="run `make setup`") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{' '.join(argv)}` did not end within {timeout_s:.0f} s") from error
    if check and done.returncode != 0:
        raise LabError(f"`{' '.join(argv)}` failed with {done.returncode}: {_end(done.stderr or done.stdout)}")
    return done


def require_programs(*programs: str) -> None:
    """Check that programs are installed.

    Raises:
        LabError: at least one is missing; all that are missing are named.
    """
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise LabError(f"not installed: {', '.join(missing)}", hint="run `make setup`")


def _end(text: str) -> str:
    text = text.strip()
    return text if len(text) <= OUTPUT_CHARACTERS_MAX else "... " + text[-OUTPUT_CHARACTERS_MAX:]
