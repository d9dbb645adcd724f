"""Snapshots of the fleet's state in etcd: one value where it is small, parts of their own where it is not.

Etcd takes requests of 1.5 MiB (its default). A larger state is put in parts first; the transaction that makes it the
snapshot demands that the one before is still the one that this host knows, and deletes the entries that the new one
holds and all parts of others.

    PREFIX/snapshot               number of the last entry | state | parts | their name | digest of the state
    PREFIX/snapshot/NAME/000      a part

Release 0.1.0 reads the first two fields: it takes a small state, and stops with an error at one in parts.
"""

from hashlib import blake2b
from secrets import token_hex
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from dwcp_migrate.errors import CoordinationError
from dwcp_migrate.state.etcd.gateway import EtcdGateway, decode, encode
from dwcp_migrate.units import MIB

PART_BYTES: Final = 1 * MIB

PARTS_MAX: Final = 64
"""All tables of the model full take about half of it."""

ATTEMPTS_MAX: Final = 5
"""Reads of a snapshot whose parts another host has replaced meanwhile."""


class EtcdSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot, or where its parts are.

    Attributes:
        number: of the last entry that it holds.
        state: as `model.encode` writes it; empty when it is in parts.
        parts: how many.
        name: theirs.
        digest: of the whole state; empty in those of release 0.1.0.
    """

    number: int
    state: bytes
    parts: Annotated[int, Meta(ge=0, le=PARTS_MAX)] = 0
    name: str = ""
    digest: bytes = b""


class EtcdSnapshots:
    """The newest snapshot, as far as this host knows it.

    Args:
        gateway: to etcd.
        prefix: of all keys.

    Attributes:
        number: of the last entry that it holds; 0 before the first.
    """

    def __init__(self, gateway: EtcdGateway, prefix: str) -> None:
        self._gateway = gateway
        self._prefix = prefix
        self._revision = "0"
        self.number = 0

    @property
    def unchanged(self) -> dict[str, Any]:
        """The condition of a transaction that the snapshot is the one that this host knows."""
        return {"key": self._key("snapshot"), "target": "MOD", "result": "EQUAL", "mod_revision": self._revision}

    @property
    def revision_range(self) -> dict[str, Any]:
        """The range that says the snapshot's revision without its value."""
        return {"key": self._key("snapshot"), "keys_only": True}

    def is_new(self, found: list[dict[str, Any]]) -> bool:
        """Say whether what `revision_range` found is another snapshot than the one that this host knows."""
        return (found[0]["mod_revision"] if found else "0") != self._revision

    async def load(self) -> EtcdSnapshot | None:
        """Read the newest snapshot and its parts; None where there is none.

        Raises:
            CoordinationError: it is damaged, or etcd does not answer.
        """
        for _ in range(ATTEMPTS_MAX):
            found = (await self._gateway.ask("kv/range", {"key": self._key("snapshot")})).get("kvs", [])
            if not found:
                self._revision, self.number = "0", 0
                return None
            stored = msgspec.msgpack.decode(decode(found[0]["value"]), type=EtcdSnapshot)
            state = await self._state(stored)
            if state is None:
                continue
            if stored.digest and _digest(state) != stored.digest:
                raise CoordinationError("the snapshot in etcd is damaged", hint="restore etcd's data")
            self._revision, self.number = found[0]["mod_revision"], stored.number
            return EtcdSnapshot(stored.number, state)
        raise CoordinationError("the snapshot in etcd changes faster than it can be read")

    async def _state(self, stored: EtcdSnapshot) -> bytes | None:
        """Put the parts together; None when another host has deleted them."""
        if not stored.parts:
            return stored.state
        parts: list[bytes] = []
        for number in range(stored.parts):
            key = self._key(f"snapshot/{stored.name}/{number:03d}")
            found = (await self._gateway.ask("kv/range", {"key": key})).get("kvs", [])
            if not found:
                return None
            parts.append(decode(found[0]["value"]))
        return b"".join(parts)

    async def write(self, number: int, state: bytes) -> None:
        """Make a state the newest snapshot and delete what it holds, unless another host was first.

        Args:
            number: of the last entry that the state holds.
            state: as `model.encode` writes it.

        Raises:
            CoordinationError: etcd does not answer, or the state is too large for it.
        """
        parts = [state[at : at + PART_BYTES] for at in range(0, len(state), PART_BYTES)]
        if len(parts) > PARTS_MAX:
            raise CoordinationError(f"a state of {len(state)} bytes, at most {PARTS_MAX * PART_BYTES}")
        name = f"{number:016d}-{token_hex(8)}"
        stored = EtcdSnapshot(number, state, 0, "", _digest(state))
        if len(parts) > 1:
            stored = EtcdSnapshot(number, b"", len(parts), name, _digest(state))
            for position, part in enumerate(parts):
                key = self._key(f"snapshot/{name}/{position:03d}")
                await self._gateway.ask("kv/put", {"key": key, "value": encode(part)})
        value = encode(msgspec.msgpack.encode(stored))
        superseded = (
            ("log/", f"log/{number + 1:016d}"),
            ("snapshot/", f"snapshot/{name}/"),
            (f"snapshot/{name}0", "snapshot0"),
        )
        deletions = [
            {"request_delete_range": {"key": self._key(first), "range_end": self._key(end)}}
            for first, end in superseded
        ]
        answer = await self._gateway.ask(
            "kv/txn",
            {
                "compare": [self.unchanged],
                "success": [{"request_put": {"key": self._key("snapshot"), "value": value}}, *deletions],
            },
        )
        if answer.get("succeeded"):
            self._revision, self.number = answer["header"]["revision"], number

    def _key(self, name: str) -> str:
        return encode(f"{self._prefix}/{name}".encode())


def _digest(state: bytes) -> bytes:
    return blake2b(state, digest_size=16).digest()
