"""Signs of life of hosts by etcd's own leases: a key of each host that is gone when the host has been silent for long.

Heartbeats as log entries would be 8,640 a day and host. With leases a host writes an entry only when it says something
new of itself, and once in `ENTRY_S` so that hosts of release 0.1.0, which know no leases, see it too.
"""

from time import monotonic, time
from typing import Final

from dwcp_migrate.state.etcd.gateway import EtcdGateway, decode, encode
from dwcp_migrate.state.fleet.commands import PutHost

LEASE_S: Final = 30
"""A host that is silent for that long is taken for gone."""

ENTRY_S: Final = 600.0
"""Between two entries of a host that says nothing new."""

HOSTS_MAX: Final = 2048
"""Keys that are read; twice the hosts of the largest fleet."""


class EtcdLiveness:
    """The lease of this host, and those of the others.

    Args:
        gateway: to etcd.
        prefix: of all keys.
        name: of this host.

    Attributes:
        heard: hosts whose leases lived at the last beat, and when that was, seconds since the epoch.
    """

    def __init__(self, gateway: EtcdGateway, prefix: str, name: str) -> None:
        self._gateway = gateway
        self._prefix = prefix
        self._name = name
        self._lease = ""
        self._said: PutHost | None = None
        self._said_at = 0.0
        self.heard: dict[str, float] = {}

    def may_stand_for(self, body: PutHost) -> bool:
        """Tell whether the lease says as much as this command would."""
        return body == self._said and monotonic() - self._said_at < ENTRY_S

    def was_said(self, body: PutHost) -> None:
        """Note that an entry with this command was written."""
        self._said, self._said_at = body, monotonic()

    async def beat(self) -> None:
        """Keep this host's lease alive, with its key, and look at those of the others.

        Raises:
            CoordinationError: etcd does not answer, or refuses.
        """
        if not (self._lease and await self._keep_alive()):
            granted = await self._gateway.ask("lease/grant", {"TTL": str(LEASE_S)})
            self._lease = str(granted["ID"])
            key = encode(f"{self._prefix}/alive/{self._name}".encode())
            await self._gateway.ask("kv/put", {"key": key, "value": "", "lease": self._lease})
        first = f"{self._prefix}/alive/"
        found = await self._gateway.ask(
            "kv/range",
            {
                "key": encode(first.encode()),
                "range_end": encode(f"{self._prefix}/alive0".encode()),
                "keys_only": True,
                "limit": str(HOSTS_MAX),
            },
        )
        now = time()
        self.heard = {decode(pair["key"]).decode()[len(first) :]: now for pair in found.get("kvs", [])}

    async def _keep_alive(self) -> bool:
        """Prolong the lease; False when it is gone."""
        kept = await self._gateway.ask("lease/keepalive", {"ID": self._lease})
        return int(kept.get("result", {}).get("TTL", 0)) > 0
