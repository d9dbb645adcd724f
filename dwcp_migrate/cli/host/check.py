"""One judgement of `dwcp-migrate doctor`, and the functions that make it."""

from typing import Final, Literal

import click
import msgspec

from dwcp_migrate.cli.support import output

Verdict = Literal["ok", "warn", "fail"]

EXIT_FAILED: Final = 1

MARKS: Final = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One judgement.

    Attributes:
        id: stable name, for scripts.
        what: what was found.
        why: why it matters.
        remedy: what to do; empty when nothing has to be done.
    """

    id: str
    verdict: Verdict
    what: str
    why: str
    remedy: str = ""


def required_check(check: str, *, hold: bool, what: str, why: str, remedy: str) -> Check:
    """Judge a condition without which migrations fail or run unaccelerated.

    Args:
        check: its id, stable for scripts.
        hold: whether it holds.
        what: the finding, for people.
        why: what depends on it.
        remedy: shown where it does not hold.
    """
    return Check(id=check, verdict="ok" if hold else "fail", what=what, why=why, remedy="" if hold else remedy)


def advised_check(check: str, *, hold: bool, what: str, why: str, remedy: str) -> Check:
    """See `required_check`; without this condition migrations work, but not as well as they could."""
    found = required_check(check, hold=hold, what=what, why=why, remedy=remedy)
    return found if hold else msgspec.structs.replace(found, verdict="warn")


def worst(checks: list[Check]) -> Verdict:
    """Return the gravest verdict."""
    verdicts = {check.verdict for check in checks}
    return "fail" if "fail" in verdicts else "warn" if "warn" in verdicts else "ok"


def render_check(check: Check) -> str:
    """Lay one check out; what is not ok also says why it matters and what to do."""
    mark, colour = MARKS[check.verdict]
    lines = [f"{click.style(mark, fg=colour) if output.in_colour() else mark}  {check.id}: {check.what}"]
    if check.verdict != "ok":
        lines.append(f"        why: {check.why}")
    if check.remedy:
        lines.append(f"        do:  {check.remedy}")
    return "\n".join(lines)
