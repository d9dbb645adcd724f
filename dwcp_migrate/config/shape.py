"""Types of the configuration's keys: all faults at once, each with the allowed values and the nearest known key.

checked(raw) -> (raw with quantities as numbers, [ConfigFault])
"""

import math
import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Final

import msgspec
from msgspec import inspect

from dwcp_migrate.config.model import Config
from dwcp_migrate.config.quantities import EXAMPLES, UNITS, number_of, unit_of
from dwcp_migrate.errors import ConfigFault

ALIKE_MIN: Final = 0.6
"""Similarity from which a key is taken for a misspelt other one."""


def checked(raw: dict[str, Any]) -> tuple[dict[str, Any], list[ConfigFault]]:
    """Judge the types of a whole file.

    Returns:
        The file with quantities as numbers in their keys' units, and its faults; use the first only without faults.
    """
    faults: list[ConfigFault] = []
    plain = _Walk(faults).value(raw, inspect.type_info(Config), "")
    return plain, faults


class _Walk:
    """One walk over a file, along the types."""

    def __init__(self, faults: list[ConfigFault]) -> None:
        self._faults = faults

    def value(self, raw: Any, kind: inspect.Type, path: str, default: object = msgspec.NODEFAULT) -> Any:
        """Judge a value and all within it; returns it with quantities as numbers."""
        if isinstance(kind, inspect.StructType):
            return self._table(raw, kind, path)
        if isinstance(kind, inspect.ListType | inspect.VarTupleType):
            return self._list(raw, kind, path)
        if isinstance(kind, inspect.DictType):
            return self._words(raw, kind, path)
        return self._scalar(raw, kind, path, default)

    def _fault(self, path: str, value: object, why: str, hint: str) -> None:
        self._faults.append(ConfigFault(path or "the file", value, why, hint))

    def _table(self, raw: Any, kind: inspect.StructType, path: str) -> Any:
        if not isinstance(raw, dict):
            self._fault(path, raw, "it must be a table", f"write [{path}], and its keys below")
            return raw
        known = {field.encode_name: field for field in kind.fields}
        for name in raw.keys() - known.keys():
            self._fault(_joined(path, name), raw[name], "there is no such key", _nearest(path, name, list(known)))
        for name, field in known.items():
            if field.required and name not in raw:
                self._fault(_joined(path, name), None, "it is missing", f"add {name} = {_example(field.type)}")
        return {
            name: self.value(raw[name], known[name].type, _joined(path, name), _default(known[name]))
            for name in raw
            if name in known
        }

    def _list(self, raw: Any, kind: inspect.ListType | inspect.VarTupleType, path: str) -> Any:
        of_tables = isinstance(kind.item_type, inspect.StructType)
        if not isinstance(raw, list):
            how = f"write [[{path}]] once for each, with two brackets" if of_tables else f"write {_example(kind)}"
            self._fault(path, raw, f"it must be a list{' of tables' if of_tables else ''}", how)
            return raw
        if len(raw) < (kind.min_length or 0):
            self._fault(path, raw, "it is empty", f"write {_example(kind)}")
        if kind.max_length is not None and len(raw) > kind.max_length:
            self._fault(path, raw, f"it has {len(raw)} elements", f"at most {kind.max_length} are allowed")
        return [self.value(one, kind.item_type, f"{path}[{place}]") for place, one in enumerate(raw)]

    def _words(self, raw: Any, kind: inspect.DictType, path: str) -> Any:
        if not isinstance(raw, dict):
            self._fault(path, raw, "it must be a table", f'write [{path}], and below it lines as rack = "r1"')
            return raw
        if kind.max_length is not None and len(raw) > kind.max_length:
            self._fault(path, raw, f"it has {len(raw)} keys", f"at most {kind.max_length} are allowed")
        for name in raw:
            self._scalar(name, kind.key_type, f"{path}.{name}", msgspec.NODEFAULT)
        return {name: self.value(one, kind.value_type, f"{path}.{name}") for name, one in raw.items()}

    def _scalar(self, raw: Any, kind: inspect.Type, path: str, default: object) -> Any:
        unit = unit_of(path)
        numeric = isinstance(kind, inspect.IntType | inspect.FloatType)
        value = raw
        if unit and numeric and isinstance(raw, str) and raw.strip():
            value = number_of(raw, unit)
        if value is not None and _fits(value, kind):
            return value
        hint = f"without the key it is {_shown(default)}" if default is not msgspec.NODEFAULT else ""
        if value is None and unit:
            hint = f"units are {', '.join(UNITS[unit])}"
        self._fault(path, raw, f"it must be {allowed(kind, path)}", hint or "correct it")
        return raw


def allowed(kind: inspect.Type, path: str = "") -> str:
    """Say which values a key of a type may have, for the message of a fault.

    Args:
        kind: type of the key, as msgspec inspects it.
        path: of the key, by whose suffix examples with units are shown; empty shows none.
    """
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.LiteralType):
        return f"one of {', '.join(_shown(value) for value in kind.values)}"
    if isinstance(kind, inspect.UnionType):
        return " or ".join(allowed(one) for one in kind.types)
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        unit = unit_of(path)
        number = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
        return f"{number}{_range(kind)}{f', {EXAMPLES[unit]}' if unit else ''}"
    if isinstance(kind, inspect.StrType):
        return f"text{_form(kind)}"
    return "the path of a file or directory, in quotes"


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    low = f" from {kind.ge}" if kind.ge is not None else f" above {kind.gt}" if kind.gt is not None else ""
    high = f" to {kind.le}" if kind.le is not None else f" below {kind.lt}" if kind.lt is not None else ""
    return f"{low}{high}"


_FORMS: Final = {
    "^[0-9a-f]{64}$": " of 64 hexadecimal digits in lower case",
    r"^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?$": " of a host name, or of all below one as *.example.net",
    "^([01][0-9]|2[0-3]):[0-5][0-9]$": ' of hours and minutes, as "08:00"',
    "^[^:]*$": " of 1 to 128 characters without a colon",
    "^([0-9a-f]{32})?$": " of 32 hexadecimal digits in lower case",
    "^/[A-Za-z0-9._/-]*[A-Za-z0-9._-]$": " of letters, digits and ./_- that begins with a slash and ends in none",
}
"""Meaning of the model's patterns, for messages."""


def _form(kind: inspect.StrType) -> str:
    if kind.pattern:
        return _FORMS.get(kind.pattern, f" that matches {kind.pattern}")
    if kind.min_length:
        return f" of {kind.min_length} to {kind.max_length} characters"
    return f" of at most {kind.max_length} characters" if kind.max_length else " in quotes"


def _fits(value: object, kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.UnionType):
        return any(_fits(value, one) for one in kind.types)
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        types = int | float if isinstance(kind, inspect.FloatType) else int
        return isinstance(value, types) and not isinstance(value, bool) and _within(value, kind)
    if isinstance(kind, inspect.BoolType):
        return isinstance(value, bool)
    if isinstance(kind, inspect.LiteralType):
        return isinstance(value, str) and value in kind.values
    return isinstance(value, str) and (not isinstance(kind, inspect.StrType) or _spelt(value, kind))


def _within(value: float, kind: inspect.IntType | inspect.FloatType) -> bool:
    return (
        math.isfinite(value)
        and (kind.ge is None or value >= kind.ge)
        and (kind.gt is None or value > kind.gt)
        and (kind.le is None or value <= kind.le)
        and (kind.lt is None or value < kind.lt)
    )


def _spelt(value: str, kind: inspect.StrType) -> bool:
    short_enough = kind.max_length is None or len(value) <= kind.max_length
    return (
        short_enough
        and len(value) >= (kind.min_length or 0)
        and (not kind.pattern or bool(re.search(kind.pattern, value)))
    )


def _nearest(path: str, name: str, here: list[str]) -> str:
    """Suggest a key: a similar one of this table, the same or a similar one of another, or all of this table."""
    if alike := get_close_matches(name, here, n=1, cutoff=ALIKE_MIN):
        return f"did you mean {_joined(path, alike[0])}?"
    places = _tables()
    for table, keys in places.items():
        if name in keys and table:
            return f"it is a key of [{table}]"
        if name in keys:
            return "it belongs above the first [table]: what follows one is a part of it"
    for table, keys in places.items():
        if alike := get_close_matches(name, keys, n=1, cutoff=ALIKE_MIN):
            return f"did you mean {_joined(table, alike[0])}?"
    return f"known here: {', '.join(here)}"


def _tables() -> dict[str, list[str]]:
    return dict(_tables_of(inspect.type_info(Config), ""))


def _tables_of(kind: inspect.Type, path: str) -> Iterator[tuple[str, list[str]]]:
    if isinstance(kind, inspect.ListType | inspect.VarTupleType):
        kind = kind.item_type
    if isinstance(kind, inspect.StructType):
        yield path, [field.encode_name for field in kind.fields]
        for field in kind.fields:
            yield from _tables_of(field.type, _joined(path, field.encode_name))


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _default(field: inspect.Field) -> object:
    return field.default if isinstance(field.default, str | int | float) else msgspec.NODEFAULT


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _example(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.ListType | inspect.VarTupleType):
        return '["...", "..."]'
    return '"..."'
