"""Requests before they are decided: which clients may ask, which requests wait for the primary, and how long.

Rule: every request that counts is authentic to this replica. Sent for the first time it carries one authenticator a
replica (2 us each). An authenticator convinces only its replica, so a client could make the group quarrel about it;
therefore a request that is sent again carries a signature, which all replicas judge alike, and only signed requests
make a replica suspect its primary. A client whose authenticator was wrong here must sign for a while.

A request of two epochs ago or earlier no longer counts, nor one of an epoch to which its client did not belong. A
client that is removed is forgotten with its requests: when it is back, no old one can be executed a second time.
"""

from collections import Counter
from typing import Final, TypeVar

from dwcp_migrate.consensus.pbft.certificate import DecisionCertificate, sign_decision
from dwcp_migrate.consensus.pbft.core import Core
from dwcp_migrate.consensus.pbft.model.client_table import CLIENT_WINDOW, ClientProgress, RequestOutcome
from dwcp_migrate.consensus.pbft.model.keys import MAC_BYTES, REQUEST, is_authentic, is_signed
from dwcp_migrate.consensus.pbft.model.messages import Reply, Request, RequestBody, decode_request_body

SUSPECT_S: Final = 60.0
"""Time in which a client signs everything after a wrong authenticator."""
HELD_MAX: Final = 8192
"""Requests held for all clients together."""

CLIENT_HELD_MAX: Final = 2 * CLIENT_WINDOW
"""Requests held for one client."""

Key = tuple[str, int]
T = TypeVar("T")


class HeldRequests(dict[Key, T]):
    """Requests by key, in the order in which they came, with the number of each client's."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counter[str] = Counter()

    def put(self, key: Key, value: T) -> None:
        """Add a request, or replace it where it stands.

        Args:
            key: client and number.
            value: kept for it.
        """
        if key not in self:
            self._counts[key[0]] += 1
        self[key] = value

    def drop(self, key: Key) -> None:
        """Remove a request, if it is here."""
        if self.pop(key, None) is not None:
            self._counts[key[0]] -= 1
            if not self._counts[key[0]]:
                del self._counts[key[0]]

    def drop_all(self) -> None:
        """Remove everything."""
        self.clear()
        self._counts.clear()

    def of(self, client: str) -> int:
        """Count a client's requests."""
        return self._counts.get(client, 0)


def _epoch_of(request: Request) -> int:
    body = decode_request_body(request.body)
    return -1 if body is None else body.epoch


class PendingRequests:
    """Requests that this replica has and that are not executed yet."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.queue = HeldRequests[tuple[Request, RequestBody]]()
        self.proposed: set[Key] = set()
        self.waiting = HeldRequests[tuple[float, Request]]()
        self._suspects: dict[str, float] = {}
        self._keys: dict[str, bytes] = {}
        core.on_epoch.append(self._on_epoch)

    def on_request(self, sender: str, request: Request) -> None:
        """Take a request from its client, or from a replica that forwards it.

        Args:
            sender: the client or the replica, as its channel proves.
            request: not yet authenticated.
        """
        core = self._core
        body = decode_request_body(request.body)
        if body is None or body.client not in core.group.clients:
            core.counters.refused += 1
            return
        progress = core.clients.progress_of(body.client, body.number)
        if progress is not ClientProgress.NEW:
            if progress is ClientProgress.DONE and sender == body.client:
                self.reply(body)
            return
        key = (body.client, body.number)
        if key in self.queue or (key in self.proposed and not request.signature):
            return
        if not request.signature and not core.is_primary:
            if sender == body.client and core.active and core.is_voter:
                core.send(core.primary, request)
            return
        if not self._has_room(body.client) or not self.is_genuine(request, body):
            core.counters.refused += 1
            return
        if request.signature:
            self._await(sender, key, request)
        if core.is_primary and key not in self.proposed:
            self.queue.put(key, (request, body))

    def _await(self, sender: str, key: Key, request: Request) -> None:
        """Expect the primary to see to a signed request in time; the same one of a later epoch takes its place."""
        core = self._core
        held = self.waiting.get(key)
        if held is None:
            self.waiting.put(key, (core.now, request))
        elif held[1].body != request.body and _epoch_of(request) > _epoch_of(held[1]):
            self.waiting.put(key, (held[0], request))
        if sender == key[0] and core.active and core.is_voter and not core.is_primary:
            core.send(core.primary, request)

    def _has_room(self, client: str) -> bool:
        held = len(self.queue) + len(self.waiting)
        return held < HELD_MAX and self.queue.of(client) + self.waiting.of(client) < CLIENT_HELD_MAX

    def _is_of_now(self, body: RequestBody) -> bool:
        """Tell whether a request's epoch counts: this one, a later one, or the last one of a client that was in it."""
        core = self._core
        if body.epoch >= core.group.epoch:
            return True
        before = core.known.get(core.group.epoch - 1)
        return body.epoch == core.group.epoch - 1 and before is not None and body.client in before.clients

    def is_genuine(self, request: Request, body: RequestBody) -> bool:
        """Tell whether the client named in a request made it, as far as this replica can know.

        Args:
            request: with authenticators or a signature.
            body: its body, decoded.
        """
        core = self._core
        member = core.group.clients.get(body.client)
        if member is None or not self._is_of_now(body):
            return False
        if request.signature:
            return is_signed(member.key, REQUEST, core.group.cluster, request.body, request.signature)
        if body.epoch != core.group.epoch or body.reconfigure:
            return False
        if body.client in self._suspects and self._suspects[body.client] > core.now:
            return False
        key = self._keys.get(body.client)
        if key is None:
            key = self._keys[body.client] = core.identity.shared_key(member.key)
        at = core.group.places[core.name] * MAC_BYTES
        if is_authentic(key, core.group.cluster, request.body, request.macs[at : at + MAC_BYTES]):
            return True
        self._suspects[body.client] = core.now + SUSPECT_S
        return False

    def take(self, count: int, bytes_max: int) -> list[tuple[Request, RequestBody]]:
        """Take the oldest requests off the queue for a proposal; a new membership is taken alone.

        Args:
            count: requests at most.
            bytes_max: of all together; the first is taken whatever its size.
        """
        taken: list[tuple[Request, RequestBody]] = []
        size = 0
        for key, (request, body) in list(self.queue.items())[:count]:
            size += len(request.body) + len(request.macs) + len(request.signature) + 16
            if taken and (size > bytes_max or body.reconfigure):
                break
            taken.append((request, body))
            self.proposed.add(key)
            self.queue.drop(key)
            if body.reconfigure:
                break
        return taken

    def done(self, key: Key) -> None:
        """Forget a request that was executed; a backup mostly has none."""
        self.proposed.discard(key)
        if self.queue:
            self.queue.drop(key)
        if self.waiting:
            self.waiting.drop(key)

    def prune(self) -> None:
        """Forget what was executed elsewhere: the state was fetched."""
        for key in [*self.queue, *self.proposed, *self.waiting]:
            if self._core.clients.progress_of(*key) is not ClientProgress.NEW:
                self.done(key)

    def overdue(self, timeout_s: float) -> bool:
        """Tell whether the oldest request has waited too long; drop what can never be executed."""
        core = self._core
        while self.waiting:
            key, (since, _) = next(iter(self.waiting.items()))
            if core.clients.progress_of(*key) is ClientProgress.NEW:
                return core.now - since > timeout_s
            self.waiting.drop(key)
        return False

    def enter_view(self, carried: set[Key]) -> None:
        """Give what waits to the new primary, with its full time."""
        core = self._core
        self.queue.drop_all()
        self.proposed = carried
        for key, (_, request) in list(self.waiting.items()):
            self.waiting.put(key, (core.now, request))
            if key in carried:
                continue
            if core.is_primary:
                body = decode_request_body(request.body)
                assert body is not None, "it was decoded when it came"
                self.queue.put(key, (request, body))
            elif core.is_voter:
                core.send(core.primary, request)

    def reply(self, body: RequestBody) -> None:
        """Tell a client the result of its request again, if it is still known."""
        outcome = self._core.clients.outcome(body.client, body.number)
        if outcome is not None:
            self.answer(body, outcome)

    def answer(self, body: RequestBody, outcome: RequestOutcome) -> None:
        """Tell a client the result of its request.

        Args:
            body: the request's.
            outcome: its result.
        """
        core = self._core
        if core.recovering or not core.is_voter:
            return
        epoch, sequence, result = core.group.epoch, outcome.sequence, outcome.result
        signature = b""
        if body.certify:
            decision = DecisionCertificate(core.group.cluster, epoch, sequence, body.client, body.number, result, {})
            signature = sign_decision(core.identity, core.group, decision)
        core.out.replies.append((body.client, Reply(epoch, core.view, body.number, sequence, result, signature)))

    def _on_epoch(self) -> None:
        clients = self._core.group.clients
        self._keys.clear()
        self._suspects.clear()
        for key, (_, request) in list(self.waiting.items()):
            body = decode_request_body(request.body)
            assert body is not None, "it was decoded when it came"
            if key[0] not in clients or not self._is_of_now(body):
                self.waiting.drop(key)  # the others would refuse any batch with it, and depose its primary
        self.enter_view(set())
