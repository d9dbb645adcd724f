"""Log lines of the agent and its data processes: structlog, JSON or text, one line each on standard output.

The rule: a line says what happened to which migration; it never carries page content, keys or tokens, so `bytes` are
replaced by their length wherever they appear. Under systemd (`JOURNAL_STREAM` is set) a text line begins with the
priority prefix `<N>` of sd-daemon(3); a JSON line carries it as `"priority"`, beside the prefix that journald strips.

    configure(...) once per process;  log = get_logger(component="agent");  with bound(migration_id=..., domain=...):
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""syslog(3) priorities of structlog's levels."""

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}

VALUE_CHARACTERS_MAX: Final = 1000
"""Longest string of one field: peers and QEMU supply some of them."""


def configure(
    form: Literal["json", "text"],
    level: Literal["debug", "info", "warning", "error"],
    *,
    journald: bool,
    stream: TextIO,
) -> None:
    """Set up logging for this process.

    Args:
        form: JSON lines or text.
        level: lowest level that is written.
        journald: prefix each line with its priority; the caller knows `JOURNAL_STREAM`.
        stream: where lines go, normally standard output.
    """
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            _Rendered(renderer, journald=journald),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,  # a reload may change the level
    )


def set_level(level: Literal["debug", "info", "warning", "error"]) -> None:
    """Set the lowest level that is written; without effect in a process that has not configured logging."""
    if structlog.is_configured():
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]))


def get_logger(**context: str) -> FilteringBoundLogger:
    """Return a logger that adds `context` to each line, for instance `component="agent"`."""
    logger: FilteringBoundLogger = structlog.get_logger(**context)
    return logger


@contextmanager
def bound(**context: str) -> Iterator[None]:
    """Add fields such as `migration_id` and `domain` to all lines of this task while the block runs."""
    with structlog.contextvars.bound_contextvars(**context):
        yield


def redact(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Replace bytes by their length and cut long strings: nothing of a guest reaches a log by mistake.

    Args:
        logger: not used; structlog passes it to every processor.
        name: of the method that logs; not used either.
        event: fields of the line.

    Returns:
        The same fields, with strings of at most `VALUE_CHARACTERS_MAX` characters.
    """
    del logger, name
    return {key: _redacted(value) for key, value in event.items()}


def _redacted(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, str) and len(value) > VALUE_CHARACTERS_MAX:
        return value[:VALUE_CHARACTERS_MAX] + "..."
    if isinstance(value, dict):
        return {key: _redacted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(inner) for inner in value]
    return value


class _Rendered:
    """Renders the line and puts journald's priority before it."""

    def __init__(self, renderer: Any, *, journald: bool) -> None:
        self._renderer = renderer
        self._journald = journald

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> str:
        priority = PRIORITIES.get(str(event.get("level")), PRIORITIES["info"])
        line: str = self._renderer(logger, name, event)
        return f"<{priority}>{line}" if self._journald else line


def standard_output() -> TextIO:
    """Return the stream that the service logs to."""
    return sys.stdout
