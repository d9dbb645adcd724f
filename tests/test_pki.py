"""The fleet CA: files that appear whole and private, a profile that strict verifiers take, and its command."""

import json
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509

from dwcp_migrate import pki
from dwcp_migrate.cli import run
from dwcp_migrate.errors import CertificateError, ConfigError
from dwcp_migrate.pki import create_authority, issue, read_certificate
from dwcp_migrate.transport.tls import check_peer_name, make_context


def test_keys_are_private_and_nothing_else_is_left_behind(tmp_path: Path) -> None:
    for path in (*create_authority(tmp_path), *issue(tmp_path, "a.example")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if path.suffix == ".key" else 0o644)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.example.key", "a.example.pem", "ca.key", "ca.pem"]


def test_a_certificate_carries_its_names_and_both_usages(tmp_path: Path) -> None:
    create_authority(tmp_path)
    path, _ = issue(tmp_path, "a.example", addresses=["192.0.2.1", "2001:db8::1"])
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1", "2001:db8::1"]
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {usage._name for usage in usages} == {"clientAuth", "serverAuth"}


def test_strict_verifiers_take_both_sides(tmp_path: Path) -> None:
    create_authority(tmp_path)
    for name in ("a.example", "b.example"):
        issue(tmp_path, name)
    ours, theirs = socket.socketpair()
    client = make_context("client", tmp_path / "ca.pem", tmp_path / "a.example.pem", tmp_path / "a.example.key")
    server = make_context("server", tmp_path / "ca.pem", tmp_path / "b.example.pem", tmp_path / "b.example.key")
    for context in (client, server):
        context.verify_flags |= ssl.VERIFY_X509_STRICT

    def serve() -> None:
        with server.wrap_socket(theirs, server_side=True) as channel:
            check_peer_name(channel.getpeercert(), "a.example")
            channel.sendall(b"in")

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(ours, server_hostname="b.example") as channel:
        assert channel.version() == "TLSv1.3"
        assert channel.recv(2) == b"in"
    thread.join()


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    first = create_authority(tmp_path)[0].read_bytes()
    with pytest.raises(ConfigError, match="exists"):
        create_authority(tmp_path)
    assert (tmp_path / "ca.pem").read_bytes() == first
    create_authority(tmp_path, force=True)
    assert (tmp_path / "ca.pem").read_bytes() != first


@pytest.mark.parametrize(
    "name", ["", "../evil", "a b", "-a.example", "a..b", "a" * 64, "a." * 127 + "a" * 3, "ä.example"]
)
def test_what_is_no_dns_name_gets_no_certificate(tmp_path: Path, name: str) -> None:
    create_authority(tmp_path)
    with pytest.raises(ConfigError, match="DNS name"):
        issue(tmp_path, name)


def test_a_wrong_address_and_a_missing_authority_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no authority"):
        issue(tmp_path, "a.example")
    create_authority(tmp_path)
    with pytest.raises(ConfigError, match="192"):
        issue(tmp_path, "a.example", addresses=["192.0.2.256"])


def test_a_peer_is_known_by_its_dns_names_only() -> None:
    certificate = {
        "subject": ((("commonName", "a.example"),),),
        "subjectAltName": (("DNS", "B.example"), ("DNS", "*.c.example"), ("IP Address", "192.0.2.1")),
    }
    check_peer_name(certificate, "b.EXAMPLE")
    for name in ("a.example", "x.c.example", "192.0.2.1"):
        with pytest.raises(CertificateError, match=r"B\.example"):
            check_peer_name(certificate, name)
    with pytest.raises(CertificateError, match="nobody"):
        check_peer_name(None, "a.example")


def test_the_command_makes_a_fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--directory", str(tmp_path / "ca")]
    assert run(["cert", "init", *where]) == 0
    capsys.readouterr()
    assert run(["cert", "issue", "hv1.example", "--address", "192.0.2.1", *where, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert Path(made["key"]).name == "hv1.example.key"
    assert Path(made["certificate"]).exists()
    assert run(["cert", "issue", "hv1.example", *where]) == ConfigError.exit_code
    assert "--force" in capsys.readouterr().err


def test_the_name_of_the_authority_is_no_host(tmp_path: Path) -> None:
    first = create_authority(tmp_path)[0].read_bytes()
    with pytest.raises(ConfigError, match="authority's own files"):
        issue(tmp_path, "ca", force=True)
    assert (tmp_path / "ca.pem").read_bytes() == first


def test_a_certificate_ends_with_its_authority(tmp_path: Path) -> None:
    create_authority(tmp_path, days=10)
    issue(tmp_path, "a.example")
    ends = {name: read_certificate(tmp_path / f"{name}.pem").not_after for name in ("ca", "a.example")}
    assert ends["a.example"] == ends["ca"]


@pytest.mark.parametrize("days", [pki.DAYS_MAX, pki.DAYS_MAX + 1])
def test_a_lifetime_has_a_limit(tmp_path: Path, days: int) -> None:
    if days <= pki.DAYS_MAX:
        create_authority(tmp_path, days=days)
        return
    with pytest.raises(ConfigError, match="days"):
        create_authority(tmp_path, days=days)


def test_a_key_of_another_authority_signs_nothing(tmp_path: Path) -> None:
    create_authority(tmp_path / "one")
    create_authority(tmp_path / "two")
    (tmp_path / "one/ca.key").write_bytes((tmp_path / "two/ca.key").read_bytes())
    with pytest.raises(ConfigError, match="does not belong"):
        issue(tmp_path / "one", "a.example")


def test_an_expired_authority_signs_nothing(tmp_path: Path) -> None:
    create_authority(tmp_path, days=-1)
    with pytest.raises(ConfigError, match="expired"):
        issue(tmp_path, "a.example")


def test_a_key_that_was_born_on_the_host_never_leaves_it(tmp_path: Path) -> None:
    create_authority(tmp_path / "ca")
    csr, key = pki.request(tmp_path / "host", "a.example", addresses=["192.0.2.1"])
    path = pki.sign(tmp_path / "ca", csr, name="a.example")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(file.name for file in (tmp_path / "ca").iterdir()) == ["a.example.pem", "ca.key", "ca.pem"]
    assert read_certificate(path).names == ("a.example", "192.0.2.1")
    make_context("server", tmp_path / "ca/ca.pem", path, key)


def test_a_second_request_keeps_the_key_unless_forced(tmp_path: Path) -> None:
    _, key = pki.request(tmp_path, "a.example")
    first = key.read_bytes()
    pki.request(tmp_path, "a.example")
    assert key.read_bytes() == first
    pki.request(tmp_path, "a.example", force=True)
    assert key.read_bytes() != first


def test_a_request_for_another_host_is_refused(tmp_path: Path) -> None:
    create_authority(tmp_path)
    csr, _ = pki.request(tmp_path / "host", "b.example")
    with pytest.raises(ConfigError, match=r"asks for b\.example"):
        pki.sign(tmp_path, csr, name="a.example")
    (tmp_path / "none.csr").write_text("nothing")
    with pytest.raises(ConfigError, match="no request"):
        pki.sign(tmp_path, tmp_path / "none.csr", name="a.example")


def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left(tmp_path: Path) -> None:
    create_authority(tmp_path)
    path, _ = issue(tmp_path, "a.example", addresses=["192.0.2.1"])
    first = path.read_bytes()
    assert pki.renew(tmp_path, "a.example") is None
    assert path.read_bytes() == first
    issue(tmp_path, "a.example", addresses=["192.0.2.1"], days=0.01, force=True)  # an hour old at its birth: due
    assert read_certificate(path).is_due
    assert pki.renew(tmp_path, "a.example") is not None
    assert read_certificate(path).names == ("a.example", "192.0.2.1")
    assert not read_certificate(path).is_due


def test_the_command_says_when_a_certificate_is_due(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create_authority(tmp_path)
    issue(tmp_path, "a.example")
    assert run(["cert", "show", str(tmp_path / "a.example.pem")]) == 0
    assert "not due" in capsys.readouterr().out
    assert run(["cert", "renew", "a.example", "--directory", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "a.example: not due\n"
    assert run(["cert", "csr", "b.example", "--directory", str(tmp_path / "b")]) == 0
    assert run(["cert", "sign", "b.example", str(tmp_path / "b/b.example.csr"), "--directory", str(tmp_path)]) == 0
    assert (tmp_path / "b.example.pem").exists()
