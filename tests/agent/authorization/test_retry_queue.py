"""What the group could not be told: in order, again, also after a crash."""

from pathlib import Path

from dwcp_migrate.agent.authorization.retry_queue import OWED_MAX, RetryQueue
from dwcp_migrate.agent.disk_thread import DiskThread
from dwcp_migrate.consensus.tickets.operations import (
    FailTicket,
    Forget,
    Operation,
    Ownership,
    Result,
    ResumeTicket,
)
from dwcp_migrate.errors import NoQuorumError

DOMAINS = [f"00000000-0000-4000-8000-{at:012x}" for at in range(OWED_MAX + 1)]
OWED: list[Operation] = [Forget(DOMAINS[0]), FailTicket(DOMAINS[1], 1), ResumeTicket(DOMAINS[2], 2)]


class Group:
    """Answers, or does not."""

    def __init__(self, directory: Path) -> None:
        self.is_up = False
        self.told: list[Operation] = []
        self.disk = DiskThread()
        self.owed = RetryQueue(self.ask, directory / "pbft" / "owed", self.disk)

    async def ask(self, operation: Operation) -> Result:
        if not self.is_up:
            raise NoQuorumError("nobody decides")
        self.told.append(operation)
        return Ownership("uuid", "", 1)


async def test_it_is_told_in_order_once_the_group_decides_again(tmp_path: Path) -> None:
    group = Group(tmp_path)
    for operation in OWED:
        group.owed.add(operation)
        await group.owed.send_pending()
    assert (len(group.owed), group.told) == (3, [])
    group.is_up = True
    await group.owed.send_pending()
    await group.owed.send_pending()
    assert (len(group.owed), group.told) == (0, OWED)


async def test_a_crash_forgets_nothing_that_is_owed_and_repeats_nothing_that_was_told(tmp_path: Path) -> None:
    for operation in OWED:
        group = Group(tmp_path)
        group.owed.add(operation)
        await group.disk.settled()
    back = Group(tmp_path)
    back.is_up = True
    await back.owed.send_pending()
    assert back.told == OWED
    assert len(Group(tmp_path).owed) == 0


async def test_damage_costs_what_was_owed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "pbft").mkdir()
    (tmp_path / "pbft" / "owed").write_bytes(b"?")
    group = Group(tmp_path)
    group.owed.add(OWED[0])
    group.is_up = True
    await group.owed.send_pending()
    assert group.told == OWED[:1]


async def test_a_disk_that_refuses_keeps_nothing_from_being_told(tmp_path: Path) -> None:
    (tmp_path / "pbft").write_bytes(b"no directory")
    group = Group(tmp_path)
    group.owed.add(OWED[0])
    group.is_up = True
    await group.owed.send_pending()
    assert group.told == OWED[:1]


async def test_so_many_are_kept_the_newest(tmp_path: Path) -> None:
    group = Group(tmp_path)
    for domain in DOMAINS:
        group.owed._waiting.append(Forget(domain))
    group.is_up = True
    await group.owed.send_pending()
    assert (len(group.told), group.told[0]) == (OWED_MAX, Forget(DOMAINS[1]))
