"""A small CA for fleets that have none: one authority, one certificate a host.

Rule: private keys are born 0600 and appear whole or not at all; nothing is overwritten unless asked. A host can make
its key itself and have a request signed (`request`, `sign`), so that no key ever travels.
Profile: EC P-256, SHA-256, extensions as RFC 5280 demands, so that strict verifiers take them too. A host's certificate
serves both sides of TLS, since every host is source and destination.
"""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dwcp_migrate.durable import make_directory, write_whole
from dwcp_migrate.errors import ConfigError

AUTHORITY_DAYS: Final = 3650
"""A fleet's lifetime; replacing the CA touches every host."""
HOST_DAYS: Final = 397
"""Longest validity that public CAs may issue; agents read renewed files without a restart."""
DAYS_MAX: Final = 36_500
"""A century; past it the dates of X.509 end before long."""
RENEWAL_SHARE: Final = 1 / 3
"""A certificate is due when less than this share of its life is left: time for several roll-outs to fail."""
CLOCK_SKEW: Final = dt.timedelta(hours=1)
"""Hosts whose clock is behind accept a new certificate all the same."""
AUTHORITY_FILE: Final = "ca"


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """Content of a certificate.

    Attributes:
        subject: its common name.
        names: DNS names and addresses that it holds for.
        not_before: start of its life, seconds since the epoch.
        not_after: its end.
        is_due: whether less than `RENEWAL_SHARE` of its life is left.
    """

    subject: str
    names: tuple[str, ...]
    not_before: float
    not_after: float
    is_due: bool


def create_authority(
    directory: Path, *, name: str = "dwcp-migrate fleet CA", days: int = AUTHORITY_DAYS, force: bool = False
) -> tuple[Path, Path]:
    """Make `ca.pem` and `ca.key`; the key is to be kept off the hosts.

    Args:
        directory: where they are written; made if it is not there.
        name: common name of the authority, for people.
        days: lifetime from now, at most `DAYS_MAX`.
        force: replace an authority that is there.

    Returns:
        Paths of the certificate and of the key.

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
    paths = _paths(directory, name)
    _refuse_existing(paths, force=force)
    key = ec.generate_private_key(ec.SECP256R1())
    names = _alternative_names(name, addresses)
    _write_pair(paths, _certify(directory, name, names, key.public_key(), days), key)
    return paths


def request(
    directory: Path, name: str, *, addresses: Sequence[str] = (), force: bool = False, group: int | None = None
) -> tuple[Path, Path]:
    """Make `NAME.csr` and `NAME.key` in `directory`, on the host that is to use them; returns their paths.

    Args:
        directory: where they are to lie.
        name: the host's DNS name, as peers configure it.
        addresses: IP addresses to ask for beside it.
        force: make a new key where one exists; without, an existing key is kept and asks again.
        group: id of the group that may read the key too, an existing one as well, and enter a directory made here.

    Raises:
        ConfigError: a name or address that is none, a key that cannot be read, or a write that failed.
    """
    _check_name(name)
    csr_path, key_path = directory / f"{name}.csr", directory / f"{name}.key"
    key = _load_key(key_path) if key_path.exists() and not force else ec.generate_private_key(ec.SECP256R1())
    _write(key_path, _private_pem(key), 0o600 if group is None else 0o640, group)
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(name))
    builder = builder.add_extension(_alternative_names(name, addresses), critical=False)
    _write(csr_path, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), 0o644, group)
    return csr_path, key_path


def sign(directory: Path, csr_path: Path, *, name: str, days: float = HOST_DAYS, force: bool = False) -> Path:
    """Sign a host's request with the authority in `directory`; returns the path of `NAME.pem` there.

    Args:
        directory: where `ca.pem` and `ca.key` are.
        csr_path: the request, PEM.
        name: the host that it is from; a request for any other name is refused.
        days: lifetime from now.
        force: overwrite.

    Raises:
        ConfigError: no request, one with a wrong signature or of another host, no authority, or a failed write.
    """
    _check_name(name)
    path = directory / f"{name}.pem"
    _refuse_existing((path,), force=force)
    try:
        csr = x509.load_pem_x509_csr(csr_path.read_bytes())
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise ConfigError(f"{csr_path} is no request: {error}", hint="make one with `dwcp-migrate cert csr`") from error
    public_key = csr.public_key()
    asked = names.get_values_for_type(x509.DNSName)
    if not csr.is_signature_valid or asked != [name] or not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise ConfigError(f"{csr_path} asks for {', '.join(asked) or 'nothing'}, not for {name}")
    certificate = _certify(directory, name, names, public_key, days)
    _write(path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return path


def renew(directory: Path, name: str, *, days: float = HOST_DAYS, force: bool = False) -> tuple[Path, Path] | None:
    """Issue `NAME.pem` anew with its names and a new key, if it is due; returns the paths, or None if it is not due.

    Args:
        directory: where the authority and `NAME.pem` are.
        name: the host.
        days: lifetime from now.
        force: renew also one that is not due.

    Raises:
        ConfigError: no such certificate, no authority, or a failed write.
    """
    facts = read_certificate(directory / f"{name}.pem")
    if not facts.is_due and not force:
        return None
    return issue(directory, name, addresses=[one for one in facts.names if one != name], days=days, force=True)


def read_certificate(path: Path) -> CertificateFacts:
    """Read what a certificate says.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no certificate: {error}") from error
    names: list[str] = []
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names = [str(one.value) for one in extension.value]
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    left = end - dt.datetime.now(dt.UTC)
    return CertificateFacts(
        str(common[0].value) if common else "",
        tuple(names),
        start.timestamp(),
        end.timestamp(),
        left < (end - start) * RENEWAL_SHARE,
    )


def _paths(directory: Path, name: str) -> tuple[Path, Path]:
    """Files of a host's certificate and key.

    Raises:
        ConfigError: it is no DNS name, or the authority's own files would be overwritten.
    """
    _check_name(name)
    return directory / f"{name}.pem", directory / f"{name}.key"


def _check_name(name: str) -> None:
    if not _is_dns_name(name):
        raise ConfigError(f"{name!r} is no DNS name", hint="letters, digits, - and . only")
    if name.lower() == AUTHORITY_FILE:
        raise ConfigError(f"{name!r} is the name of the authority's own files", hint="give the host's DNS name")


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _certify(
    directory: Path, name: str, names: x509.SubjectAlternativeName, public_key: ec.EllipticCurvePublicKey, days: float
) -> x509.Certificate:
    """Sign a host's public key; the certificate ends with its authority at the latest."""
    authority, authority_key = _load_authority(directory)
    builder = _builder(_subject(name), authority.subject, public_key, days, latest=authority.not_valid_after_utc)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(authority=False), critical=True)
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    builder = builder.add_extension(names, critical=False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return builder.add_extension(identifier, critical=False).sign(authority_key, hashes.SHA256())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    days: float,
    latest: dt.datetime | None = None,
) -> x509.CertificateBuilder:
    if days > DAYS_MAX:
        raise ConfigError(f"{days:g} days are more than {DAYS_MAX}", hint="give --days a smaller number")
    now = dt.datetime.now(dt.UTC)
    end = now + dt.timedelta(days=days)
    end = min(end, latest) if latest is not None else end
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
    """Read the authority's certificate and key.

    Raises:
        ConfigError: they are not there, have expired, or do not belong together.
    """
    hint = "run `dwcp-migrate cert init`"
    try:
        certificate = x509.load_pem_x509_certificate((directory / f"{AUTHORITY_FILE}.pem").read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"no authority in {directory}: {error}", hint=hint) from error
    key = _load_key(directory / f"{AUTHORITY_FILE}.key")
    if certificate.public_key() != key.public_key():
        raise ConfigError(f"{directory}: ca.key does not belong to ca.pem", hint="put the pair that was made together")
    if certificate.not_valid_after_utc < dt.datetime.now(dt.UTC):
        raise ConfigError(f"{directory}: the authority has expired", hint="make a new one: `dwcp-migrate cert init`")
    return certificate, key


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} is no EC key", hint="run `dwcp-migrate cert init`")
    return key


def _refuse_existing(paths: Sequence[Path], *, force: bool) -> None:
    existing = [path for path in paths if path.exists()]
    if existing and not force:
        raise ConfigError(f"{existing[0]} exists", hint="give --force to replace it")


def _write_pair(paths: tuple[Path, Path], certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    _write(paths[1], _private_pem(key), 0o600)
    _write(paths[0], certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, mode: int, group: int | None = None) -> None:
    """Write a file so that it is either the old one or the new one; a secret one is nobody else's at any moment."""
    try:
        make_directory(path.parent, mode=0o700 if group is None else 0o750, group=group)
        write_whole(path, data, mode=mode, group=group)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
