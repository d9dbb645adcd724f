"""Files that a configuration names, read and held against each other; its sizes against this machine."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from dwcp_migrate.cli.host.check import Check, advised_check, required_check
from dwcp_migrate.config import Config, TlsConfig
from dwcp_migrate.units import MIB, format_bytes

PEM_BYTES_MAX: Final = MIB
CONNECT_S_MAX: Final = 3.0
CONNECTIONS_AT_ONCE_MAX: Final = 32
DAY_S: Final = 86400.0
MEMORY_SHARE_MAX: Final = 0.25
"""Of this host's memory, for one migration's page cache; the other side of a second one needs as much again."""

_TLS_WHY: Final = "agents prove who they are to each other with these files; without them migrations run unaccelerated"


def judge_files(config: Config, now: float) -> Iterator[Check]:
    """Judge the files that a configuration names, and its sizes against this machine.

    Args:
        config: to judge.
        now: seconds since the epoch.
    """
    yield from _tls(config.tls, config.name, now)
    yield from _other_files(config)
    yield _memory(config)


def _tls(tls: TlsConfig, name: str, now: float) -> Iterator[Check]:
    authority, why_ca = _certificate(tls.ca)
    host, why_host = _certificate(tls.certificate)
    for use, path, found, why in (("ca", tls.ca, authority, why_ca), ("certificate", tls.certificate, host, why_host)):
        trouble = why or (found and _dates(found, now)) or ""
        yield _file(f"tls-{use}", path, trouble, "`dwcp-migrate cert` makes one; an expired one is issued anew")
    if host is not None:
        yield _file("tls-chain", tls.certificate, _chain(host, authority), "sign it with the CA that tls.ca names")
        yield _file("tls-name", tls.certificate, _names(host, name), f"issue one for {name}, or correct name")
    yield _file("tls-key", tls.key, _key(tls.key, host), "install -o root -g dwcp-migrate -m 0640 KEY here")


def _file(check: str, path: Path | str, trouble: str, remedy: str) -> Check:
    return required_check(check, hold=not trouble, what=f"{path}: {trouble or 'good'}", why=_TLS_WHY, remedy=remedy)


def _certificate(path: Path) -> tuple[x509.Certificate | None, str]:
    content, why = _content(path)
    if why:
        return None, why
    try:
        return x509.load_pem_x509_certificates(content)[0], ""
    except ValueError:
        return None, "it is no PEM certificate"


def _content(path: Path | str) -> tuple[bytes, str]:
    try:
        with Path(path).open("rb") as file:
            return file.read(PEM_BYTES_MAX), ""
    except OSError as error:
        return b"", f"{error.strerror or error}".lower()


def _dates(found: x509.Certificate, now: float) -> str:
    if now < found.not_valid_before_utc.timestamp():
        return "it is not valid yet: compare this host's clock"
    return "it has expired" if now > found.not_valid_after_utc.timestamp() else ""


def _chain(host: x509.Certificate, authority: x509.Certificate | None) -> str:
    if authority is None:
        return ""  # said of the CA's own file
    try:
        host.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return "tls.ca did not issue it"
    return ""


def _names(host: x509.Certificate, name: str) -> str:
    try:
        found = host.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "it names no host"
    names = [one.lower() for one in found.get_values_for_type(x509.DNSName)]
    if name and name.lower() not in names:
        return f"it is for {', '.join(names) or 'nobody'}, and name is {name}"
    return "" if names else "it names no host"


def _key(path: Path, host: x509.Certificate | None) -> str:
    content, why = _content(path)
    if why:
        return why
    if Path(path).stat().st_mode & stat.S_IROTH:
        return "everyone may read it"
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        return "it has a passphrase, and the agent cannot ask for it"
    except ValueError:
        return "it is no PEM key"
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if host is not None and key.public_key().public_bytes(*form) != host.public_key().public_bytes(*form):
        return "it is not the key of tls.certificate"
    return ""


def _other_files(config: Config) -> Iterator[Check]:
    etcd, pbft, access = config.coordination.etcd, config.coordination.pbft, config.metrics
    files = {
        "coordination.etcd.ca": etcd.ca,
        "coordination.etcd.certificate": etcd.certificate,
        "coordination.etcd.key": etcd.key,
        "coordination.etcd.password_file": etcd.password_file,
        "coordination.pbft.key": str(pbft.key) if pbft.is_used else "",
        "metrics.certificate": access.certificate,
        "metrics.key": access.key,
        "metrics.password_file": access.password_file,
    }
    for key, path in files.items():
        if path:
            content, why = _content(path)
            trouble = why or ("" if content.strip() else "it is empty")
            yield required_check(
                f"file-{key}",
                hold=not trouble,
                what=f"{key}, {path}: {trouble or 'readable'}",
                why="what needs it does not start without it",
                remedy=f"correct {key}, or put the file in place, readable by the agent's user",
            )
    if config.record.directory:
        there = Path(config.record.directory).is_dir()
        yield required_check(
            "record-directory",
            hold=there,
            what=f"{config.record.directory} is {'there' if there else 'no directory'}",
            why="recordings go there",
            remedy="make it, mode 0700, owned by the agent's user; or leave record.directory out",
        )


def _memory(config: Config) -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cache = config.encoding.cache_bytes
    return advised_check(
        "memory",
        hold=cache <= MEMORY_SHARE_MAX * total,
        what=f"encoding.cache_bytes is {format_bytes(cache)}, this host has {format_bytes(total)}",
        why="each migration may take so much on both hosts, beside the guests",
        remedy=f"at most a quarter of the memory: {format_bytes(MEMORY_SHARE_MAX * total)}",
    )
