"""The agent's page as a browser shows it: from its listener, on a wide screen, on a phone, and by keyboard."""

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dwcp_migrate.agent.http.metrics_server import listen_for_metrics, metrics_application
from dwcp_migrate.agent.http.server import HttpServer
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.api.schema import (
    AgentStatus,
    CertificateExpiry,
    ConfigurationStatus,
    LinkForecast,
    MemoryUse,
    RedirectRule,
    RedirectStatus,
)
from dwcp_migrate.config import MetricsConfig
from dwcp_migrate.pages import agent_page as page
from dwcp_migrate.protocol.worker import MigrationCounters
from dwcp_migrate.state.engine_status import EngineMember, EngineStatus
from dwcp_migrate.units import GIB
from tests.agent.http.test_metrics import free_port
from tests.agent.records import STARTED, make_migration, make_status
from tests.browser import Browser, browsing

PICTURES = os.environ.get("PICTURES", "")
PHONE = 390
HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


def busy() -> AgentStatus:
    """A host with three migrations, four peers, one of them silent."""
    counters = MigrationCounters(
        raw_bytes=9 * GIB, wire_bytes=3 * GIB, channels=12, held_up_s={"link": 31.0, "compressors": 4.0}
    )
    names = [f"hv{number}.example.net" for number in range(2, 6)]
    rules = [RedirectRule(peer=name, address=f"192.0.2.{at}", packets=7, bytes=420) for at, name in enumerate(names)]
    return make_status(
        name="hv1.example.net",
        version="0.2.0",
        now=STARTED + 275_000,
        started_at=STARTED,
        migrations=[
            make_migration(
                domain="web1",
                peer=names[0],
                started_at=STARTED + 274_951,
                counters=counters,
                wire_bytes_per_s=48e6,
                raw_bytes_per_s=171e6,
                eta_range_s=(9.0, 15.0),
                iteration=2,
            ),
            make_migration(
                domain="database",
                role="destination",
                peer=names[1],
                started_at=STARTED + 274_990,
                remaining_bytes=-1,
                eta_s=-1.0,
                granted_bytes_per_s=25e6,
            ),
            make_migration(
                domain="build7",
                peer=names[3],
                state="passthrough",
                passthrough_reason="unreachable",
                started_at=STARTED + 274_980,
            ),
        ],
        intercept=RedirectStatus(wanted=True, armed=True, port_min=49152, port_max=49215, rules=rules),
        peers_up={name: name != names[3] for name in names},
        links=[LinkForecast(peer=names[0], next_minute=(39e6, 52e6, 58e6))],
        memory=MemoryUse(budget_bytes=12 * GIB, granted_bytes=3 * GIB, sessions=2, sessions_max=8),
        configuration=ConfigurationStatus(path="/etc/dwcp-migrate/agent.toml", pending_restart=["link.port"]),
        certificates=[
            CertificateExpiry(
                use="host", path="/etc/dwcp-migrate/tls/host.pem", not_after=STARTED + 275_000 + 6 * 86400
            )
        ],
        coordination=EngineStatus(
            engine="raft",
            state="follower",
            leader=names[0],
            members=[EngineMember(name=name, role="voter", connected=True) for name in names[:3]],
        ),
    )


def ended(count: int = 30) -> list[Migration]:
    return [
        make_migration(
            id=f"{number:032x}",
            state="ended",
            result="failed" if number == 3 else "completed",
            reason="QEMU or libvirt broke the connection off" if number == 3 else "",
            passthrough_reason="draining" if number == 5 else "",
            domain=f"guest{number}",
            started_at=STARTED + 270_000 - 600 * number,
            ended_at=STARTED + 270_047 - 600 * number,
            downtime_ms=118 + number,
        )
        for number in range(count)
    ]


@asynccontextmanager
async def served(
    status: Callable[[], AgentStatus], recent: list[Migration], access: MetricsConfig | None = None
) -> AsyncIterator[str]:
    """Serve the page as the agent does; yields its address."""
    access, port = access or MetricsConfig(), free_port()
    server = HttpServer(metrics_application(status, lambda: recent, access))
    assert await listen_for_metrics(server, f"127.0.0.1:{port}", access) == ""
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        await server.close()


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with browsing(tmp_path / "profile") as found:
        yield found


@pytest.mark.parametrize(
    ("colours", "width", "image"),
    [("light", 1100, "status.png"), ("dark", 1100, "status-dark.png"), ("light", PHONE, "status-narrow.png")],
)
async def test_the_page_shows_what_migrates_whom_it_reaches_and_what_is_wrong(
    browser: Browser, colours: Any, width: int, image: str
) -> None:
    async with served(busy, ended()) as url:
        await browser.open(f"{url}?hold", colours=colours, width=width)
        text = str(await browser.see("document.body.innerText"))
        for words in (
            "hv1.example.net",
            "web1 to hv2.example.net",
            "database from hv3.example.net",
            "75 % of pass 2",
            "11 s (9.0 s to 15 s)",
            "passthrough (unreachable)",
            "no answer of hv5.example.net",
            "wait for a restart: link.port",
            "host.pem is good for 6 d 0 h only",
            "416.0 Mbit/s (312.0 Mbit/s to 464.0 Mbit/s)",
            "raft: this host is follower, 3 members, led by hv2.example.net",
            "The last 20 migrations.",
            "QEMU or libvirt broke the connection off",
            "unaccelerated: draining",
            "25 %",
        ):
            assert words in text, words
        assert "guest20" not in text
        assert await browser.see("document.querySelectorAll('article').length") == 3
        assert await browser.see("document.documentElement.scrollWidth") <= width
        for selector in ("h1", ".badge", ".tile span", "nav a", ".good", ".bad", ".warn", "td", "dt", "footer"):
            assert await browser.contrast(selector) >= 4.5, selector
        assert browser.complaints == []
        assert [one for one in browser.requested if not one.startswith(url)] == []
        if PICTURES:
            await browser.picture(Path(PICTURES) / image)


async def test_the_keyboard_reaches_every_link_and_table(browser: Browser) -> None:
    async with served(busy, ended()) as url:
        await browser.open(f"{url}?hold", width=PHONE)
        reached = []
        for _ in range(5):
            for kind in ("keyDown", "keyUp"):
                await browser.command(
                    "Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9
                )
            reached.append(
                await browser.see(
                    "document.activeElement.innerText.length < 20 ? document.activeElement.innerText : "
                    "document.activeElement.getAttribute('aria-label')"
                )
            )
        assert reached == ["Update by itself", "Metrics", "Health", "Peers", "History"]
        assert await browser.see("getComputedStyle(document.activeElement).outlineStyle") == "solid"


async def test_it_loads_itself_again_unless_it_is_held(browser: Browser) -> None:
    async with served(busy, []) as url:
        await browser.open(url)
        assert await browser.see("document.querySelector('meta[http-equiv=refresh]').content") == str(page.REFRESH_S)
        await browser.open(f"{url}?hold")
        assert await browser.see("document.querySelector('meta[http-equiv=refresh]')") is None


async def test_text_of_guests_and_peers_is_shown_and_never_run(browser: Browser) -> None:
    status = make_status(name=HOSTILE, migrations=[make_migration(domain=HOSTILE, peer=HOSTILE)])
    past = [make_migration(domain=HOSTILE, peer=HOSTILE, state="ended", result="failed", reason=HOSTILE)]
    async with served(lambda: status, past) as url:
        await browser.open(f"{url}?hold")
        assert HOSTILE in str(await browser.see("document.body.innerText"))
        assert await browser.see("document.querySelectorAll('script, img').length") == 0
        assert await browser.see("document.title") != "taken"


async def test_a_quiet_host_without_peers_says_so_and_names_no_fault(browser: Browser) -> None:
    quiet = make_status(
        migrations=[], intercept=RedirectStatus(wanted=False, armed=False, port_min=49152, port_max=49215)
    )
    async with served(lambda: quiet, []) as url:
        await browser.open(url)
        text = str(await browser.see("document.body.innerText"))
    for words in ("Nothing migrates.", "There is no peer.", "None has ended yet."):
        assert words in text
    assert "Look at" not in text


async def test_however_many_ask_the_status_is_read_once_a_second() -> None:
    reads = []

    def status() -> AgentStatus:
        reads.append(time.monotonic())
        return busy()

    async with served(status, ended()) as url, aiohttp.ClientSession() as client:
        for _ in range(20):
            async with client.get(url) as answer:
                assert answer.status == 200
                assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert len(reads) <= 1 + int(reads[-1] - reads[0] + 1)


def test_rows_are_bounded_however_large_the_fleet_is() -> None:
    names = [f"hv{number:05}" for number in range(page.PEERS_SHOWN_MAX + 7)]
    many = [make_migration(id=f"{number:032x}") for number in range(page.RUNNING_SHOWN_MAX + 5)]
    made = page.status_page(make_status(peers_up=dict.fromkeys(names, True), migrations=many), [], is_held=False)
    assert made.count("<article>") == page.RUNNING_SHOWN_MAX
    assert "and 8 more" in made  # hv2 has a rule
    assert "and 5 more" in made
    assert names[page.PEERS_SHOWN_MAX - 1] in made
    assert names[page.PEERS_SHOWN_MAX] not in made


async def test_switched_off_it_names_no_guest() -> None:
    async with (
        served(busy, ended(), MetricsConfig(status_page=False)) as url,
        aiohttp.ClientSession() as client,
        client.get(url) as answer,
    ):
        text = await answer.text()
    assert 'href="metrics"' in text
    assert "web1" not in text
    assert "guest0" not in text
