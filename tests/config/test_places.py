"""Lines of keys, as errors name them."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_migrate.config.places import STATEMENT_LINES_MAX, key_lines, line_of

TEXT = '''# a comment
name = "hv1"

[link] # another
port = 1
[[peers]]
name = "a" \r
addresses = [
  "192.0.2.1", # with a ] in it
  "192.0.2.2",
]
[[peers]]
name = """
[not a heading]
port = 3
"""
[coordination.pbft]
cluster = ""
[[coordination.pbft.members]]
name = "x"
[[coordination.pbft.members]]
"name" = "y"
'''


def test_keys_tables_and_elements_have_the_line_on_which_they_begin() -> None:
    lines = key_lines(TEXT)
    expected = {
        "name": 2,
        "link": 4,
        "link.port": 5,
        "peers[0]": 6,
        "peers[0].name": 7,
        "peers[0].addresses[1]": 8,
        "peers[1]": 12,
        "peers[1].name": 13,
        "coordination.pbft.cluster": 18,
        "coordination.pbft.members[0].name": 20,
        "coordination.pbft.members[1]": 21,
        "coordination.pbft.members[1].name": 22,
    }
    assert {key: lines.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("path", "line"),
    [("peers[1].addresses", 12), ("link.nothing[3].there", 4), ("nothing", 0), ("peers[0].addresses[7]", 8)],
)
def test_a_key_that_is_not_there_has_the_line_of_what_is_around_it(path: str, line: int) -> None:
    assert line_of(path, key_lines(TEXT)) == line


def test_a_list_past_the_limit_costs_its_line_and_nothing_else() -> None:
    listed = "\n".join(['  "a",'] * STATEMENT_LINES_MAX)
    assert key_lines(f"x = [\n{listed}\n]\ny = 1\n").get("y") == STATEMENT_LINES_MAX + 3


@given(st.text(max_size=200))
def test_any_text_is_placed_without_an_error(text: str) -> None:
    key_lines(text)


@given(st.dictionaries(st.sampled_from("abc"), st.integers() | st.booleans() | st.text(max_size=5), max_size=3))
def test_every_key_of_what_a_library_writes_has_a_line(values: dict[str, Any]) -> None:
    import tomli_w

    text = tomli_w.dumps({**values, "t": values, "l": [values, values]})
    assert tomllib.loads(text)
    lines = key_lines(text)
    assert set(values) | {f"t.{key}" for key in values} | {f"l[1].{key}" for key in values} <= set(lines)
