"""A history of what clients asked real replicas and what they were told, and whether it can be.

The rule checked is linearizability, and it is checked whole: the token of a lease is its place in the one history, so
that the order in which everything happened is known and only has to be compared with the order of the clock.

    an act that ended before another one began has the smaller token
    a read sees every act that ended before it began, and none that began after it ended
    an act that was confirmed is in the state of every replica at the end; each token was given once
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Act:
    """A lease taken: between `began` and `ended`, with `token`; 0 if nobody was told how it went."""

    lease: str
    began: float
    ended: float
    token: int


@dataclass(frozen=True, slots=True)
class Read:
    """Everything up to `index`, seen between `began` and `ended`."""

    began: float
    ended: float
    index: int


def anomalies(acts: list[Act], reads: list[Read], states: list[dict[str, int]]) -> list[str]:
    """Name everything that cannot be.

    Args:
        acts: of all clients.
        reads: likewise.
        states: lease to token, of every replica in the end.
    """
    known = [act for act in acts if act.token]
    found = [f"{first} and {second} share a token" for first, second in _doubles(known)]
    by_end = sorted(known, key=lambda act: act.ended)
    latest, position = 0, 0
    for act in sorted(known, key=lambda act: act.began):
        while position < len(by_end) and by_end[position].ended < act.began:
            latest = max(latest, by_end[position].token)
            position += 1
        if act.token < latest:
            found.append(f"{act} began when {latest} had ended")
    for read in reads:
        missed = [act for act in known if act.ended < read.began and act.token > read.index]
        early = [act for act in known if act.began > read.ended and act.token <= read.index]
        found += [f"{read} misses {act}" for act in missed] + [f"{read} sees {act}" for act in early]
    for state in states:
        found += [f"{act} is lost" for act in known if state.get(act.lease) != act.token]
        if state != states[0]:
            found.append("replicas differ")
    return found


def _doubles(acts: list[Act]) -> list[tuple[Act, Act]]:
    seen: dict[int, Act] = {}
    doubles = []
    for act in acts:
        other = seen.setdefault(act.token, act)
        if other is not act:
            doubles.append((other, act))
    return doubles
