"""Connections that the link port takes in, at the moments in which nobody has them yet."""

import socket
from typing import TYPE_CHECKING, cast

from dwcp_migrate.agent.intake.listeners import LinkIntake

if TYPE_CHECKING:
    from dwcp_migrate.agent.peers.server import ControlServer


class NoControl:
    def close(self) -> None:
        """Nothing runs."""


def intake() -> LinkIntake:
    control = cast("ControlServer", NoControl())
    return LinkIntake(lambda: None, control, lambda _id, _sock: False, {}, lambda _: None)  # type: ignore[arg-type, return-value]


async def test_one_whose_task_never_began_is_closed_at_the_end() -> None:
    taken = intake()
    ours, theirs = socket.socketpair()
    with theirs:
        taken.take(ours)
        await taken.close()
        assert ours.fileno() < 0
        assert theirs.recv(1) == b""
