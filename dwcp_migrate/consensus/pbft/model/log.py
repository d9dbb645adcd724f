"""The window of sequence numbers under way: one slot each, between the low and the high watermark.

Rule: `stable < sequence <= stable + window` for every slot. A slot's votes belong to one view; what was prepared and
what was accepted (`prepared`, `seen`) outlives views, because a view change must report it. Each replica has one vote
of each kind; a second, different one is not counted.
"""

from typing import NamedTuple

from dwcp_migrate.consensus.pbft.model.messages import (
    DIGESTS_MAX,
    Prepared,
    Request,
    RequestBody,
    ViewEvidence,
    decode_batch,
    decode_request_body,
)


class Content(NamedTuple):
    """A decoded batch.

    Attributes:
        time_ms: the primary's wall clock.
        requests: with the body of each.
        reconfigures: its one request is a new membership.
    """

    time_ms: int
    requests: tuple[tuple[Request, RequestBody], ...]
    reconfigures: bool


class Slot:
    """One sequence number.

    Attributes:
        since: when a batch was accepted or the view entered, in the shell's seconds.
        digest: of the batch accepted in the current view; None before.
        content: that batch.
        prepares: digest that each backup named in this view.
        commits: the same for commits.
        sent_commit: prepared in this view, commit sent.
        decided: digest of the batch that was decided, in whichever view; None before.
        decision: that batch.
        prepared: last view in which a batch was prepared here, and which; (-1, b"") if never.
        seen: last view in which each digest was accepted here.
        claims: digest that each replica says it executed.
    """

    __slots__ = (
        "claims",
        "commits",
        "content",
        "decided",
        "decision",
        "digest",
        "prepared",
        "prepares",
        "seen",
        "sent_commit",
        "sequence",
        "since",
    )

    def __init__(self, sequence: int, now: float) -> None:
        self.sequence = sequence
        self.since = now
        self.digest: bytes | None = None
        self.content: Content | None = None
        self.prepares: dict[str, bytes] = {}
        self.commits: dict[str, bytes] = {}
        self.sent_commit = False
        self.decided: bytes | None = None
        self.decision: Content | None = None
        self.prepared: tuple[int, bytes] = (-1, b"")
        self.seen: dict[bytes, int] = {}
        self.claims: dict[str, bytes] = {}

    def enter_view(self, now: float) -> None:
        """Forget the votes of the view before."""
        self.since = now
        self.digest = None
        self.content = None
        self.prepares.clear()
        self.commits.clear()
        self.sent_commit = False

    def accept(self, view: int, digest: bytes, content: Content, now: float) -> None:
        """Take a proposal of this view.

        Args:
            view: the current one.
            digest: of the batch.
            content: the batch, decoded.
            now: the shell's monotonic seconds.
        """
        self.since = now
        self.digest = digest
        self.content = content
        self.see(view, digest)

    def see(self, view: int, digest: bytes) -> None:
        """Note that a batch was accepted in a view.

        Args:
            view: in which it was accepted.
            digest: of the batch; past `DIGESTS_MAX` the one of the lowest view goes.
        """
        self.seen[digest] = view
        while len(self.seen) > DIGESTS_MAX:
            del self.seen[min(self.seen, key=self.seen.__getitem__)]


def count_votes(votes: dict[str, bytes], digest: bytes) -> int:
    """Count the votes for one batch.

    Args:
        votes: digest by replica.
        digest: of the batch.
    """
    return list(votes.values()).count(digest)


def read(data: bytes) -> Content | None:
    """Decode a batch.

    Returns:
        None if it is no batch, names a request twice, or mixes a new membership with anything else.
    """
    batch = decode_batch(data)
    if batch is None:
        return None
    requests = []
    for request in batch.requests:
        body = decode_request_body(request.body)
        if body is None:
            return None
        requests.append((request, body))
    reconfigures = any(body.reconfigure for _, body in requests)
    if reconfigures and len(requests) > 1:
        return None
    if len({(body.client, body.number) for _, body in requests}) != len(requests):
        return None
    return Content(batch.time_ms, tuple(requests), reconfigures)


class Log:
    """Slots, and the encoded batches that they name.

    Args:
        window: sequence numbers between the watermarks.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.stable = 0
        self.slots: dict[int, Slot] = {}
        self.batches: dict[bytes, bytes] = {}

    def is_inside(self, sequence: int) -> bool:
        """Tell whether a sequence number lies between the watermarks."""
        return self.stable < sequence <= self.stable + self.window

    def slot(self, sequence: int, now: float) -> Slot:
        """Find or make a slot.

        Args:
            sequence: for which `is_inside` is true.
            now: the shell's monotonic seconds, for a slot that is made.
        """
        found = self.slots.get(sequence)
        if found is None:
            found = self.slots[sequence] = Slot(sequence, now)
        return found

    def keep(self, digest: bytes, data: bytes) -> Content | None:
        """Keep an encoded batch, for execution and for replicas that ask for it.

        Args:
            digest: of `data`.
            data: the encoded batch, as it came.

        Returns:
            The decoded batch; None, and nothing is kept, if it cannot be read.
        """
        content = read(data)
        if content is not None:
            self.batches[digest] = data
        return content

    def content(self, digest: bytes) -> Content | None:
        """Read a batch that is kept."""
        data = self.batches.get(digest)
        return None if data is None else read(data)

    def advance(self, stable: int) -> None:
        """Move the watermarks up; drop what lies below."""
        self.stable = stable
        for sequence in [kept for kept in self.slots if kept <= stable]:
            del self.slots[sequence]
        named = {digest for slot in self.slots.values() for digest in (*slot.seen, slot.prepared[1], slot.decided)}
        for digest in [kept for kept in self.batches if kept not in named]:
            del self.batches[digest]

    def prepared(self) -> tuple[Prepared, ...]:
        """Report what was prepared, for a view change."""
        held = ((sequence, *self.slots[sequence].prepared) for sequence in sorted(self.slots))
        return tuple(Prepared(sequence, view, digest) for sequence, view, digest in held if view >= 0)

    def seen(self) -> tuple[ViewEvidence, ...]:
        """Report what was accepted, for a view change."""
        held = ((sequence, self.slots[sequence].seen) for sequence in sorted(self.slots))
        return tuple(ViewEvidence(sequence, dict(views)) for sequence, views in held if views)
