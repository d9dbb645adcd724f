"""Pictures of a report as inline SVG, with their words beside them as HTML so that these never shrink with the screen.

The rule: a picture is stretched to the width that there is; lines keep their width, text its size. Colours are those of
the page's style, and a legend names each.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from math import floor, log10
from typing import Final, NamedTuple

from dwcp_migrate.cli.support import output
from dwcp_migrate.pages.markup import Child, Markup, make_element

WIDTH: Final = 1000
HEIGHT: Final = 100
TICKS: Final = 5
"""About as many steps on an axis; more do not fit on a phone."""

Say = Callable[[float], str]
Point = tuple[float, float]


class Curve(NamedTuple):
    """A line: `points` of time and value, in the order of time; `is_dashed` sets it off without colour."""

    name: str
    colour: int
    points: Sequence[Point]
    is_dashed: bool = False


class Scale(NamedTuple):
    """Words for a value, and the unit in which its axis has round numbers."""

    say: Say
    unit: float = 1.0


class Span(NamedTuple):
    """A piece of time or of a whole, with the words that a pointer over it is told."""

    name: str
    colour: int
    size: float
    words: str


class Layer(NamedTuple):
    """One of several shares that lie on each other: a share, 0 to 1, for each step."""

    name: str
    colour: int
    shares: Sequence[float]


def colour_of(number: int) -> str:
    """The colour of a series, as the style has it."""
    return f"var(--c{number % 8})"


def nice_step(largest: float, steps: int = TICKS) -> float:
    """The step of an axis: 1, 2 or 5 times a power of ten.

    Args:
        largest: value that it has to reach.
        steps: about as many of them.
    """
    rough = max(largest, 1e-9) / steps
    power = 10.0 ** floor(log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)


def _ticks(largest: float) -> list[float]:
    step = nice_step(largest)
    return [step * number for number in range(int(largest / step + 1e-9) + 1)]


def _x(at: float, end: float) -> float:
    return round(WIDTH * at / end, 2) if end else 0.0


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "0%"


def _frame(shapes: Iterable[Child], words: Iterable[Child], label: str, height: int) -> Markup:
    picture = make_element(
        "svg", *shapes, viewBox=f"0 0 {WIDTH} {HEIGHT}", preserveAspectRatio="none", role="img", aria_label=label
    )
    return make_element("div", picture, *words, class_="plot", style=f"--height:{height}px")


def _time_words(end: float) -> list[Markup]:
    ticks = [at for at in _ticks(end) if at < 0.93 * end]
    words = [make_element("i", output.duration(at), class_="x", style=f"left:{_percent(at, end)}") for at in ticks]
    return [*words, make_element("i", output.duration(end), class_="x last", style="left:100%")]


def _marks(marks: Sequence[tuple[float, str]], end: float) -> tuple[list[Markup], list[Markup]]:
    lines = [
        make_element("line", x1=_x(at, end), x2=_x(at, end), y1=0, y2=HEIGHT, class_="pass")
        for at, _ in marks
        if at <= end
    ]
    words, free_from = [], 0.0
    for at, name in marks:
        if free_from <= at <= end:
            words.append(make_element("i", name, class_="mark", style=f"left:{_percent(at, end)}"))
            free_from = at + end / 8
    return lines, words


def curves(
    series: Sequence[Curve],
    end: float,
    *,
    scale: Scale,
    label: str,
    marks: Sequence[tuple[float, str]] = (),
    height: int = 190,
) -> Markup:
    """Draw lines over time, from 0 to `end`.

    Args:
        series: the lines.
        end: of the time axis, in seconds.
        scale: of the values.
        label: what the picture shows, for those who do not see it.
        marks: moments to be marked, with a word each; words that would lie on each other are left out.
        height: in pixels.
    """
    largest = max((value for curve in series for _, value in curve.points), default=0.0) or 1.0
    step = scale.unit * nice_step(largest / scale.unit)
    top = step * -(-largest // step)
    levels = [step * number for number in range(int(top / step + 1e-9) + 1)]
    grid = [
        make_element("line", x1=0, x2=WIDTH, y1=_y(level, top), y2=_y(level, top), class_="grid")
        for level in levels[1:]
    ]
    lines, names = _marks(marks, end)
    drawn = [
        make_element(
            "polyline",
            points=" ".join(f"{_x(at, end)},{_y(value, top)}" for at, value in curve.points),
            class_="curve",
            stroke=colour_of(curve.colour),
            stroke_dasharray="6 4" if curve.is_dashed else None,
        )
        for curve in series
    ]
    words = [
        make_element("i", scale.say(level), class_="y", style=f"bottom:{_percent(level, top)}") for level in levels
    ]
    return _frame([*grid, *lines, *drawn], [*words, *_time_words(end), *names], label, height)


def _y(value: float, top: float) -> float:
    return round(HEIGHT * (1 - value / top), 2)


def layers(edges: Sequence[float], series: Sequence[Layer], *, label: str, height: int = 120) -> Markup:
    """Draw shares that add up to the whole, step by step.

    Args:
        edges: of the steps, in seconds: one more than there are steps.
        series: the layers, the lowest first.
        label: what the picture shows.
        height: in pixels.
    """
    end = edges[-1]
    shapes = []
    for step, (begin, until) in enumerate(pairwise(edges)):
        low = 0.0
        for layer in series:
            share = layer.shares[step]
            if share <= 0:
                continue
            told = f"{output.duration(begin)} to {output.duration(until)}: {layer.name} {share * 100:.0f} %"
            shapes.append(
                make_element(
                    "rect",
                    make_element("title", told),
                    x=_x(begin, end),
                    width=round(_x(until, end) - _x(begin, end), 2),
                    y=round(HEIGHT * (1 - low - share), 2),
                    height=round(HEIGHT * share, 2),
                    fill=colour_of(layer.colour),
                )
            )
            low += share
    words = [make_element("i", f"{part} %", class_="y", style=f"bottom:{part}%") for part in (0, 50, 100)]
    return _frame(shapes, [*words, *_time_words(end)], label, height)


def legend(names: Iterable[tuple[str, int]]) -> Markup:
    """Name the colours."""
    return make_element(
        "ul",
        *(
            make_element("li", make_element("i", style=f"background:{colour_of(colour)}"), name)
            for name, colour in names
        ),
        class_="legend",
    )


def strip(spans: Sequence[Span], label: str) -> Markup:
    """Draw pieces of a whole one after the other, each as wide as it is large.

    Args:
        spans: the pieces.
        label: what the picture shows.
    """
    whole = sum(max(span.size, 0) for span in spans) or 1.0
    pieces = (
        make_element(
            "u",
            style=f"flex:{1000 * max(span.size, 0) / whole:.3f};background:{colour_of(span.colour)}",
            title=span.words,
        )
        for span in spans
    )
    return make_element("div", *pieces, class_="strip", role="img", aria_label=label)


def bars(rows: Iterable[tuple[str, float, str]], colour: int = 0, step: int = 0) -> Markup:
    """Draw bars, one a row; the largest is the widest.

    Args:
        rows: a name, a size, and the words beside it.
        colour: of the first.
        step: from the colour of one to that of the next.
    """
    known = list(rows)
    largest = max((size for _, size, _ in known), default=0.0)
    cells: list[Child] = []
    for number, (name, size, words) in enumerate(known):
        shade = colour_of(colour + step * number)
        bar = make_element("u", style=f"left:0;width:{_percent(size, largest)};background:{shade}")
        cells += [make_element("b", name), make_element("span", words), make_element("div", bar, class_="track")]
    return make_element("div", *cells, class_="bars")


def intervals(rows: Iterable[tuple[str, tuple[float, float, float], float, str]]) -> Markup:
    """Draw what was predicted, from its low to its high quantile, and what came as a mark; one a row.

    Args:
        rows: a name, three quantiles, what came, and the words beside it.
    """
    cells: list[Child] = []
    for name, (low, median, high), actual, words in rows:
        end = 1.1 * max(high, actual, 1e-9)
        band = f"left:{_percent(low, end)};width:{_percent(high - low, end)};background:{colour_of(0)};opacity:.45"
        middle = f"left:{_percent(median, end)};background:{colour_of(0)}"
        came = f"left:{_percent(actual, end)};background:{colour_of(1)}"
        track = [
            make_element("u", style=band),
            make_element("u", style=middle, class_="dot"),
            make_element("u", style=came, class_="dot"),
        ]
        cells += [make_element("b", name), make_element("span", words), make_element("div", *track, class_="track")]
    return make_element("div", *cells, class_="bars")
