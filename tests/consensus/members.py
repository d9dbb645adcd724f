"""Members and an application for tests: keys follow from names, so that every run has the same."""

import hashlib

from dwcp_migrate.consensus import Context, Member, Membership, SigningIdentity

CLUSTER = b"cluster of tests"


def identity(name: str) -> SigningIdentity:
    return SigningIdentity(hashlib.sha256(name.encode()).digest())


def member(name: str, *, operator: bool = False) -> Member:
    return Member(name, identity(name).public, operator)


def membership(
    replicas: int | list[str] = 4, clients: tuple[str, ...] = ("c0", "c1", "c2"), epoch: int = 0
) -> Membership:
    names = [f"r{place}" for place in range(replicas)] if isinstance(replicas, int) else replicas
    members = tuple(member(name) for name in names)
    return Membership(CLUSTER, epoch, members, (*(member(name) for name in clients), member("op", operator=True)))


class Chain:
    """The strictest application there is: every result depends on every operation before it."""

    def __init__(self) -> None:
        self.value = b"\0" * 16
        self.count = 0
        self.fresh: list[tuple[str, bytes]] = []
        """Who asked what, for the simulator to look at and empty."""

    def apply(self, operation: bytes, context: Context) -> bytes:
        data = self.value + operation + repr(context).encode()
        self.value = hashlib.blake2b(data, digest_size=16).digest()
        self.count += 1
        self.fresh.append((context.client, operation))
        return self.value

    def snapshot(self) -> bytes:
        return self.value + self.count.to_bytes(8, "big")

    def restore(self, data: bytes) -> None:
        self.value, self.count = data[:16], int.from_bytes(data[16:], "big")
