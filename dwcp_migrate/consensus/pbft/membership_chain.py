"""The memberships of a group as one host knows them: the one it was told, and each that followed, proven by the last.

Rule: nothing is believed but what the operator configured and what a quorum of a membership that is believed signed.
`follow` takes the link from the newest membership to the next one, and no other: so there are no gaps, no second
successor, and what is replayed changes nothing.

    origin (configured, epoch 3) ── link 3, signed by a quorum of 3 ──> 4 ── link 4, signed by a quorum of 4 ──> 5

A certificate counts by the keys of the newest epoch, or for `GRACE_MS` by those of the one before, if its place in the
order lies in that epoch's time. Why that is safe, and why not longer: docs/consensus.md, "Membership".
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dwcp_migrate.consensus.pbft.certificate import DecisionCertificate
from dwcp_migrate.consensus.pbft.model.epoch_links import LINKS_MAX, verify_link
from dwcp_migrate.consensus.pbft.model.membership import Group, Membership
from dwcp_migrate.consensus.pbft.model.messages import BROKEN, Counter, EpochLink
from dwcp_migrate.errors import EpochError
from dwcp_migrate.units import KIB

LINK_BYTES_MAX: Final = 112 * KIB
"""An encoded link: a header of 64 KiB, `STATE_PARTS_MAX` digests of 34 bytes, a proof of 31 signatures."""

GRACE_MS: Final = 60_000
"""Time after an epoch's end in which its certificates count: a source shows one within seconds of getting it."""


class Written(msgspec.Struct, frozen=True, array_like=True):
    """The chain as it is kept on disk.

    Attributes:
        origin: the first membership.
        since: sequence number of the operation that began it; 0 where that is not known.
        links: from there on.
    """

    origin: Membership
    since: Counter
    links: Annotated[tuple[EpochLink, ...], Meta(max_length=LINKS_MAX)]


_link = msgspec.msgpack.Decoder(EpochLink)
_written = msgspec.msgpack.Decoder(Written)


class Lineage:
    """The chain; past `LINKS_MAX` links the oldest goes and its successor is the origin.

    Args:
        origin: a membership that is believed.
        since: of `Written`.

    Attributes:
        links: by the epoch that signed them.
    """

    def __init__(self, origin: Membership, since: int = 0) -> None:
        self.origin = Group(origin, since)
        self.links: dict[int, EpochLink] = {}
        self._groups = {origin.epoch: self.origin}
        self._ended_ms: dict[int, int] = {}

    @property
    def newest(self) -> Group:
        """The group of now, as far as is known."""
        return next(reversed(self._groups.values()))

    @property
    def names_before(self) -> set[str]:
        """Hosts that had a part in an earlier epoch that is known."""
        earlier = [group for epoch, group in self._groups.items() if epoch != self.newest.epoch]
        return {name for group in earlier for name in (*group.names, *group.clients)}

    def follow(self, link: EpochLink) -> bool:
        """Take the link from the newest membership to the next.

        Returns:
            Whether it was new; one that is known already is not.

        Raises:
            EpochError: it starts from a membership that is not known yet, or any more; or it does not hold.
        """
        old, epoch = self.newest, link.proof.epoch
        if self.links.get(epoch) == link:
            return False
        if epoch != old.epoch:
            raise EpochError(
                f"link from epoch {epoch}, this host knows {self.origin.epoch} to {old.epoch}",
                hint="each link must follow the newest epoch that is known",
            )
        header = verify_link(link, old)
        new = Group(header.membership, header.since)
        old.until = new.since
        self._groups[new.epoch] = new
        self._ended_ms[old.epoch] = header.time_ms
        self.links[old.epoch] = link
        if len(self.links) > LINKS_MAX:
            first = min(self.links)
            del self.links[first], self._groups[first], self._ended_ms[first]
            self.origin = self._groups[first + 1]
        return True

    def judge(self, certificate: DecisionCertificate, now_ms: int) -> Group:
        """Find the group by whose keys a certificate counts now; it still has to be verified.

        Args:
            certificate: as it came.
            now_ms: this host's wall clock.

        Raises:
            EpochError: it is of an epoch that does not count, any more or yet.
        """
        newest, epoch = self.newest, certificate.epoch
        if epoch == newest.epoch:
            return newest
        if epoch > newest.epoch:
            raise EpochError(
                f"certificate of epoch {epoch}, this host knows {newest.epoch} and could not verify what follows",
                hint="can this host reach a member of the group? see `dwcp-migrate cluster pbft`",
            )
        old = self._groups.get(epoch)
        late = now_ms - self._ended_ms.get(epoch, 0)
        if old is None or epoch != newest.epoch - 1 or late > GRACE_MS:
            raise EpochError(
                f"certificate of epoch {epoch}, the group is in {newest.epoch}",
                hint="begin the migration again: its source gets a certificate of the members of now",
            )
        if certificate.sequence > newest.since:
            raise EpochError(
                f"certificate of epoch {epoch} at {certificate.sequence}, that epoch ended at {newest.since}",
                hint="a former member signed what it may not: look at who did",
            )
        return old

    def written(self) -> Written:
        """Say what to keep."""
        return Written(self.origin.membership, self.origin.since, tuple(self.links.values()))


def restore_lineage(written: Written) -> Lineage:
    """Build the chain anew, verifying each link.

    Raises:
        EpochError: one does not hold.
        ValueError: the origin is no group.
    """
    lineage = Lineage(written.origin, written.since)
    for link in written.links:
        lineage.follow(link)
    return lineage


def decode_link(data: bytes) -> EpochLink:
    """Read a link; it still has to be followed.

    Raises:
        EpochError: it is none, or past `LINK_BYTES_MAX`.
    """
    if len(data) > LINK_BYTES_MAX:
        raise EpochError(f"link of {len(data)} bytes, at most {LINK_BYTES_MAX}")
    try:
        return _link.decode(data)
    except BROKEN as error:
        raise EpochError(f"not a link: {error}") from error


def decode_written(data: bytes) -> Written:
    """Read what was kept.

    Raises:
        EpochError: it is damaged.
    """
    try:
        return _written.decode(data)
    except BROKEN as error:
        raise EpochError(f"not the memberships that were written: {error}") from error
