"""The matrix as a table and as a picture, for readers."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bench.suites.matrix.slices import Slice

BAR, GAP, LEFT, WIDTH = 16, 26, 210, 420
COLORS: Final = {True: "#1f77b4", False: "#9aa5b1"}
"""Accelerated arms, and stock ones."""


def table(slices: Sequence["Slice"]) -> str:
    """A page of Markdown: one table a slice."""
    from bench.suites.matrix.slices import summary

    lines = [
        "# Matrix of migrations",
        "",
        "Written by `make matrix-bench`; what a slice's name says: bench/suites/matrix/slices.py.",
    ]
    for one in slices:
        lines += ["", f"## {one.name}", "", f"Commit {one.commit}, {one.machine}.", ""]
        lines += [
            "| arm | time s | against stock | against the best stock | downtime ms | MB on the wire | link used % |"
        ]
        lines += ["|---|---|---|---|---|---|---|"]
        for arm, figures in summary(one).items():
            used, wire = figures.get("utilisation_percent"), figures.get("wire_bytes")
            lines.append(
                f"| {arm} | {figures['time_s']:.2f} | {figures['times_faster_than_stock']:.2f} | "
                f"{figures['times_faster_than_best_stock']:.2f} | {figures['downtime_ms']:.0f} | "
                f"{'-' if wire is None else f'{wire / 1e6:.0f}'} | {'-' if used is None else f'{used:.0f}'} |"
            )
        unclean = sorted(
            {f"{result.arm}: {result.guest_check}" for result in one.runs if result.guest_check != "clean"}
        )
        lines += [
            "",
            f"Guests whose memory was not found clean: {'; '.join(unclean)}." if unclean else "Every guest was clean.",
        ]
    return "\n".join(lines) + "\n"


def plot(slices: Sequence["Slice"]) -> str:
    """An SVG: time of each arm against stock's, a bar each; shorter is better."""
    from bench.suites.matrix.slices import summary

    parts: list[str] = []
    y = 24
    for one in slices:
        figures = summary(one)
        parts.append(f'<text x="8" y="{y}" font-weight="bold">{escape(one.name)}</text>')
        longest = max(figure["time_s"] for figure in figures.values())
        for arm, figure in figures.items():
            y += BAR + 4
            width = max(1.0, WIDTH * figure["time_s"] / longest)
            color = COLORS["accelerated" in arm]
            parts.append(f'<text x="{LEFT - 8}" y="{y}" text-anchor="end">{escape(arm)}</text>')
            parts.append(f'<rect x="{LEFT}" y="{y - BAR + 4}" width="{width:.1f}" height="{BAR}" fill="{color}"/>')
            parts.append(f'<text x="{LEFT + width + 6:.1f}" y="{y}">{figure["time_s"]:.1f} s</text>')
        y += BAR + GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 80}" height="{y}"'
    return head + ' font-family="sans-serif" font-size="12">\n' + "\n".join(parts) + "\n</svg>\n"
