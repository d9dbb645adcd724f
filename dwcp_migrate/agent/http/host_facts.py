"""Facts about this host that `doctor` judges: certificates, descriptors, core dumps. It reads, it does not judge."""

import ctypes
import resource
from pathlib import Path
from typing import Final, Literal

from cryptography import x509

from dwcp_migrate.api.schema import CertificateExpiry
from dwcp_migrate.config import TlsConfig
from dwcp_migrate.errors import ConfigError
from dwcp_migrate.transport.tls import make_context
from dwcp_migrate.units import MIB

PEM_BYTES_MAX: Final = MIB
"""A file of a fleet CA and its predecessors takes a few KiB."""

_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4


def list_certificates(tls: TlsConfig) -> list[CertificateExpiry]:
    """Describe the files of the `tls` table."""
    return [certificate("ca", tls.ca), certificate("host", tls.certificate)]


def certificate(use: Literal["ca", "host"], path: Path) -> CertificateExpiry:
    """Describe the first certificate of a PEM file.

    Args:
        use: `ca` or `host`.
        path: of the file, of which `PEM_BYTES_MAX` are read.

    Returns:
        With an `error` where it cannot be read.
    """
    try:
        with path.open("rb") as file:
            found = x509.load_pem_x509_certificates(file.read(PEM_BYTES_MAX))[0]
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a PEM certificate"
        return CertificateExpiry(use=use, path=str(path), error=why or str(error))
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = names.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        dns = []
    return CertificateExpiry(
        use=use,
        path=str(path),
        names=dns,
        not_before=found.not_valid_before_utc.timestamp(),
        not_after=found.not_valid_after_utc.timestamp(),
    )


def tls_error(tls: TlsConfig) -> str:
    """Say why the files of the `tls` table are good for nothing together; empty when they are."""
    try:
        make_context("server", tls.ca, tls.certificate, tls.key)
    except ConfigError as error:
        return str(error)
    return ""


def own_name(tls: TlsConfig, host_name: str) -> str:
    """Return the name that peers know this host by: its certificate's, of several the one that begins like its own.

    Args:
        tls: where the certificate is.
        host_name: what the system calls itself; the answer where the certificate names nothing.
    """
    names = certificate("host", tls.certificate).names
    short = host_name.partition(".")[0].lower()
    alike = (name for name in names if name.partition(".")[0].lower() == short)
    return next(alike, names[0] if names else host_name)


def open_descriptors() -> tuple[int, int]:
    """Open descriptors of this process and the limit on them."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def forbid_core_dumps() -> None:
    """Guest memory passes through here and through the data processes, which inherit the limit."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def core_dumps_off() -> bool:
    """Whether `forbid_core_dumps` holds."""
    dumpable = ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    return dumpable == 0 and resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
