"""The metrics' own listener over real sockets: TLS, a password, and what it says without."""

import base64
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dwcp_migrate.agent.http.metrics_server import (
    PASSWORD_BYTES_MAX,
    is_authorised,
    listen_for_metrics,
    metrics_application,
)
from dwcp_migrate.agent.http.server import HttpServer
from dwcp_migrate.config import MetricsConfig
from dwcp_migrate.pki import create_authority, issue
from tests.agent.http.test_metrics import free_port

Make = Callable[..., Any]


@pytest.fixture
def access(tmp_path: Path) -> MetricsConfig:
    create_authority(tmp_path)
    issue(tmp_path, "hv1.lab", addresses=["127.0.0.1"])
    (tmp_path / "password").write_text("secret\n")
    return MetricsConfig(
        certificate=str(tmp_path / "hv1.lab.pem"),
        key=str(tmp_path / "hv1.lab.key"),
        username="prometheus",
        password_file=str(tmp_path / "password"),
    )


async def test_it_speaks_tls_and_asks_for_its_password(status: Make, access: MetricsConfig, tmp_path: Path) -> None:
    server, port = HttpServer(metrics_application(status, list, access)), free_port()
    assert await listen_for_metrics(server, f"127.0.0.1:{port}", access) == ""
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    url = f"https://127.0.0.1:{port}/metrics"
    try:
        async with aiohttp.ClientSession() as client:
            async with client.get(url, ssl=trusted) as answer:
                assert answer.status == 401
                assert b"dwcp_migrate" not in await answer.read()
            password = {"Authorization": header(b"prometheus:secret")}
            async with client.get(url, ssl=trusted, headers=password) as answer:
                text = await answer.text()
        assert "dwcp_migrate_build_info" in text
        assert "process_resident_memory_bytes" in text
    finally:
        await server.close()


async def test_without_access_rules_it_shows_a_page_to_everyone(status: Make) -> None:
    server, port = HttpServer(metrics_application(status, list, MetricsConfig())), free_port()
    assert await listen_for_metrics(server, f"127.0.0.1:{port}", MetricsConfig()) == ""
    try:
        async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{port}/") as answer:
            assert (answer.status, answer.content_type) == (200, "text/html")
            assert 'href="metrics"' in await answer.text()
    finally:
        await server.close()


async def test_a_certificate_that_is_not_there_is_said_and_nothing_listens(status: Make, tmp_path: Path) -> None:
    access = MetricsConfig(certificate=str(tmp_path / "none.pem"), key=str(tmp_path / "none.key"))
    server = HttpServer(metrics_application(status, list, access))
    assert "none.pem" in await listen_for_metrics(server, f"127.0.0.1:{free_port()}", access)
    assert not server.listening


def header(text: bytes) -> str:
    return f"Basic {base64.b64encode(text).decode()}"


@pytest.mark.parametrize(
    "given",
    ["", "Basic", "Basic !!!", "Bearer x", header(b"prometheus:"), header(b"prometheus:secre"), header(b"x:secret")],
)
def test_only_the_right_name_and_password_are_let_in(given: str, access: MetricsConfig) -> None:
    assert is_authorised(header(b"prometheus:secret"), access)
    assert not is_authorised(given, access)


def test_an_empty_or_missing_password_lets_nobody_in(access: MetricsConfig) -> None:
    Path(access.password_file).write_text("\n")
    assert not is_authorised(header(b"prometheus:"), access)
    Path(access.password_file).unlink()
    assert not is_authorised(header(b"prometheus:secret"), access)


def test_a_password_counts_as_far_as_its_limit(access: MetricsConfig) -> None:
    Path(access.password_file).write_bytes(b"x" * (PASSWORD_BYTES_MAX + 1))
    assert is_authorised(header(b"prometheus:" + b"x" * PASSWORD_BYTES_MAX), access)
    assert not is_authorised(header(b"prometheus:" + b"x" * (PASSWORD_BYTES_MAX + 1)), access)
