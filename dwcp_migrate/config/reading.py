"""Reader of the configuration file, one for `config check`, the agent's start, its reload and the Ansible role.

All faults are reported at once, each with file, line, key, value and remedy.
"""

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from dwcp_migrate.config.model import Config
from dwcp_migrate.config.places import key_lines, line_of
from dwcp_migrate.config.rules import faults
from dwcp_migrate.config.shape import checked
from dwcp_migrate.errors import ConfigError, ConfigFault

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Largest file; 10,000 peers take about a tenth of it."""

_SEE: Final = "see docs/configuration.md"


def parse(text: str, source: str = "configuration") -> Config:
    """Read a configuration from TOML text.

    Args:
        text: the file's.
        source: the file, named in errors.

    Raises:
        ConfigError: not TOML, an unknown key, a wrong type, a value out of range or one that breaks a rule; it names
            line, key and value of all that is wrong.
    """
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _refused(source, [_no_toml(text, str(error))]) from error
    plain, found = checked(raw)
    if not found:
        try:
            config = msgspec.convert(plain, Config, dec_hook=_path_in_toml)
        except msgspec.ValidationError as error:  # what `checked` does not know of
            raise ConfigError(f"{source}: {error}", hint=_SEE) from error
        found = faults(config)
        if not found:
            return config
    lines = key_lines(text)
    raise _refused(source, [replace(fault, line=line_of(fault.key, lines)) for fault in found])


def load(path: Path) -> Config:
    """Read the configuration file.

    Raises:
        ConfigError: unreadable, or as `parse` says.
    """
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        hint = "name another file: --config FILE, or `dwcp-migrate config check FILE`"
        if isinstance(error, PermissionError):
            hint = "run it as root, or as a member of the group dwcp-migrate"
        raise ConfigError(f"cannot read {path}: {error.strerror or error}", hint=hint) from error
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"{path} is larger than {FILE_BYTES_MAX >> 20} MiB", hint="it is no configuration")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        fault = ConfigFault("the file", content[error.start : error.end], "it is no UTF-8", "save it as UTF-8", line)
        raise _refused(str(path), [fault]) from error
    return parse(text, str(path))


def _path_in_toml(value: type, raw: object) -> object:
    if value is Path and isinstance(raw, str):
        return Path(raw)
    raise TypeError(f"unsupported type {value}")


def _refused(source: str, found: list[ConfigFault]) -> ConfigError:
    placed = [f"{source}:{fault.line}: {fault}" if fault.line else f"{source}: {fault}" for fault in found]
    if len(found) == 1:
        return ConfigError(placed[0], hint=found[0].hint or _SEE, faults=found)
    each = [f"{text} ({fault.hint})" if fault.hint else text for text, fault in zip(placed, found, strict=True)]
    return ConfigError("\n  ".join([f"{source}: {len(found)} keys are wrong", *each]), hint=_SEE, faults=found)


def _no_toml(text: str, message: str) -> ConfigFault:
    """Say where a file stops being TOML, and what it may be instead."""
    found = re.search(r"\(at (?:line (\d+), column \d+|end of document)\)", message)
    lines = text.split("\n")
    line = int(found[1]) if found and found[1] else max(1, len(text.rstrip().split("\n")))
    stands = lines[line - 1].strip() if line <= len(lines) else ""
    key = stands.partition("=")[0].strip() or "the file"
    why = re.sub(r" ?\(at .*\)$", "", message) or "it is nested too deeply"
    return ConfigFault(key[:60], stands[:60], f"no TOML: {why}", _toml_hint(text, stands, why), line)


def _toml_hint(text: str, stands: str, why: str) -> str:
    hints: tuple[tuple[bool, str], ...] = (
        (text.startswith("\ufeff"), "the file begins with a byte order mark: save it as UTF-8 without one"),
        (text.lstrip().startswith("{"), "this looks like JSON; TOML writes key = value, one a line"),
        ("overwrite" in why, "the key stands twice in its table: leave one out"),
        ("twice" in why, "the table stands twice: put its keys below one heading"),
        (_YAML.match(stands) is not None, "this looks like YAML; TOML writes key = value"),
        (stands.count('"') % 2 == 1, "a quotation mark is missing"),
        ("=" in stands and stands.partition("=")[2].strip() in _PYTHON, "TOML writes true and false"),
        ("Invalid value" in why, "text stands in quotation marks, as do numbers with a unit; true and false do not"),
    )
    return next((hint for holds, hint in hints if holds), _SEE)


_YAML: Final = re.compile(r"(-\s+)?[A-Za-z_]+:(\s|$)")
_PYTHON: Final = {"True", "False", "yes", "no", "on", "off", "null", "None"}
