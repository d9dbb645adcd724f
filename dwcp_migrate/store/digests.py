"""Names of pages: 128 bits of a keyed SHA-256, with a key of its own for each scope.

A scope is a set of guests that may learn of each other's pages: one that the operator names in `store.scopes`, else
each domain alone. Keys come from one random secret of this host, so that equal pages have different names in two
scopes. Without the key a name does not tell a page's content, and cannot be looked up for a guessed page.

SHA-256 after one block of key needs no HMAC here: the message has one length, and half of the result is cut off. It is
the quickest hash of the standard library where the processor has instructions for it: 3.8 µs a page against 6.4 of
BLAKE2b, which serves to derive keys (measured, docs/known-pages.md).
"""

import hashlib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final, Protocol

import numpy as np

from dwcp_migrate.delta import DIGEST_BYTES
from dwcp_migrate.qemu.layout import Bytes, Words

KEY_BYTES: Final = 32
"""Of a host's secret and of a scope's key."""
BLOCK_BYTES: Final = 64
"""Of SHA-256: the key fills the first one."""
DOMAIN_SCOPE: Final = "domain:"
"""Begins the scope of a domain that no named scope takes; its UUID follows."""


class NamedScope(Protocol):
    """A scope as the configuration names it."""

    @property
    def name(self) -> str:
        """The scope's."""

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of domains, with `*` and `?` as a shell reads them."""


def scope_of(name: str, uuid: str, scopes: Iterable[NamedScope]) -> str:
    """Find the scope of a domain: the first that names it, else its own.

    Args:
        name: of the domain; empty where it is not known.
        uuid: of the domain; empty where it is not known.
        scopes: of the configuration, in its order.

    Returns:
        Empty where nothing is known of the domain.
    """
    for scope in scopes:
        if any(name and fnmatchcase(name, pattern) for pattern in scope.domains):
            return scope.name
    return f"{DOMAIN_SCOPE}{uuid}" if uuid else ""


def key_of(secret: bytes, scope: str) -> bytes:
    """Derive the key of a scope.

    Args:
        secret: of this host, `KEY_BYTES`.
        scope: its name.

    Returns:
        `KEY_BYTES` bytes.
    """
    return hashlib.blake2b(scope.encode(), key=secret, digest_size=KEY_BYTES, person=b"dwcp-scope-key").digest()


def folder_of(secret: bytes, scope: str) -> str:
    """Derive the name of a scope's directory, from which the scope's own name cannot be read.

    Args:
        secret: of this host, `KEY_BYTES`.
        scope: its name.

    Returns:
        32 hexadecimal digits.
    """
    return hashlib.blake2b(scope.encode(), key=secret, digest_size=16, person=b"dwcp-scope-name").hexdigest()


class PageDigest:
    """Names pages of one scope; any thread.

    Args:
        key: of the scope, `KEY_BYTES`.
    """

    def __init__(self, key: bytes) -> None:
        self._begun = hashlib.sha256(key.ljust(BLOCK_BYTES, b"\0"))

    def of(self, pages: Words) -> Bytes:
        """Compute the names uint8[n, 16] of pages uint64[n, 512], which are contiguous."""
        names = bytearray()
        for page in pages:
            state = self._begun.copy()
            state.update(page)
            names += state.digest()[:DIGEST_BYTES]
        return np.frombuffer(names, np.uint8).reshape(-1, DIGEST_BYTES)


def search_keys(names: Bytes) -> Words:
    """Read the first eight bytes of each name uint8[n, 16] as numbers, by which an index is sorted."""
    keys: Words = np.ascontiguousarray(names[:, :8]).view("<u8").reshape(-1).astype(np.uint64, copy=False)
    return keys
