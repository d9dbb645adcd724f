"""PBFT client: submits requests, accepts an answer that enough replicas give, collects certificates.

Rule: an answer counts when `weak` replicas give the same one for the same place in the order; a certificate is
complete when a quorum signed it. A request goes to the primary with authenticators; when no answer comes it goes to
all replicas, signed, again and again: they remember what they executed, so it is executed once.
"""

import math
from typing import Final, NamedTuple

import msgspec

from dwcp_migrate.consensus.pbft.certificate import DecisionCertificate, statement
from dwcp_migrate.consensus.pbft.model.client_table import CLIENT_WINDOW
from dwcp_migrate.consensus.pbft.model.keys import DECISION, REQUEST, SigningIdentity, compute_mac, is_signed
from dwcp_migrate.consensus.pbft.model.membership import Group, Membership
from dwcp_migrate.consensus.pbft.model.messages import OPERATION_BYTES_MAX, Reply, Request, RequestBody, encode_body
from dwcp_migrate.errors import ConsensusError

BACKOFF_MAX: Final = 4
"""Doublings of the time between two attempts."""


class Decision(NamedTuple):
    """Result of a request.

    Attributes:
        certificate: if one was asked for.
    """

    number: int
    sequence: int
    result: bytes
    certificate: DecisionCertificate | None


class _Pending:
    """A request without an answer."""

    __slots__ = ("attempts", "body", "encoded", "next_attempt", "replies")

    def __init__(self, body: RequestBody, encoded: bytes, next_attempt: float) -> None:
        self.body = body
        self.encoded = encoded
        self.attempts = 0
        self.next_attempt = next_attempt
        self.replies: dict[str, Reply] = {}


class PbftClient:
    """One client of a group, without IO.

    Args:
        name: as in the membership.
        identity: its key.
        membership: of the current epoch.
        first_number: above every number that this client used before; the clock's microseconds do.
        retry_s: time until a request is sent again, then doubling.
    """

    def __init__(
        self, name: str, identity: SigningIdentity, membership: Membership, *, first_number: int, retry_s: float = 0.5
    ) -> None:
        self.name = name
        self._identity = identity
        self._next = first_number
        self._retry_s = retry_s
        self._view = 0
        self._highest: dict[str, int] = {}
        self._pending: dict[int, _Pending] = {}
        self._messages: list[tuple[str | None, Request]] = []
        self._decisions: list[Decision] = []
        self._set(membership)

    def _set(self, membership: Membership) -> None:
        self._group = Group(membership)
        self._shared = [self._identity.shared_key(member.key) for member in membership.replicas]

    def update(self, membership: Membership) -> None:
        """Go on with the members of another epoch; open requests are due again in it, under the same numbers."""
        self._set(membership)
        self._view = 0
        for pending in self._pending.values():
            pending.attempts, pending.next_attempt = 0, -math.inf
            pending.body = msgspec.structs.replace(pending.body, epoch=membership.epoch)
            pending.encoded = encode_body(pending.body)
            pending.replies.clear()

    def learn(self, replica: str, highest: int) -> None:
        """Go on behind the numbers that the group has executed: this host's clock may have gone back.

        Args:
            replica: who says so.
            highest: the highest one there; believed as far as `weak` replicas say it.
        """
        self._highest[replica] = highest
        said = sorted((number for name, number in self._highest.items() if name in self._group.keys), reverse=True)
        if len(said) >= self._group.numbers.weak:
            self._next = max(self._next, said[self._group.numbers.weak - 1] + 1)

    @property
    def has_room(self) -> bool:
        """Tell whether another request may be submitted: its number must stay near the oldest one's."""
        return not self._pending or self._next - next(iter(self._pending)) < CLIENT_WINDOW

    def submit(self, operation: bytes, now: float, *, certify: bool = False, reconfigure: bool = False) -> int:
        """Ask for an operation.

        Args:
            operation: for the application, or an encoded membership.
            now: monotonic seconds.
            certify: gather a certificate.
            reconfigure: the operation is a membership.

        Returns:
            The number that its `Decision` will carry.

        Raises:
            ConsensusError: too many requests under way, or an operation that is too large.
        """
        if not self.has_room:
            raise ConsensusError(f"{CLIENT_WINDOW} requests are under way", hint="wait for decisions")
        if len(operation) > OPERATION_BYTES_MAX:
            raise ConsensusError(f"operation of {len(operation)} bytes, at most {OPERATION_BYTES_MAX}")
        number = self._next
        self._next += 1
        body = RequestBody(self.name, self._group.epoch, number, operation, certify, reconfigure)
        pending = self._pending[number] = _Pending(body, encode_body(body), now + self._retry_s)
        if reconfigure:
            pending.next_attempt = now
            self.tick(now)
        else:
            macs = b"".join([compute_mac(key, self._group.cluster, pending.encoded) for key in self._shared])
            self._messages.append((self._group.primary(self._view), Request(pending.encoded, macs)))
        return number

    def step(self, sender: str, reply: Reply) -> None:
        """Take a replica's answer; one of a stranger, or for a request that is settled, is ignored.

        Args:
            sender: the replica, as its channel proves.
            reply: its answer.
        """
        pending = self._pending.get(reply.number)
        if pending is None or sender not in self._group.keys:
            return
        pending.replies[sender] = reply
        if len(pending.replies) < self._group.numbers.weak:
            return
        same = [
            (name, held)
            for name, held in pending.replies.items()
            if held.result == reply.result and held.sequence == reply.sequence
        ]
        if len(same) < self._group.numbers.weak:
            return
        certificate = None
        if pending.body.certify:
            certificate = self._certificate(reply, same)
            if certificate is None:
                return
        self._view = sorted(held.view for _, held in same)[len(same) // 2]
        del self._pending[reply.number]
        self._decisions.append(Decision(reply.number, reply.sequence, reply.result, certificate))

    def _certificate(self, reply: Reply, same: list[tuple[str, Reply]]) -> DecisionCertificate | None:
        group = self._group
        if len(same) < group.numbers.quorum:
            return None
        empty = DecisionCertificate(
            group.cluster, group.epoch, reply.sequence, self.name, reply.number, reply.result, {}
        )
        data = statement(empty)
        signatures = {
            name: held.signature
            for name, held in same
            if is_signed(group.keys[name], DECISION, group.cluster, data, held.signature)
        }
        if len(signatures) < group.numbers.quorum:
            return None
        return msgspec.structs.replace(empty, signatures=signatures)

    def tick(self, now: float) -> None:
        """Send again, to all and signed, what was not answered in time."""
        for pending in self._pending.values():
            if pending.next_attempt > now:
                continue
            pending.attempts += 1
            pending.next_attempt = now + self._retry_s * 2 ** min(pending.attempts, BACKOFF_MAX)
            signature = self._identity.sign(REQUEST, self._group.cluster, pending.encoded)
            self._messages.append((None, Request(pending.encoded, b"", signature)))

    def ready(self) -> tuple[list[tuple[str | None, Request]], list[Decision]]:
        """Take over what to send (to a replica, or None to all) and what was decided since the last call."""
        messages, decisions = self._messages, self._decisions
        self._messages, self._decisions = [], []
        return messages, decisions
