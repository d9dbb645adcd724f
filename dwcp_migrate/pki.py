"""A small CA for fleets that have none: one authority, one certificate a host.

Rule: private keys are born 0600 and appear whole or not at all; nothing is overwritten unless asked.
Profile: EC P-256, SHA-256, extensions as RFC 5280 demands, so that strict verifiers take them too. A host's certificate
serves both sides of TLS, since every host is source and destination.
"""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dwcp_migrate.durable import write_whole
from dwcp_migrate.errors import ConfigError

AUTHORITY_DAYS: Final = 3650
"""A fleet's lifetime; replacing the CA touches every host."""
HOST_DAYS: Final = 397
"""What public CAs may issue at most; agents read renewed files without a restart."""
CLOCK_SKEW: Final = dt.timedelta(hours=1)
"""Hosts whose clock is behind accept a new certificate all the same."""


def create_authority(
    directory: Path, *, name: str = "dwcp-migrate fleet CA", days: int = AUTHORITY_DAYS, force: bool = False
) -> tuple[Path, Path]:
    """Make `ca.pem` and `ca.key` in `directory`; returns their paths. Keep the key off the hosts.

    Raises:
        ConfigError: they exist and `force` is not set, or cannot be written.
    """
    paths = directory / "ca.pem", directory / "ca.key"
    _refuse_existing(paths, force=force)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(authority=True), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    _write_pair(paths, certificate, key)
    return paths


def issue(
    directory: Path,
    name: str,
    *,
    addresses: Sequence[str] = (),
    days: float = HOST_DAYS,
    force: bool = False,
) -> tuple[Path, Path]:
    """Make `NAME.pem` and `NAME.key` in `directory`, signed by the authority there; returns their paths.

    Args:
        directory: where `ca.pem` and `ca.key` are.
        name: the host's DNS name, as peers configure it.
        addresses: IP addresses to put beside it; agents do not look at them.
        days: lifetime from now; negative makes an expired one, for tests of refusal.
        force: overwrite.

    Raises:
        ConfigError: no authority there, a name or address that is none, files that exist, or a write that failed.
    """
    if not _is_dns_name(name):
        raise ConfigError(f"{name!r} is no DNS name", hint="letters, digits, - and . only")
    paths = directory / f"{name}.pem", directory / f"{name}.key"
    _refuse_existing(paths, force=force)
    authority, authority_key = _load_authority(directory)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    builder = _builder(subject, authority.subject, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(authority=False), critical=True)
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    builder = builder.add_extension(_alternative_names(name, addresses), critical=False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = builder.add_extension(identifier, critical=False)
    _write_pair(paths, builder.sign(authority_key, hashes.SHA256()), key)
    return paths


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    end = now + dt.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(name: str, addresses: Sequence[str]) -> x509.SubjectAlternativeName:
    try:
        parsed = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    except ValueError as error:
        raise ConfigError(str(error), hint="give --address IP") from error
    return x509.SubjectAlternativeName([x509.DNSName(name), *parsed])


def _is_dns_name(name: str) -> bool:
    """Hold the rules of host names (RFC 1123, 2.1); it also becomes a file name."""
    labels = name.split(".")
    return len(name) <= 253 and all(  # noqa: PLR2004 - RFC 1035, 2.3.4
        0 < len(label) <= 63  # noqa: PLR2004 - the same
        and label.isascii()
        and label.replace("-", "a").isalnum()
        and not label.startswith("-")
        and not label.endswith("-")
        for label in labels
    )


def _load_authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"no authority in {directory}: {error}", hint="run `dwcp-migrate cert init`") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{directory / 'ca.key'} is no EC key", hint="run `dwcp-migrate cert init`")
    return certificate, key


def _refuse_existing(paths: tuple[Path, Path], *, force: bool) -> None:
    existing = [path for path in paths if path.exists()]
    if existing and not force:
        raise ConfigError(f"{existing[0]} exists", hint="give --force to replace it")


def _write_pair(paths: tuple[Path, Path], certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(paths[1], pem, 0o600)
    _write(paths[0], certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file so that it is either the old one or the new one; a secret one is nobody else's at any moment."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, data, mode=mode)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
