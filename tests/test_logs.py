import io
import json

import pytest
import structlog
from structlog.typing import FilteringBoundLogger

from dwcp_migrate import logs


@pytest.fixture(autouse=True)
def _reset() -> None:
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(
    form: str = "json", level: str = "info", *, journald: bool = False
) -> tuple[io.StringIO, FilteringBoundLogger]:
    stream = io.StringIO()
    logs.configure(form, level, journald=journald, stream=stream)  # type: ignore[arg-type]
    return stream, logs.get_logger(component="agent")


def test_a_json_line_carries_time_level_component_and_context() -> None:
    stream, log = lines()
    with logs.bound(migration_id="1f2e", domain="web1"):
        log.info("migration started", peer="hv2")
    log.info("later")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first | {"timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "event": "migration started",
        "component": "agent",
        "migration_id": "1f2e",
        "domain": "web1",
        "peer": "hv2",
    }
    assert first["timestamp"].endswith("Z")
    assert "migration_id" not in second


def test_a_text_line_is_logfmt() -> None:
    stream, log = lines("text")
    log.warning("channel lost", reason="reset by peer")
    assert ' level=warning event="channel lost" component=agent reason="reset by peer"' in stream.getvalue()


def test_journald_gets_the_priority_in_front() -> None:
    stream, log = lines(journald=True)
    log.error("no")
    log.info("yes")
    assert [line[:4] for line in stream.getvalue().splitlines()] == ["<3>{", "<6>{"]


def test_lines_below_the_level_are_not_written() -> None:
    stream, log = lines(level="warning")
    log.info("no")
    log.debug("no")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("value", [b"\x00secret", bytearray(b"\x00secret"), memoryview(b"\x00secret")])
@pytest.mark.parametrize("nest", [lambda one: one, lambda one: [one], lambda one: {"deep": (one,)}])
def test_page_content_never_reaches_a_line(value: object, nest: object) -> None:
    stream, log = lines()
    log.info("odd", content=nest(value))  # type: ignore[operator]
    assert "secret" not in stream.getvalue()
    assert "<7 bytes>" in stream.getvalue()


def test_a_long_string_is_cut_at_its_limit() -> None:
    stream, log = lines()
    log.info("odd", at_limit="x" * logs.VALUE_CHARACTERS_MAX, past="x" * (logs.VALUE_CHARACTERS_MAX + 1))
    line = json.loads(stream.getvalue())
    assert line["at_limit"] == "x" * logs.VALUE_CHARACTERS_MAX
    assert line["past"] == "x" * logs.VALUE_CHARACTERS_MAX + "..."


def test_an_exception_is_one_line() -> None:
    stream, log = lines()
    try:
        int("broken")
    except ValueError:
        log.exception("failed")
    assert stream.getvalue().count("\n") == 1
    assert "ValueError: invalid literal" in json.loads(stream.getvalue())["exception"]


def test_a_level_that_is_set_later_counts_for_loggers_that_are_there() -> None:
    stream, log = lines()
    log.debug("not yet")
    logs.set_level("debug")
    log.debug("now")
    logs.set_level("error")
    log.info("no more")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["now"]


def test_a_level_changes_nothing_where_logging_is_not_configured() -> None:
    logs.set_level("debug")
    assert not structlog.is_configured()
