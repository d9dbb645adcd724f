"""Reports as a browser shows them: what is to be read, in light and dark, on a wide screen and on a phone."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dwcp_migrate.api.recap import FleetRecap, recap_of
from dwcp_migrate.cli.pages.fleet_page import fleet_page
from dwcp_migrate.cli.pages.migration_page import migration_page
from dwcp_migrate.protocol.recap import MigrationRecap
from tests.agent.records import make_status
from tests.browser import Browser, browsing
from tests.cli.pages.example import SECONDS, STARTED, example_migration

PICTURES = os.environ.get("PICTURES", "")
"""Where pictures of the pages are put, if they are wanted: `make pictures`."""

NOW = STARTED + SECONDS + 60
PHONE = 390


def fleet() -> FleetRecap:
    ours = recap_of([example_migration(id=f"{number:032x}") for number in range(37)], since=0)
    other = MigrationRecap(
        oldest_at=STARTED - 20 * 86400,
        completed=212,
        failed=5,
        accelerated=203,
        raw_bytes=1_240 << 30,
        wire_bytes=301 << 30,
        duration_s=7400.0,
        saved_s=21_600.0,
        saved_known=203,
        downtime_ms=203 * 131,
        downtimes=203,
        failures={
            "QEMU or libvirt broke the connection off": 3,
            "the link to the peer was lost and did not come back": 2,
        },
        unaccelerated={"draining": 6, "unreachable": 3},
        predicted=188,
        inside=149,
        error=22.4,
    )
    return FleetRecap(
        since=STARTED - 30 * 86400,
        now=NOW,
        hosts={"hv1.example.net": ours, "hv2.example.net": other, "hv3.example.net": MigrationRecap()},
        silent={"hv9.example.net": "hv9.example.net (192.0.2.19, port 7802) did not answer within 5 s"},
    )


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with browsing(tmp_path / "profile") as found:
        yield found


async def opened(browser: Browser, directory: Path, page: str, **screen: Any) -> str:
    """Open a page as a file and return the text that it shows."""
    path = directory / "page.html"
    path.write_text(page)
    await browser.open(path.as_uri(), **screen)
    return str(await browser.see("document.body.innerText"))


async def picture(browser: Browser, name: str) -> None:
    if PICTURES:
        await browser.picture(Path(PICTURES) / name)


async def test_a_migrations_report_shows_all_that_its_record_holds(browser: Browser, tmp_path: Path) -> None:
    text = await opened(browser, tmp_path, migration_page(example_migration(), make_status(version="0.2.0"), NOW))
    for words in (
        "Migration of web<1> & co",
        "hv1 to hv2.example.net",
        "4 passes over memory",
        "compressing",
        "changed in parts: sent as a difference",
        "12 carried bytes, 12 at once",
        "The time lies inside of the interval",
        "42 s, predicted 38 s",
        "libvirt measured 142 ms",
        "last pages of memory",
        "lz4: compressors held it up",
        "after 1800 ms",
        "1 main, 4 multifd",
    ):
        assert words in text, words
    assert await browser.see("document.querySelectorAll('svg').length") == 3
    assert await browser.see("document.querySelectorAll('#rates polyline').length") == 4
    assert await browser.see("document.querySelectorAll('#waits rect').length") > 80
    assert await browser.see("[...document.querySelectorAll('#rates i.mark')].map(one => one.innerText)") == [
        "pass 1",
        "2",
        "3",
        "4",
    ]
    assert browser.complaints == []
    assert [url for url in browser.requested if not url.startswith("file:")] == []
    await picture(browser, "report.png")


async def test_a_record_without_a_course_is_said_to_have_none(browser: Browser, tmp_path: Path) -> None:
    plain = example_migration(
        course=(),
        passthrough_reason="unreachable",
        expected=None,
        events=(),
        downtime_ms=-1,
        result="failed",
        reason="cut",
    )
    text = await opened(browser, tmp_path, migration_page(plain, make_status(), NOW))
    assert "It ran unaccelerated (unreachable): the peer's agent did not answer" in text
    assert "It failed: cut" in text
    assert text.count("This record has no course") == 2
    assert await browser.see("document.querySelectorAll('svg').length") == 0


@pytest.mark.parametrize("colours", ["light", "dark"])
async def test_a_report_can_be_read_in_light_and_dark(browser: Browser, tmp_path: Path, colours: Any) -> None:
    page = migration_page(example_migration(), make_status(version="0.2.0"), NOW)
    await opened(browser, tmp_path, page, colours=colours)
    for selector in ("h1", ".badge", ".tile span", "section .soft", ".plot i", "td", "dt", "footer"):
        assert await browser.contrast(selector) >= 4.5, selector
    if colours == "dark":
        await picture(browser, "report-dark.png")


async def test_a_report_fits_a_phone(browser: Browser, tmp_path: Path) -> None:
    page = migration_page(example_migration(), make_status(version="0.2.0"), NOW)
    await opened(browser, tmp_path, page, width=PHONE, height=844)
    assert await browser.see("document.documentElement.scrollWidth") <= PHONE
    assert await browser.see("parseFloat(getComputedStyle(document.querySelector('.plot i')).fontSize)") >= 11
    await picture(browser, "report-narrow.png")


@pytest.mark.parametrize(
    ("colours", "width", "image"),
    [("light", 1100, "fleet.png"), ("dark", 1100, "fleet-dark.png"), ("light", PHONE, "fleet-narrow.png")],
)
async def test_a_fleets_report_shows_what_was_saved_and_what_failed(
    browser: Browser, tmp_path: Path, colours: Any, width: int, image: str
) -> None:
    page = fleet_page(fleet(), "dwcp-migrate 0.2.0, asked of hv1.example.net")
    text = await opened(browser, tmp_path, page, colours=colours, width=width)
    for words in (
        "249",
        "migrations completed, 5 failed",
        "saved at least",
        "of 225 predictions held",
        "hv3.example.net",
        "QEMU or libvirt broke the connection off",
        "draining: the destination agent is draining",
        "hv9.example.net (192.0.2.19, port 7802) did not answer",
        "as it should be",
    ):
        assert words in text, words
    assert await browser.see("document.documentElement.scrollWidth") <= width
    assert await browser.contrast(".tile span") >= 4.5
    assert browser.complaints == []
    await picture(browser, image)


async def test_text_of_others_is_shown_and_never_run(browser: Browser, tmp_path: Path) -> None:
    hostile = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    page = migration_page(example_migration(domain=hostile, peer=hostile, reason=hostile), make_status(), NOW)
    text = await opened(browser, tmp_path, page)
    assert hostile in text
    assert await browser.see("document.querySelectorAll('script, img').length") == 0
    assert await browser.see("document.title") != "taken"
