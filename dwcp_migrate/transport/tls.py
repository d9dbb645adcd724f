"""TLS contexts of the agents' link: 1.3 only, both sides prove a certificate of the fleet's CA, nothing else counts.

Rule: no system trust store, no older version, no anonymous side. The name is checked on both sides: by OpenSSL on the
side that dials, by `check_peer_name` on the other.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from dwcp_migrate.errors import CertificateError, ConfigError, DwcpError, RemoteProtocolError
from dwcp_migrate.net import dns_names

_ALERTS: Final = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_UNKNOWN_CA",
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
    }
)
"""OpenSSL's names of the alerts of a peer that does not accept our certificate."""


def make_context(side: Literal["client", "server"], ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """Read the PEM files and make a context; call it anew for each session, so that renewed files count at once.

    Args:
        side: `client` dials, `server` is dialled.
        ca: PEM file of the fleet's authority.
        certificate: PEM file of this host's certificate.
        key: PEM file of its key.

    Raises:
        ConfigError: a file is missing, unreadable, or not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if side == "client" else ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    if side == "server":
        context.num_tickets = 0  # resumption would skip the client's certificate
    try:
        context.load_verify_locations(cafile=ca)
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            _files_fault(error, ca, certificate, key), hint="make them with `dwcp-migrate cert`"
        ) from error
    return context


def _files_fault(error: OSError, ca: Path, certificate: Path, key: Path) -> str:
    """Say which of the files is wrong, as far as that can be seen: OpenSSL names none."""
    for path in (ca, certificate, key):
        try:
            with path.open("rb"):
                pass
        except OSError as unreadable:
            return f"TLS file {path}: {unreadable.strerror}"
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"TLS file {key} is not the key of {certificate}"
    return f"TLS files {ca}, {certificate}, {key}: {error}"


class ContextCache:
    """A context for any number of connections, made anew when one of its files changed.

    Every peer that reaches a port makes the agent need one, and three files are too much to read and parse each time.
    """

    def __init__(self, side: Literal["client", "server"]) -> None:
        self._side: Literal["client", "server"] = side
        self._kept: tuple[tuple[object, ...], ssl.SSLContext] | None = None

    def get(self, ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
        """See `make_context`; what it raises is raised at each call."""
        try:
            files = [(path, path.stat()) for path in (ca, certificate, key)]
        except OSError:
            return make_context(self._side, ca, certificate, key)  # raises the error
        state = tuple((path, found.st_mtime_ns, found.st_size, found.st_ino) for path, found in files)
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, make_context(self._side, ca, certificate, key))
        return self._kept[1]


def check_peer_name(certificate: Mapping[str, Any] | None, name: str) -> None:
    """Demand that the certificate carries `name` among its DNS names, as it is: no wildcards, no common name.

    Args:
        certificate: as `SSLSocket.getpeercert` returns it.
        name: the peer's configured name.

    Raises:
        CertificateError: it carries other names.
    """
    names = dns_names(certificate)
    if name.lower() not in (value.lower() for value in names):
        raise CertificateError(
            f"the peer's certificate is for {', '.join(names) or 'nobody'}, expected {name}",
            hint="compare [[peers]] name with the certificate's DNS names",
        )


def as_typed(error: ssl.SSLError) -> DwcpError:
    """Translate a TLS failure: a certificate that one side refuses, or bytes that are not TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return CertificateError(
            f"the peer's certificate was refused: {error.verify_message}",
            hint="check its CA, its dates and its DNS name",
        )
    if error.reason in _ALERTS:
        return CertificateError(
            f"the peer refused our certificate: {error.reason}", hint="check our certificate and the peer's clock"
        )
    return RemoteProtocolError(f"TLS failed: {error.reason or error}")
