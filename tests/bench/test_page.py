"""The page of benchmark figures and its plots say what the committed results say."""

import re
from xml.etree import ElementTree as ET

import pytest

from bench import page, specification
from bench.plots import Bar, draw_bars

ANEW = "write it anew: python -m bench.page"
COMPARISON = page.DOCS / "comparison.md"


def test_the_page_is_that_of_the_committed_results() -> None:
    assert (page.DOCS / "benchmarks.md").read_text() == page.page(), ANEW


@pytest.mark.parametrize("name", page.plots())
def test_a_plot_is_that_of_the_committed_results(name: str) -> None:
    assert (page.DOCS / f"images/{name}.svg").read_text() == page.plots()[name], ANEW


def test_a_figure_that_no_result_has_is_an_error() -> None:
    with pytest.raises(LookupError, match="no nothing"):
        page.figure(specification.Figure("itp", "nothing", "us"))


def test_every_component_of_the_specification_has_rows_and_each_row_a_figure_or_a_reason() -> None:
    assert [name.partition(",")[0] for name in specification.PARTS] == ["AMST", "HDE", "PBA", "ASS", "ACP", "ITP"]
    for part in specification.PARTS.values():
        assert len(part.lines) >= 10
        for line in part.lines:
            assert line.ours
            assert line.given


def test_bars_are_as_long_as_their_values_and_named_for_who_cannot_see() -> None:
    drawn = draw_bars("Time", [Bar("a & b", 10.0, "10 s"), Bar("c", 5.0, "5 s", is_ours=True)])
    picture = ET.fromstring(drawn)  # noqa: S314 - our own text
    bars = [float(one.attrib["width"]) for one in picture.iter() if one.attrib.get("class") in {"a", "o"}]
    assert bars[0] == pytest.approx(2 * bars[1])
    title = picture.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text == "Time: a & b 10 s; c 5 s"
    assert not re.search(r"href|url\(", drawn)


def test_the_comparison_has_the_figures_of_the_demo() -> None:
    text = COMPARISON.read_text()
    for arm in page.result("demo")["arms"]:
        assert f"| {arm['time_s']:.1f} s | {arm['downtime_ms']:,} ms | {arm['wire_bytes'] / 2**20:.0f} MiB |" in text
    against = page.result("hde-against-qemu")
    for ratio in (against["first_pass"]["bytes_ratio"], against["resent"]["bytes_ratio"]):
        assert f"{ratio:.2f}" in text
    for metric in ("encode_ratio", "decode_ratio"):
        assert f"{against['cpu_s_per_gb'][metric]:.2f}" in text
    for case in ("first", "resent"):
        for way in ("auto-tls", "auto-tls-start"):
            assert f"{page.value('live', f'live/{case}/{way}', 'time_over_stock'):.1f}" in text
