"""The voters that a fleet began with, as its log's first entry says, kept beside the log and told to every peer.

Two hosts that were started with different lists of voters have different first entries of the same index and term,
which Raft's own comparison of logs takes for equal. A log that was cut has its first entry no more; hence the file.
"""

from pathlib import Path
from typing import Final

import msgspec

from dwcp_migrate.errors import JournalError, RemoteProtocolError
from dwcp_migrate.state.raft.disk import Disk
from dwcp_migrate.state.raft.log_file import Record

FILE: Final = "origin"


class Origin:
    """The first entry's voters.

    Args:
        directory: of the replica.
        disk: what it lies on.
        first: the log's first entry; None for an empty log.

    Attributes:
        voters: sorted; empty where they are not known, in a log that release 0.1.0 has cut.

    Raises:
        JournalError: the first entry or the file cannot be read.
    """

    def __init__(self, directory: Path, disk: Disk, first: Record | None) -> None:
        self.voters: tuple[str, ...] = ()
        if first is not None and first[1] == 1:
            self.voters = tuple(voters_of(first))
        path = directory / FILE
        try:
            stored = tuple(msgspec.json.decode(disk.read_whole(path), type=list[str]))
        except FileNotFoundError:
            stored = ()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise JournalError(f"cannot read {path}: {error}") from error
        if self.voters and self.voters != stored:
            disk.write_whole(path, msgspec.json.encode(self.voters))
        self.voters = self.voters or stored

    def compare(self, name: str, voters: tuple[str, ...]) -> None:
        """Compare a peer's first voters with this host's.

        Args:
            name: of the peer.
            voters: its, sorted; empty where it does not know them.

        Raises:
            RemoteProtocolError: they differ: the two are of different fleets.
        """
        if voters and self.voters and voters != self.voters:
            raise RemoteProtocolError(
                f"{name} began with the voters {', '.join(voters)}, this host with {', '.join(self.voters)}",
                hint="stop the agent of the one that is wrong, empty its `fleet` directory, set coordination.voters",
            )


def voters_of(first: Record) -> list[str]:
    """Read the voters that the first entry of a log names.

    Raises:
        JournalError: it names none.
    """
    try:
        voters: list[str] = msgspec.msgpack.decode(first[0][1:], type=list[str])
    except msgspec.DecodeError as error:
        raise JournalError(f"the first entry of the log names no voters: {error}") from error
    return voters
