"""Elements of HTML and SVG: the one place where text becomes markup, and is escaped."""

import html
from collections.abc import Iterable
from typing import Final

VOID: Final = frozenset({"br", "col", "hr", "meta"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | Markup | None
"""Text, which is escaped, markup, which is not, or nothing."""


def make_element(name: str, /, *children: Child, **attributes: object) -> Markup:
    """Make an element.

    Args:
        name: of the element.
        children: in order.
        attributes: by name; `class_` is `class`, `stroke_width` is `stroke-width`; None leaves one out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            words.append(f'{key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"')
    head = f"<{' '.join(words)}>"
    return Markup(head if name in VOID else f"{head}{join_markup(children)}</{name}>")


def join_markup(children: Iterable[Child]) -> Markup:
    """Put children one after the other; text is escaped."""
    parts = (child if isinstance(child, Markup) else html.escape(child) for child in children if child is not None)
    return Markup("".join(parts))


def table_of(
    header: Iterable[str], rows: Iterable[Iterable[Child]], numbers: Iterable[int] = (), label: str | None = None
) -> Markup:
    """Make a table that scrolls in itself where the screen is narrow.

    Args:
        header: of its columns.
        rows: cells.
        numbers: columns that are numbers, from 0; they stand to the right.
        label: its name; with one the keyboard can reach and scroll it.
    """
    right = frozenset(numbers)

    def cells(kind: str, row: Iterable[Child]) -> Markup:
        made = (make_element(kind, cell, class_="number" if at in right else None) for at, cell in enumerate(row))
        return make_element("tr", *made)

    body = make_element("tbody", *(cells("td", row) for row in rows))
    reach = {"tabindex": 0, "role": "region", "aria_label": label} if label else {}
    return make_element(
        "div", make_element("table", make_element("thead", cells("th", header)), body), class_="scroll", **reach
    )


def pairs_of(pairs: Iterable[tuple[str, Child]]) -> Markup:
    """Make a list of names and values; those without a value are left out."""
    shown = [make_element("div", make_element("dt", name), make_element("dd", value)) for name, value in pairs if value]
    return make_element("dl", *shown, class_="pairs")
