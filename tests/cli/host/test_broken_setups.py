"""Hosts that are broken on purpose: `doctor` and `config check --deep` name each cause and its remedy, also offline.

Kinds: a configuration that is wrong is in `tests/config/broken.py`; here the file is right and the host is not.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dwcp_migrate.api import schema
from dwcp_migrate.cli import run
from dwcp_migrate.cli.host import checks, host_files
from dwcp_migrate.cli.host.check import Check
from dwcp_migrate.cli.host.deep.files import judge_files
from dwcp_migrate.cli.host.deep.network import judge_network
from dwcp_migrate.config import Config, PeerConfig, load
from dwcp_migrate.pki import create_authority, issue
from tests.cli.conftest import make_facts, make_peer

NAME = "hv1.lab"
HOOK = "etc/libvirt/hooks/qemu.d/50-dwcp-migrate"


class BrokenHost:
    """A host whose files lie below a directory; a test breaks one thing of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.peers = ""
        self.more = ""
        create_authority(root / "pki")
        issue(root / "pki", NAME)
        self.ca, self.certificate, self.key = (root / "pki" / name for name in ("ca.pem", f"{NAME}.pem", f"{NAME}.key"))
        hook = root / HOOK
        hook.parent.mkdir(parents=True)
        hook.write_text("#!/bin/sh\n")
        hook.chmod(0o755)
        self.write("proc/sys/net/netfilter/nf_conntrack_count", "10")
        self.write("proc/sys/net/netfilter/nf_conntrack_max", "1000")
        self.write("proc/sys/net/ipv4/tcp_available_congestion_control", "reno cubic")
        self.write("etc/libvirt/qemu.conf", "")

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def config(self) -> Config:
        text = (
            f'name = "{NAME}"\nmetrics_listen = ""\n{self.more}\n'
            f'[tls]\nca = "{self.ca}"\ncertificate = "{self.certificate}"\nkey = "{self.key}"\n{self.peers}'
        )
        return load(self.write("agent.toml", text))

    def judged(self) -> dict[str, Check]:
        """All that is judged without an agent."""
        config = self.config()
        found = checks.Findings(
            facts=None,
            agent_error="the agent does not answer",
            config=config,
            config_error="",
            host=host_files.examine(self.root),
            now=time.time(),
        )
        deep = [*judge_files(config, time.time()), *judge_network(config, agent_runs=False)]
        return {check.id: check for check in [*checks.examine(found), *deep]}


class Breakage(NamedTuple):
    id: str
    what: str
    remedy: str
    break_it: Callable[[BrokenHost], object]


def foreign_ca(host: BrokenHost) -> None:
    create_authority(host.root / "other")
    host.ca = host.root / "other/ca.pem"


def foreign_key(host: BrokenHost) -> None:
    issue(host.root / "pki", "hv9.lab")
    host.key = host.root / "pki/hv9.lab.key"


def other_name(host: BrokenHost) -> None:
    issue(host.root / "pki", "hv9.lab")
    host.certificate, host.key = host.root / "pki/hv9.lab.pem", host.root / "pki/hv9.lab.key"


def locked_key(host: BrokenHost) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    host.key.write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(b"x")))


def peer(host: BrokenHost, address: str, port: int = 1) -> None:
    host.peers = f'[[peers]]\nname = "hv2.lab"\naddresses = ["{address}"]\nport = {port}\n'


def table(host: BrokenHost, text: str) -> None:
    host.peers = text.replace("ROOT", str(host.root))


def empty_password(host: BrokenHost) -> None:
    host.write("password", "\n")
    table(host, '[metrics]\nusername = "u"\npassword_file = "ROOT/password"\n')


OFFLINE = [
    Breakage("tls-ca", "no such file", "cert", lambda host: host.ca.unlink()),
    Breakage("tls-ca", "no PEM certificate", "cert", lambda host: host.ca.write_text("hello")),
    Breakage("tls-ca", "is a directory", "cert", lambda host: setattr(host, "ca", host.root)),
    Breakage("tls-certificate", "no such file", "cert", lambda host: host.certificate.unlink()),
    Breakage("tls-certificate", "no PEM certificate", "cert", lambda host: host.certificate.write_text("")),
    Breakage("tls-chain", "did not issue it", "sign it", foreign_ca),
    Breakage("tls-name", f"name is {NAME}", "issue one", other_name),
    Breakage("tls-key", "no such file", "0640", lambda host: host.key.unlink()),
    Breakage("tls-key", "no PEM key", "0640", lambda host: host.key.write_text("hello")),
    Breakage("tls-key", "not the key of", "0640", foreign_key),
    Breakage("tls-key", "passphrase", "0640", locked_key),
    Breakage("tls-key", "everyone may read", "0640", lambda host: host.key.chmod(0o644)),
    Breakage("hook-installed", "not there", "mode 0755", lambda host: (host.root / HOOK).unlink()),
    Breakage("hook-installed", "not executable", "mode 0755", lambda host: (host.root / HOOK).chmod(0o644)),
    Breakage("hook-installed", "everyone may write", "mode 0755", lambda host: (host.root / HOOK).chmod(0o777)),
    Breakage(
        "ports",
        "40000-49215",
        "port_min",
        lambda host: host.write("etc/libvirt/qemu.conf", "migration_port_min = 40000\n"),
    ),
    Breakage(
        "migration-host",
        "192.0.2.7",
        "migration_host",
        lambda host: host.write(
            "etc/libvirt/qemu.conf", 'migration_host = "192.0.2.8"\nmigration_address = "192.0.2.7"\n'
        ),
    ),
    Breakage(
        "conntrack",
        "not to be seen",
        "modprobe nf_conntrack",
        lambda host: (host.root / "proc/sys/net/netfilter/nf_conntrack_count").unlink(),
    ),
    Breakage(
        "conntrack",
        "990 of 1000",
        "nf_conntrack_max",
        lambda host: host.write("proc/sys/net/netfilter/nf_conntrack_count", "990"),
    ),
    Breakage(
        "congestion-control",
        "not offered",
        "modprobe tcp_bbr",
        lambda host: table(host, '[link]\ncongestion_control = "bbr"\n'),
    ),
    Breakage("mark", "0x8000", "remove intercept.mark", lambda host: table(host, "[intercept]\nmark = 0x8000\n")),
    Breakage("dns-none.invalid", "resolves to nothing", "getent", lambda host: peer(host, "none.invalid")),
    Breakage("memory", "1.0 TiB", "quarter", lambda host: table(host, '[encoding]\ncache_bytes = "1TiB"\n')),
    Breakage(
        "record-directory",
        "no directory",
        "mode 0700",
        lambda host: table(host, '[record]\ndirectory = "ROOT/none"\n'),
    ),
    Breakage(
        "file-coordination.etcd.ca",
        "no such file",
        "coordination.etcd.ca",
        lambda host: table(host, '[coordination.etcd]\nca = "ROOT/none"\n'),
    ),
    Breakage(
        "file-metrics.password_file",
        "empty",
        "metrics.password_file",
        empty_password,
    ),
]


@pytest.fixture
def host(tmp_path: Path) -> BrokenHost:
    return BrokenHost(tmp_path)


def test_a_host_in_order_has_nothing_wrong_but_that_no_agent_runs(host: BrokenHost) -> None:
    host.more = 'runtime_directory = "/run/nobody"'
    wrong = {check.id for check in host.judged().values() if check.verdict == "fail"}
    assert wrong == {"agent"}


@pytest.mark.parametrize("breakage", OFFLINE, ids=lambda one: f"{one.id}-{one.what}")
def test_a_broken_set_up_is_named_with_its_cause_and_remedy_offline(host: BrokenHost, breakage: Breakage) -> None:
    breakage.break_it(host)
    found = host.judged()[breakage.id]
    assert found.verdict != "ok"
    assert breakage.what in found.what
    assert breakage.remedy in found.remedy


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_another_program_holds_is_named(host: BrokenHost, listening: int) -> None:
    table(host, f'[link]\nlisten = "127.0.0.1"\nport = {listening}\n')
    found = host.judged()["port-link.port"]
    assert (found.verdict, "address already in use" in found.what) == ("fail", True)
    assert f"sport = {listening}" in found.remedy


def test_a_peer_that_refuses_and_one_that_accepts_are_told_apart(listening: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        closed = gone.getsockname()[1]
    peers = [PeerConfig("hv2", ["127.0.0.1"], listening), PeerConfig("hv3", ["127.0.0.1"], closed)]
    found = {check.id: check for check in judge_network(Config(peers=peers), agent_runs=True)}
    assert found["peer-hv2-127.0.0.1"].verdict == "ok"
    assert "refused" in found["peer-hv3-127.0.0.1"].what
    assert str(closed) in found["peer-hv3-127.0.0.1"].remedy


def test_an_expired_certificate_is_named(host: BrokenHost) -> None:
    later = time.time() + 10 * 365 * 86400
    found = {check.id: check for check in judge_files(host.config(), later)}
    assert "expired" in found["tls-certificate"].what


def test_a_certificate_of_the_future_points_to_the_clock(host: BrokenHost) -> None:
    found = {check.id: check for check in judge_files(host.config(), time.time() - 86400)}
    assert "not valid yet" in found["tls-certificate"].what


def test_a_key_that_this_user_may_not_read_is_named(host: BrokenHost) -> None:
    if os.geteuid() == 0:
        host.key = Path("/proc/self/mem")  # nobody reads its first page
        assert host.judged()["tls-key"].verdict == "fail"
    else:
        host.key.chmod(0)
        assert "permission denied" in host.judged()["tls-key"].what


ONLINE = [
    ("redirect", {"intercept": schema.RedirectStatus(wanted=True, armed=False, error="EPERM", port_min=1, port_max=2)}),
    ("libvirt", {"libvirt": schema.Libvirt(uri="qemu:///system", connected=False, error="refused")}),
    ("hook-socket", {"hook": schema.Hook(socket="/s", listening=False, last_at=0.0, pending=0)}),
    ("certificate-name", {"name_in_certificate": False}),
    ("tls-key", {"tls_error": "TLS file /k: Permission denied"}),
    ("listener-link", {"listeners": [schema.ListenerStatus(use="link", address="a", listening=False, error="taken")]}),
    ("peers", {"peers": []}),
    ("peer-hv2", {"peers": [make_peer(reachable=False, code="certificate", error="expired")]}),
    ("peer-hv2", {"peers": [make_peer(clock_ahead_s=60.0)]}),
    ("peer-hv2", {"peers": [make_peer(calls_us="other.lab")]}),
    ("peer-hv2", {"peers": [make_peer(silent={"192.0.2.9": "no answer"})]}),
    ("addresses-hv2", {"peers": [make_peer(not_redirected="its name resolves to nothing")]}),
    ("data-process", {"spare_ready": False}),
    ("history", {"history_error": "no space left"}),
    ("core-dumps", {"core_dumps_off": False}),
    ("configuration", {"configuration_error": "agent.toml:3: link.chanels = 3"}),
    ("pending-restart", {"pending_restart": ["link.port"]}),
    ("descriptors", {"open_descriptors": 99, "open_descriptors_max": 100}),
    ("agent", {"state": "draining"}),
]


@pytest.mark.parametrize(("check", "broken"), ONLINE, ids=lambda one: str(one)[:60])
def test_a_broken_set_up_is_named_with_its_remedy_by_a_running_agent(
    host: BrokenHost, check: str, broken: dict[str, object]
) -> None:
    findings = checks.Findings(
        facts=make_facts(**broken),
        agent_error="",
        config=host.config(),
        config_error="",
        host=host_files.examine(host.root),
        now=time.time(),
    )
    found = {one.id: one for one in checks.examine(findings)}[check]
    assert found.verdict != "ok"
    assert found.remedy


def test_there_are_thirty_broken_set_ups_of_which_most_need_no_agent() -> None:
    assert len(OFFLINE) + 5 >= 30
    assert len(OFFLINE) + 5 + len(ONLINE) >= 45


def test_check_deep_tells_what_is_wrong_with_the_host(host: BrokenHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.more = f'runtime_directory = "{host.root}"'
    host.config()
    file = str(host.root / "agent.toml")
    assert run(["config", "check", "--deep", file]) == 0
    assert capsys.readouterr().out.endswith(f"{file}: ok, 0 peers\n")
    host.key.unlink()
    assert run(["config", "check", "--deep", file]) == 1
    assert "FAIL  tls-key" in capsys.readouterr().out
    assert run(["config", "check", "--deep", "--json", file]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["faults"]) == (False, [])
    assert "tls-key" in [check["id"] for check in told["checks"] if check["verdict"] == "fail"]
