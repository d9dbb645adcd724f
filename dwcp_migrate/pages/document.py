"""The frame of a page: head, style in light and dark, sections and tiles.

The rule: the page makes no requests; its content security policy forbids them even where markup got in.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from dwcp_migrate.pages.markup import Child, Markup, join_markup, make_element

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"

TILES_IN_A_ROW: Final = 6
"""More are laid out in two rows, and not as one row with a rest below it."""

STYLE: Final = """
:root { color-scheme: light dark; --paper: #ffffff; --ground: #f4f5f7; --ink: #1b1f24; --soft: #59636e; --line:
  #d5dae0; --good: #1a7f37; --bad: #c62828; --warn: #9a6700; --c0: #0a58ca; --c1: #d9480f; --c2: #2b8a3e; --c3:
  #8637b5; --c4: #b88700; --c5: #0b7285; --c6: #c2255c; --c7: #868e96 }
@media (prefers-color-scheme: dark) { :root { --paper: #171b21; --ground: #0e1116; --ink: #e6e9ed; --soft:
  #9aa4af; --line: #323941; --good: #57c26f; --bad: #ff7b72; --warn: #e3b341; --c0: #6ea8fe; --c1: #ff9a5c;
  --c2: #69db7c; --c3: #cf9df5; --c4: #f2cc60; --c5: #66d9e8; --c6: #faa2c1; --c7: #adb5bd } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1060px; margin: 0 auto; padding: 24px 16px 48px }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere }
h2 { font-size: 1.05rem; margin: 0 0 2px }
p { margin: 4px 0 10px }
.soft { color: var(--soft) }
small { color: var(--soft); font-size: .85em }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px;
  margin-top: 14px }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin-top: 16px }
.tile { flex: 1 1 var(--basis, 152px); background: var(--paper); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 12px }
.tile b { display: block; font-size: 1.3rem; line-height: 1.25; font-variant-numeric: tabular-nums }
.tile span { color: var(--soft); font-size: .85rem }
.badge { display: inline-block; border: 1px solid currentColor; border-radius: 999px; padding: 0 10px;
  font-size: .85rem; vertical-align: 3px; margin-left: 8px; white-space: nowrap }
.good { color: var(--good) }
.bad { color: var(--bad) }
.warn { color: var(--warn) }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr)); gap: 0 14px }
.plot { position: relative; margin: 22px 0 26px 72px; height: var(--height, 190px); border-left: 1px solid
  var(--line); border-bottom: 1px solid var(--line) }
.plot svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible }
.plot i { position: absolute; font-style: normal; font-size: 12px; line-height: 14px; color: var(--soft);
  white-space: nowrap }
.plot i.y { right: calc(100% + 6px); transform: translateY(50%) }
.plot i.x { top: calc(100% + 5px); transform: translateX(-50%) }
.plot i.x.last { transform: translateX(-100%) }
.plot i.mark { top: -15px }
.plot .grid { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke }
.plot .curve { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; stroke-linejoin: round }
.plot .pass { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 3; vector-effect: non-scaling-stroke }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: .85rem; margin: 0; padding: 0; list-style:
  none }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px;
  vertical-align: -1px }
.bars { display: grid; grid-template-columns: fit-content(46%) 1fr max-content; grid-auto-flow: row dense;
  gap: 6px 10px; align-items: center; font-size: .9rem; margin: 8px 0 }
.bars > b { grid-column: 1; font-weight: 400; overflow-wrap: anywhere }
.bars > span { grid-column: 3; text-align: right; font-variant-numeric: tabular-nums }
.bars > .track { grid-column: 2 }
.track { position: relative; height: 14px; background: var(--ground); border-radius: 3px; min-width: 60px }
.track u { position: absolute; top: 0; bottom: 0; border-radius: 3px; text-decoration: none; min-width: 2px }
.track u.dot { width: 4px; margin-left: -2px; top: -4px; bottom: -4px; min-width: 0 }
.strip { display: flex; height: 26px; border-radius: 4px; overflow: hidden; margin: 8px 0; gap: 1px }
.strip u { text-decoration: none; min-width: 2px }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .88rem }
th, td { text-align: left; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { color: var(--soft); font-weight: 600 }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td { overflow-wrap: anywhere }
td:first-child, .scroll[tabindex] :is(th, td) { white-space: nowrap }
.pairs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 0 24px;
  margin: 6px 0 0 }
.pairs div { display: flex; justify-content: space-between; gap: 12px; border-bottom: 1px solid var(--line);
  padding: 3px 0 }
.pairs dt { color: var(--soft) }
.pairs dd { margin: 0; text-align: right; overflow-wrap: anywhere }
a { color: var(--c0) }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 8px }
nav a { padding: 6px 0 }
:focus-visible { outline: 3px solid var(--c0); outline-offset: 2px; border-radius: 3px }
h3 { font-size: 1rem; margin: 0 0 6px; overflow-wrap: anywhere }
article { border-top: 1px solid var(--line); padding: 12px 0 4px; margin-top: 8px }
ul { margin: 4px 0; padding-left: 20px; overflow-wrap: anywhere }
details summary { cursor: pointer; color: var(--soft); padding: 4px 0 }
footer { color: var(--soft); margin-top: 18px; font-size: .85rem }
@media (max-width: 560px) { main { padding: 14px 10px 32px } section { padding: 12px } .plot { margin-left: 66px }
  .tile { flex-basis: 40% } .bars { grid-template-columns: 1fr fit-content(62%); gap: 2px 10px }
  .bars > span { grid-column: 2 } .bars > .track { grid-column: 1 / -1; margin-bottom: 6px } }
@media print { body { background: #fff } section, .tile { break-inside: avoid } details > *:not(summary) {
  display: block } }
"""


def page_of(title: str, sections: Iterable[Child], footer: str, head: Iterable[Child] = ()) -> str:
    """Make a whole page.

    Args:
        title: of the window.
        sections: its body.
        footer: what it was made of, and when.
        head: further elements of its head.
    """
    top = make_element(
        "head",
        make_element("meta", charset="utf-8"),
        make_element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        make_element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        make_element("title", title),
        *head,
        Markup(f"<style>{STYLE}</style>"),
    )
    body = make_element("body", make_element("main", *sections, make_element("footer", footer)))
    return f"<!doctype html>\n{make_element('html', top, body, lang='en')}\n"


def section_of(heading: str, said: str, *children: Child, identity: str) -> Markup:
    """Make a section.

    Args:
        heading: of it.
        said: one sentence that says what there is to see; may be empty.
        children: its contents.
        identity: by which a link or a test finds it.
    """
    note = make_element("p", said, class_="soft") if said else None
    return make_element("section", make_element("h2", heading), note, *children, id=identity)


def tiles_of(tiles: Sequence[tuple[str, str]]) -> Markup:
    """Make a row of figures: each with what it is of."""
    made = (
        make_element("div", make_element("b", figure), make_element("span", what), class_="tile")
        for figure, what in tiles
    )
    basis = "--basis:220px" if len(tiles) > TILES_IN_A_ROW else None
    return make_element("div", *made, class_="tiles", style=basis)


def fold_below(summary: str, *children: Child) -> Markup:
    """Make something that opens when it is asked for."""
    return make_element("details", make_element("summary", summary), join_markup(children))
