"""One judgement of `dwcp-migrate doctor`, and how it is made."""

from typing import Literal

import msgspec

Verdict = Literal["ok", "warn", "fail"]


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


def must(check: str, *, hold: bool, what: str, why: str, remedy: str) -> Check:
    """Judge something without which migrations fail or run unaccelerated."""
    return Check(id=check, verdict="ok" if hold else "fail", what=what, why=why, remedy="" if hold else remedy)


def should(check: str, *, hold: bool, what: str, why: str, remedy: str) -> Check:
    """Judge something without which migrations work, but not as well as they could."""
    return Check(id=check, verdict="ok" if hold else "warn", what=what, why=why, remedy="" if hold else remedy)
