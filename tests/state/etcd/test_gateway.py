"""The client of etcd's gateway: logins that end, certificates of an own CA, endpoints that hang."""

import asyncio
import ssl
import time
from pathlib import Path

import pytest

from dwcp_migrate import pki
from dwcp_migrate.errors import CoordinationError
from dwcp_migrate.state.etcd.engine import EtcdEngine, EtcdSettings
from dwcp_migrate.state.etcd.gateway import HANG_S, EtcdGateway, EtcdLogin, encode
from dwcp_migrate.state.fleet.commands import Acquire
from tests.state.engines import EtcdServer

TIMEOUT_S = 20.0


async def _protect(server: EtcdServer) -> None:
    """Let etcd ask for a login: `root`, and `fleet`, which may use the prefix only."""
    gateway = EtcdGateway([server.url])
    await gateway.start()
    for user in ("root", "fleet"):
        await gateway.ask("auth/user/add", {"name": user, "password": f"of {user}"})
        await gateway.ask("auth/role/add", {"name": user})
        await gateway.ask("auth/user/grant", {"user": user, "role": user})
    may = {"permType": "READWRITE", "key": encode(b"/fleet/"), "range_end": encode(b"/fleet0")}
    await gateway.ask("auth/role/grant", {"name": "fleet", "perm": may})
    await gateway.ask("auth/enable", {})
    await gateway.close()


async def test_a_login_lets_the_engine_work_below_its_prefix(server: EtcdServer) -> None:
    await _protect(server)
    login = EtcdLogin("fleet", lambda: "of fleet")
    engine = EtcdEngine("a", EtcdSettings([server.url], prefix="/fleet", login=login), time.time)
    await engine.start()
    try:
        assert (await engine.submit(Acquire(name="lock", lifetime_s=60), TIMEOUT_S)).code == ""
        engine._gateway._token = "ended.1"  # noqa: S105 - as one that etcd knows no more
        assert (await engine.submit(Acquire(name="other", lifetime_s=60), TIMEOUT_S)).code == ""
        assert (await engine.status()).state == "client"
    finally:
        await engine.close()


@pytest.mark.parametrize("login", [None, EtcdLogin("fleet", lambda: "wrong")])
async def test_without_the_right_login_nothing_is_answered(server: EtcdServer, login: EtcdLogin | None) -> None:
    await _protect(server)
    gateway = EtcdGateway([server.url], login=login)
    await gateway.start()
    with pytest.raises(CoordinationError, match="login" if login else "answers 400"):
        await gateway.ask("kv/range", {"key": encode(b"/fleet/x")})
    await gateway.close()


async def test_an_etcd_with_its_own_authority_is_verified_and_shown_a_certificate(tmp_path: Path) -> None:
    authority = tmp_path / "pki"
    authority.mkdir()
    pki.create_authority(authority, name="etcd's own")
    certificate, key = pki.issue(authority, "etcd.example.net", addresses=["127.0.0.1"])
    options = (f"--cert-file={certificate}", f"--key-file={key}", f"--trusted-ca-file={authority / 'ca.pem'}")
    server = EtcdServer(tmp_path, *options, "--client-cert-auth", scheme="https")
    server.spawn()

    def context() -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(authority / "ca.pem"))
        made.load_cert_chain(certificate, key)
        return made

    engine = EtcdEngine("a", EtcdSettings([server.url], context), time.time)
    await engine.start()
    try:
        assert (await engine.submit(Acquire(name="lock", lifetime_s=60), TIMEOUT_S)).code == ""
    finally:
        await engine.close()
        server.stop()


async def test_an_endpoint_that_hangs_leaves_time_for_the_next(server: EtcdServer) -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    ended = asyncio.Event()
    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    gateway = EtcdGateway([f"http://127.0.0.1:{port}", server.url])
    await gateway.start()
    began = time.monotonic()
    assert "header" in await gateway.ask("kv/range", {"key": encode(b"/x")})
    assert HANG_S * 0.9 < time.monotonic() - began < 2 * HANG_S
    began = time.monotonic()
    await gateway.ask("kv/range", {"key": encode(b"/x")})
    assert time.monotonic() - began < HANG_S
    await gateway.close()
    ended.set()
    listener.close()
    await listener.wait_closed()


async def test_the_clock_of_the_member_that_answers_is_known(server: EtcdServer) -> None:
    gateway = EtcdGateway([server.url])
    await gateway.start()
    await gateway.ask("kv/range", {"key": encode(b"/x")})
    assert gateway.server_time is not None
    assert abs(gateway.server_time - time.time()) < 3
    await gateway.close()


async def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(CoordinationError, match="must be URLs"):
        await EtcdGateway(["127.0.0.1:2379"]).start()
