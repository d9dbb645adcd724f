"""The page of benchmark figures says what the committed results say."""

from pathlib import Path

import pytest

from bench import page


def test_the_page_is_that_of_the_committed_results() -> None:
    text = (Path(page.__file__).parents[1] / "docs/benchmarks.md").read_text()
    assert text == page.page(), "write it anew: python -m bench.page > docs/benchmarks.md"


def test_a_figure_that_no_result_has_is_an_error() -> None:
    with pytest.raises(LookupError, match="no nothing"):
        page.figure(page.Figure("itp", "nothing", "us"))
