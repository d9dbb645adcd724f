"""What the group could not be told: in order, again, and not for ever."""

from dwcp_migrate.agent.authorization.retry_queue import OWED_MAX, RetryQueue
from dwcp_migrate.consensus.tickets.machine import Cancel, Operation, Ownership, Release, Result
from dwcp_migrate.errors import NoQuorumError


class Group:
    """Answers, or does not."""

    def __init__(self) -> None:
        self.is_up = False
        self.told: list[Operation] = []
        self.now = 0.0
        self.owed = RetryQueue(self.ask, lambda: self.now)

    async def ask(self, operation: Operation) -> Result:
        if not self.is_up:
            raise NoQuorumError("nobody decides")
        self.told.append(operation)
        return Ownership("uuid", "", 1)


async def test_it_is_told_in_order_once_the_group_decides_again() -> None:
    group = Group()
    owed: list[Operation] = [Release("a"), Cancel("b", 1), Release("c")]
    for operation in owed:
        group.owed.add(operation, 60.0)
        await group.owed.tell()
    assert (len(group.owed), group.told) == (3, [])
    group.is_up = True
    await group.owed.tell()
    await group.owed.tell()
    assert (len(group.owed), group.told) == (0, owed)


async def test_what_is_older_than_a_ticket_is_left_out() -> None:
    group = Group()
    group.owed.add(Release("old"), 60.0)
    group.now = 59.0
    group.owed.add(Release("new"), 60.0)
    group.now, group.is_up = 60.0, True
    await group.owed.tell()
    assert group.told == [Release("new")]


async def test_so_many_are_kept_the_newest() -> None:
    group = Group()
    for number in range(OWED_MAX + 1):
        group.owed.add(Release(str(number)), 60.0)
    group.is_up = True
    await group.owed.tell()
    assert (len(group.told), group.told[0]) == (OWED_MAX, Release("1"))
