"""Plots of the page of figures: bars as SVG, readable in light and in dark, drawn from the committed results.

Each is a file below docs/images that `bench.page` writes; a test holds it to the results.
"""

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

WIDTH: Final = 720
LEFT: Final = 190
RIGHT: Final = 120
BAR: Final = 18
STEP: Final = 30
HEAD: Final = 40

STYLE: Final = (
    "text{font:13px sans-serif;fill:#1b1f24}.t{font-weight:bold}.o{fill:#9aa5b1}.a{fill:#1f6feb}.b{fill:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.o{fill:#6e7681}.a{fill:#58a6ff}.b{fill:#0d1117}}"
)


class Bar(NamedTuple):
    """One bar: its label, length, the words at its end, and whether it is the agents'."""

    label: str
    value: float
    words: str
    is_ours: bool = False


def draw_bars(title: str, bars: Sequence[Bar]) -> str:
    """Draw bars from a common zero.

    Args:
        title: above them, and the picture's name for who cannot see it.
        bars: from top to bottom; the longest takes the width.

    Returns:
        An SVG that loads nothing.
    """
    longest = max(bar.value for bar in bars)
    height = HEAD + STEP * len(bars) + 6
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">',
        f"<title>{escape(title)}: {escape('; '.join(f'{bar.label} {bar.words}' for bar in bars))}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="b" width="{WIDTH}" height="{height}"/>',
        f'<text class="t" x="8" y="22">{escape(title)}</text>',
    ]
    for number, bar in enumerate(bars):
        y = HEAD + STEP * number
        width = max(1.0, (WIDTH - LEFT - RIGHT) * bar.value / longest)
        kind = "a" if bar.is_ours else "o"
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}"/>',
            f'<text x="{LEFT + width + 6:.1f}" y="{y + 14}">{escape(bar.words)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
