"""A year of a fleet on its model, in virtual time: `python tests/state/fleet/year.py FILE.json` plays the long one.

Hosts come, die and are forgotten; guests are defined, renamed, migrated and undefined; migrations fail, tickets and
leases run out, requests come twice. What is counted is the same on every machine: rows of tables that commands looked
at, and the rows and bytes that are kept. None of it may grow with what is gone.
"""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[3]))

from dwcp_migrate.state.fleet import commands as do
from dwcp_migrate.state.fleet import model
from dwcp_migrate.state.fleet.invariants import violations
from dwcp_migrate.state.fleet.machine import apply
from dwcp_migrate.state.fleet.model import FleetState, Limits, TicketOutcome

DAY_S: Final = 86400.0
YEAR_DAYS: Final = 364
QUARTER_DAYS: Final = YEAR_DAYS // 4
EPOCH_S: Final = 1.79e9

HOST_DIES: Final = 0.3 / YEAR_DAYS
"""Share of the hosts that die on a day; each is forgotten a week later, and a new one comes."""
GUEST_ENDS: Final = 2.0 / YEAR_DAYS
GUEST_MOVES: Final = 4.0 / YEAR_DAYS
LEASES: Final = 0.5
"""Leases, and shares of links, that a host takes on a day, each of a name of its own; half are never given back."""
BEATS: Final = 2
"""Signs of life of a host on a day. Each is one row of a table however many there were, so that few are enough."""

TABLES: Final = (
    "hosts",
    "domains",
    "open_tickets",
    "ended_tickets",
    "leases",
    "reservations",
    "rules",
    "outcomes",
    "documents",
)


class _Rows:
    """What a look at a table goes through; each row counts when it is reached."""

    def __init__(self, rows: Collection[Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Any]:
        for row in self._rows:
            Table.looked_at += 1
            yield row


class Table(dict[Any, Any]):
    """A table that counts the rows that are gone through."""

    looked_at = 0

    def __iter__(self) -> Iterator[Any]:
        return iter(_Rows(super().keys()))

    def values(self) -> Any:
        return _Rows(super().values())

    def items(self) -> Any:
        return _Rows(super().items())


class Year:
    """A fleet that lives for a year.

    Args:
        seed: everything follows from it.
        hosts: that there are at a time.
        guests: likewise.
    """

    def __init__(self, seed: int, hosts: int, guests: int) -> None:
        self.rng = random.Random(seed)
        self.fleet = FleetState()
        for table in TABLES:
            setattr(self.fleet, table, Table())
        self.now = EPOCH_S
        self.commands: Counter[str] = Counter()
        self.quarters: list[dict[str, Any]] = []
        self._numbers = count()
        self._wanted = hosts
        self._alive: list[str] = []
        self._gone: list[tuple[float, str]] = []
        self._guests: dict[str, str] = {}
        self._today: list[str] = []
        for _ in range(hosts):
            self._new_host()
        self.does(self._alive[0], do.SetVersion(version=model.VERSION))
        links = {f"{self._alive[0]}>{other}": 10**9 for other in self._alive[1:5]}
        self.does(self._alive[0], do.SetLimits(limits=Limits(incoming=64, outgoing=64, link_bytes_per_s=links)))
        for _ in range(guests):
            self._define()

    def does(self, by: str, body: do.Body) -> TicketOutcome:
        """Have a host's command applied; one in a hundred comes twice."""
        command = do.Command(request=f"r{next(self._numbers)}", by=by, at=self.now, body=body)
        outcome = apply(self.fleet, command)
        if self.rng.random() < 0.01:
            assert apply(self.fleet, command) == outcome, "a repeated request is answered as before"
        self.commands[type(body).__name__] += 1
        return outcome

    def play(self) -> None:
        """Let a year pass; what was counted is in `quarters`."""
        Table.looked_at = 0
        self.commands.clear()
        for day in range(1, YEAR_DAYS + 1):
            self._day()
            if day % QUARTER_DAYS == 0:
                self._count()

    # -- a day

    def _day(self) -> None:
        rng, here = self.rng, len(self._guests)
        self._today = list(self._guests)
        acts = [self._beat] * BEATS * len(self._alive) + [self._lease] * _about(rng, LEASES * len(self._alive))
        acts += [self._undefine, self._define] * _about(rng, GUEST_ENDS * here) + [self._move] * _about(
            rng, GUEST_MOVES * here
        )
        acts += [self._die] * _about(rng, HOST_DIES * len(self._alive))
        rng.shuffle(acts)
        for act in acts:
            self.now += DAY_S / len(acts)
            act()
        for due, name in list(self._gone):
            if due <= self.now:
                self._gone.remove((due, name))
                self._forget(name)

    def _new_host(self) -> None:
        name = f"hv{next(self._numbers)}.example.net"
        self._alive.append(name)
        assert self.does(name, do.PutHost(name=name, reads=model.VERSION)) == TicketOutcome()

    def _beat(self) -> None:
        name = self.rng.choice(self._alive)
        self.does(name, do.PutHost(name=name, reads=model.VERSION))

    def _define(self) -> None:
        number, owner = next(self._numbers), self.rng.choice(self._alive)
        uuid = f"00000000-0000-4000-8000-{number:012d}"
        assert self.does(owner, do.PutDomain(uuid=uuid, name=f"vm{number}", memory_bytes=1 << 32)).code == ""
        self._guests[uuid] = owner

    def _guest(self) -> tuple[str, str]:
        """A guest whose host lives, and its host."""
        while True:
            uuid = self.rng.choice(self._today)
            owner = self._guests.get(uuid)
            if owner is not None and all(owner != name for _, name in self._gone):
                return uuid, owner

    def _undefine(self) -> None:
        uuid, owner = self._guest()
        if self.does(owner, do.ForgetDomain(uuid=uuid)).code == "":
            del self._guests[uuid]

    def _move(self) -> None:
        """One migration: most arrive, some fail, some are never begun, some are left to be settled."""
        (uuid, source), destination = self._guest(), self.rng.choice(self._alive)
        given = self.does(
            source, do.Propose(uuid=uuid, source=source, destination=destination, lifetime_s=self.rng.uniform(10, 600))
        )
        if given.code:
            return
        chance = self.rng.random()
        if chance < 0.02:
            return  # it runs out
        self.does(destination, do.Begin(token=given.token))
        if chance < 0.90:
            assert self.does(destination, do.Resume(token=given.token)).code == ""
            self._guests[uuid] = destination
        elif chance < 0.96:
            self.does(source, do.Fail(token=given.token, reason="cancelled"))
        else:
            self.does(source, do.Resolve(token=given.token, source_runs=True, destination_runs=False))

    def _lease(self) -> None:
        name, holder = f"lock-{next(self._numbers)}", self.rng.choice(self._alive)
        lifetime_s = self.rng.uniform(10, 3600)
        if self.rng.random() < 0.5:
            taken = self.does(holder, do.Acquire(name=name, lifetime_s=lifetime_s))
            back: do.Body = do.Release(name=name, token=taken.token)
        else:
            source, destination = self._alive[0], self.rng.choice(self._alive[1:5])
            taken = self.does(
                holder,
                do.Reserve(name=name, source=source, destination=destination, bytes_per_s=1, lifetime_s=lifetime_s),
            )
            back = do.Unreserve(name=name, token=taken.token)
        assert not taken.code, f"{name}: {taken.code}"
        if self.rng.random() < 0.5:
            self.does(holder, back)

    def _die(self) -> None:
        name = self._alive.pop(self.rng.randrange(len(self._alive)))
        self._gone.append((self.now + 7 * DAY_S, name))
        self._new_host()

    def _forget(self, name: str) -> None:
        """An operator forgets a host; its guests are started elsewhere."""
        self.does(self._alive[0], do.ForgetHost(name=name))
        for uuid in [uuid for uuid, owner in self._guests.items() if owner == name]:
            del self._guests[uuid]
            self._define()

    # -- what is counted

    def _count(self) -> None:
        commands = self.commands.total() - sum(quarter["commands"] for quarter in self.quarters)
        looked_at, Table.looked_at = Table.looked_at, 0
        assert not violations(self.fleet), violations(self.fleet)[0]
        self.quarters.append(
            {
                "commands": commands,
                "rows looked at per command": round(looked_at / commands, 2),
                "bytes": len(model.encode(_plain(self.fleet))),
                "rows": {table: dict.__len__(getattr(self.fleet, table)) for table in TABLES},
                "outcomes of one host at most": max(map(len, self.fleet.outcomes.values())),
            }
        )


def _plain(fleet: FleetState) -> FleetState:
    """The same state with tables as the encoder takes them."""
    plain = FleetState()
    for field in fleet.__struct_fields__:
        value = getattr(fleet, field)
        setattr(plain, field, dict(dict.items(value)) if isinstance(value, dict) else value)
    return plain


def _about(rng: random.Random, mean: float) -> int:
    """A whole number that is `mean` on the average."""
    return int(mean) + (rng.random() < mean % 1)


def main() -> int:
    """Play the year of 1,000 hosts and 100,000 guests, and write what was counted."""
    began = time.process_time()
    year = Year(1, hosts=1000, guests=100_000)
    year.play()
    found = {
        "commit": subprocess.run(
            ["git", "log", "-1", "--format=%h"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "hosts": 1000,
        "guests": 100_000,
        "days": YEAR_DAYS,
        "commands": dict(year.commands),
        "quarters": year.quarters,
        "cpu_s": round(time.process_time() - began),
    }
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(year.quarters, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
