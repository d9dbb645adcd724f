"""Greeting of a channel: a hello that binds the sender's signing key to the TLS connection that it came on.

Rule: a name in a TLS certificate is the certificate authority's word. A member's messages count only if the key that
the membership has for it signed the hello: for this cluster, role and receiver, and for the very certificate that the
connection showed. So an authority that can issue certificates for all names can still speak for no member.

A hello also carries the random name of the sender's journal. A member that comes back with another one has lost what it
promised: replicas that knew the old one turn it away until the membership has a new key for it.
"""

import ssl
from pathlib import Path
from typing import Final

import msgspec

from dwcp_migrate.consensus.pbft.model.keys import HELLO, SigningIdentity, compute_digest, is_signed
from dwcp_migrate.consensus.pbft.model.messages import VERSION, Hello, Role, encode_body
from dwcp_migrate.errors import ConfigError

_END: Final = "-----END CERTIFICATE-----"


class Greeter:
    """Makes the hellos of one end.

    Args:
        name: of this host.
        identity: its key.
        cluster: name of the group.
        role: of this end.
        certificate: PEM file of this host's TLS certificate, read anew for each hello; a chain begins with it.
        journal: random name of its journal; empty for a client.
    """

    def __init__(
        self,
        name: str,
        identity: SigningIdentity,
        cluster: bytes,
        role: Role,
        certificate: Path,
        journal: bytes = b"",
    ) -> None:
        self._name = name
        self._identity = identity
        self._certificate = certificate
        self._plain = Hello(VERSION, cluster, role, 0, journal)

    def hello(self, peer: str, highest: int = 0) -> Hello:
        """Greet a peer.

        Args:
            peer: its name.
            highest: number of its last request that was executed here.

        Raises:
            ConfigError: this host's certificate cannot be read now.
        """
        hello = msgspec.structs.replace(self._plain, highest=highest)
        try:
            text = self._certificate.read_text()
            shown = compute_digest(ssl.PEM_cert_to_DER_cert(text[: text.index(_END) + len(_END)]))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self._certificate} is no certificate: {error}", hint="see [tls]") from error
        data = _statement(hello, self._name, peer, shown)
        return msgspec.structs.replace(hello, signature=self._identity.sign(HELLO, hello.cluster, data))


def is_bound(hello: Hello, key: bytes, sender: str, receiver: str, shown: bytes) -> bool:
    """Tell whether a hello is of the owner of `key`, and of the connection that it came on.

    Args:
        hello: as it came.
        key: the sender's, as the membership has it.
        sender: its name.
        receiver: this host's name.
        shown: digest of the certificate that the connection proved.
    """
    return is_signed(key, HELLO, hello.cluster, _statement(hello, sender, receiver, shown), hello.signature)


def _statement(hello: Hello, sender: str, receiver: str, shown: bytes) -> bytes:
    """Lay out what a hello's signature covers."""
    return encode_body((hello.version, hello.role, hello.journal, sender, receiver, shown))
