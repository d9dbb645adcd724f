"""The failure of a command as `--json` prints it; apart from other answers, so that an error loads nothing more."""

import msgspec


class CommandFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A command that failed, on standard output under `--json`.

    Attributes:
        error: what happened.
        hint: what to do about it, or empty.
        kind: the error's class, as `agent-unreachable`; `usage` for wrong usage, `internal` for a fault of ours.
        exit_code: of the command.
        report: the file to report, where it is a fault of ours.
    """

    error: str
    hint: str = ""
    kind: str
    exit_code: int
    report: str = ""
