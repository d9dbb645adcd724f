"""Lines of the keys in a TOML file, for errors; tomllib tells no lines, so each statement is parsed by itself.

key_lines(text) == {"link": 3, "link.port": 4, "peers[0]": 6, "peers[0].name": 7}
"""

import re
import tomllib
from collections import defaultdict
from typing import Any, Final

STATEMENT_LINES_MAX: Final = 500
"""Longest statement whose keys get a line; each further line costs one more parse."""


def key_lines(text: str) -> dict[str, int]:
    """Find on which line each key and table of a file begins.

    Args:
        text: the whole file; where it stops being TOML, only the lines before that are found.

    Returns:
        Lines from 1, by the paths that errors name: `peers[1].addresses`.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    found: dict[str, int] = {}
    tables: dict[str, int] = defaultdict(lambda: -1)
    inside, at = "", 0
    while at < len(lines):
        statement, length = _statement(lines, at)
        if lines[at].lstrip().startswith("["):
            inside = _table(statement, tables)
            found.setdefault(inside, at + 1)
        else:
            for path in _paths(statement, inside):
                found.setdefault(path, at + 1)
        at += length
    return found


def line_of(path: str, lines: dict[str, int]) -> int:
    """Find the line of a key, or of the nearest table around it that the file has.

    Args:
        path: of a key, as `peers[1].addresses`.
        lines: of the file's keys, as `key_lines` returns them.

    Returns:
        A line from 1; 0 where the file has neither the key nor a table around it.
    """
    while path and path not in lines:
        path = re.sub(r"(\.[^.\[]*|\[[^\]]*\]|^[^.\[]*)$", "", path)
    return lines.get(path, 0)


def _statement(lines: list[str], at: int) -> tuple[dict[str, Any], int]:
    """Read the statement that begins on a line, and say how many lines it takes."""
    for length in range(1, min(STATEMENT_LINES_MAX, len(lines) - at) + 1):
        try:
            return tomllib.loads("\n".join(lines[at : at + length])), length
        except (tomllib.TOMLDecodeError, RecursionError):
            continue
    return {}, 1


def _table(statement: dict[str, Any], counts: dict[str, int]) -> str:
    """Name the table that a heading opens; each `[[heading]]` counts one up."""
    path, inside = "", statement
    while inside:
        ((name, value),) = inside.items()
        path = f"{path}.{name}" if path else name
        if isinstance(value, list):
            counts[path] += 1
            return f"{path}[{counts[path]}]"
        if path in counts:
            path = f"{path}[{counts[path]}]"
        inside = value
    return path


def _paths(value: object, path: str) -> list[str]:
    """Name a value and all within it."""
    if isinstance(value, dict):
        within = [(f"{path}.{name}" if path else name, one) for name, one in value.items()]
    elif isinstance(value, list):
        within = [(f"{path}[{place}]", one) for place, one in enumerate(value)]
    else:
        return []
    return [each for inner, one in within for each in (inner, *_paths(one, inner))]
