"""Memberships of the PBFT group that this host has verified: the configured one and later ones, kept over restarts.

The rule: the newest verified membership counts. A configuration of an earlier epoch does not replace it, one of a later
epoch does. A verified membership is written before it is used; where the disk refuses, it is used all the same and
written later, because members that have left must not be trusted only because a disk is full.
"""

from pathlib import Path
from typing import Final

from dwcp_migrate.agent.disk_thread import DiskThread
from dwcp_migrate.config import PbftConfig, PbftMemberConfig
from dwcp_migrate.consensus.pbft.membership_chain import Lineage, decode_written, restore_lineage
from dwcp_migrate.consensus.pbft.model.membership import Group, Member, Membership
from dwcp_migrate.consensus.pbft.model.messages import EpochLink, encode_body
from dwcp_migrate.durable import write_whole
from dwcp_migrate.errors import ConfigError, ConsensusError, EpochError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import SUCCESSOR_BYTES_MAX, Follow, Successor

FILE: Final = Path("pbft/memberships")
"""Below the state directory."""

log = get_logger(component="group")


def membership_of(configured: PbftConfig) -> Membership:
    """Say who the configured group is; members ask too."""
    members = tuple(_member(member) for member in configured.members)
    return Membership(
        cluster=bytes.fromhex(configured.cluster),
        epoch=configured.epoch,
        replicas=members,
        clients=members + tuple(_member(member) for member in configured.clients),
    )


def _member(configured: PbftMemberConfig) -> Member:
    return Member(configured.name, bytes.fromhex(configured.key), configured.operator)


class MembershipStore:
    """The memberships that this host has verified, on disk.

    Args:
        configured: the group.
        state_directory: where it is kept.

    Attributes:
        lineage: from the first membership that is known to the newest.
        note: what an operator should know about configuration and truth; empty if they agree.

    Raises:
        ConsensusError: what was kept is damaged: an earlier membership could be believed again.
        ConfigError: what was kept is of another group.
    """

    def __init__(self, configured: PbftConfig, state_directory: Path, disk: DiskThread | None = None) -> None:
        self._disk = disk
        self._configured = membership_of(configured)
        self._path = state_directory / FILE
        self._is_written = True
        self.lineage = self._load()

    def _load(self) -> Lineage:
        configured = Lineage(self._configured)
        try:
            kept = restore_lineage(decode_written(self._path.read_bytes()))
        except FileNotFoundError:
            return configured
        except (OSError, ValueError, EpochError) as error:
            raise ConsensusError(
                f"{self._path}, the members of the group, cannot be used: {error}",
                hint="remove it once coordination.pbft has the members and the epoch of another host's `cluster pbft`",
            ) from error
        if kept.newest.cluster != configured.newest.cluster:
            raise ConfigError(
                f"{self._path.parent} is of the group {kept.newest.cluster.hex()}, not of coordination.pbft.cluster",
                hint=f"empty {self._path.parent} if this host left that group for good",
            )
        return configured if self._configured.epoch > kept.newest.epoch else kept

    @property
    def newest(self) -> Group:
        """The group of now, as far as is known."""
        return self.lineage.newest

    @property
    def note(self) -> str:
        """See above."""
        newest, epoch = self.newest.membership, self._configured.epoch
        if newest.epoch > epoch:
            return f"epoch {newest.epoch} counts, which the members of {epoch} to {newest.epoch - 1} signed one by one"
        if newest != self._configured:
            return f"coordination.pbft names other members for epoch {epoch} than those who were verified: these count"
        return ""

    def follow(self, link: EpochLink) -> bool:
        """Believe who follows, if the newest members signed it; returns whether it was new.

        Raises:
            EpochError: as `Lineage.follow`.
        """
        if not self.lineage.follow(link):
            return False
        self._is_written = False
        log.info("members of the group changed", epoch=self.newest.epoch, members=list(self.newest.names))
        self.write()
        return True

    def write(self) -> None:
        """Write what is not written yet, or begin to.

        What is believed meanwhile proves itself by its signatures: a crash before it is written costs asking again.
        """
        if self._is_written:
            return
        self._is_written = True
        data, path = encode_body(self.lineage.written()), self._path

        def write() -> None:
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_whole(path, data)
            except OSError as error:
                log.error("members of the group not written", path=str(path), error=error.strerror)  # noqa: TRY400
                self._is_written = False

        if self._disk is None:
            write()
        else:
            self._disk.begin(write)

    def answer(self, request: Follow, public: bytes) -> Successor:
        """Answer a peer that asks for the members after the ones it knows; the answer's signatures prove it.

        Args:
            request: epoch that the peer knows, and offset in the answer.
            public: this host's public key; empty without one.
        """
        newest = self.newest
        if request.cluster != newest.cluster:
            return Successor(newest=-1)
        link = self.lineage.links.get(request.epoch)
        data = b"" if link is None else encode_body(link)
        part = data[request.offset : request.offset + SUCCESSOR_BYTES_MAX]
        return Successor(newest=newest.epoch, size=len(data), data=part, key=public)
