"""Match of a migration to its domain: a pure function over what libvirt, the hook and the stream report.

The rule: a guess is never written down. A migration is tied to a domain when only one is left that it can be; the rest
waits for more facts, at the latest for libvirt's event at the end.

    possible = domains announced at the destination  ∩  domains that libvirt moves here now, once those are enough
               narrowed by the UUID of a multifd channel, by the stream's total of memory, and by those already tied

Libvirt lists a job some time after its connection is there: of several migrations that begin at once it lists only some
at first, so a domain is not ruled out because it is not listed yet.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dwcp_migrate.units import MIB

EXTRA_MEMORY_BYTES_MAX: Final = 1024 * MIB
"""Excess of a stream's total over the domain's memory: video memory (up to 512 MiB), firmware, option ROMs."""


@dataclass(frozen=True, slots=True)
class KnownDomain:
    """A domain that libvirt or an announcement names.

    Attributes:
        memory_bytes: 0 when unknown.
        moving: libvirt says that it migrates here, in the direction in question.
    """

    uuid: str
    name: str
    memory_bytes: int = 0
    moving: bool = False


@dataclass(frozen=True, slots=True)
class UnmatchedMigration:
    """A migration without a domain.

    Attributes:
        identity: its id.
        lane: migrations of one lane carry different domains: `source memory`, `source disk`, `destination memory` ...
        candidates: UUIDs announced for it; empty when nothing is known of them.
        stream_uuid: as a multifd channel announced it.
        memory_bytes: as the stream announced it; 0 when unknown.
    """

    identity: str
    lane: str
    candidates: frozenset[str] = frozenset()
    stream_uuid: str = ""
    memory_bytes: int = 0


def bind(
    questions: Sequence[UnmatchedMigration],
    known: Mapping[str, KnownDomain],
    taken: Mapping[str, Collection[str]],
    opening: int = 0,
) -> dict[str, KnownDomain]:
    """Tie what can be tied.

    Args:
        questions: migrations without a domain.
        known: domains by UUID, announced ones included.
        taken: UUIDs already tied, by lane.
        opening: further migrations, whose ends are still agreeing: one of the domains that move may be any of theirs.

    Returns:
        Identity to domain, for those that have only one left.
    """
    gone = {lane: set(uuids) for lane, uuids in taken.items()}
    answers: dict[str, KnownDomain] = {}
    while sure := _sure([each for each in questions if each.identity not in answers], known, gone, opening):
        for question, domain in sure:
            answers[question.identity] = domain
            gone.setdefault(question.lane, set()).add(domain.uuid)
    return answers


def _sure(
    questions: Sequence[UnmatchedMigration],
    known: Mapping[str, KnownDomain],
    gone: Mapping[str, Collection[str]],
    opening: int,
) -> list[tuple[UnmatchedMigration, KnownDomain]]:
    """Questions with one answer that no other one has too.

    Of two migrations that only one domain is left for, one has outlived its domain's move; which one is not known.
    """
    asking = Counter(question.lane for question in questions)
    possible = [
        (question, _possible(question, known, gone.get(question.lane, ()), asking[question.lane] + opening))
        for question in questions
    ]
    single = [(question, domains[0]) for question, domains in possible if len(domains) == 1]
    asked = Counter((question.lane, domain.uuid) for question, domain in single)
    return [
        (question, domain)
        for question, domain in single
        if question.stream_uuid or asked[question.lane, domain.uuid] == 1
    ]


def _possible(
    question: UnmatchedMigration, known: Mapping[str, KnownDomain], gone: Collection[str], asking: int
) -> list[KnownDomain]:
    if question.stream_uuid:
        found = known.get(question.stream_uuid)
        return [found] if found else []
    free = [domain for domain in known.values() if domain.uuid not in gone]
    announced = [domain for domain in free if domain.uuid in question.candidates] if question.candidates else free
    sized = _of_size(announced, question.memory_bytes)
    moving = [domain for domain in sized if domain.moving]
    if question.candidates:
        return moving if moving and len(moving) >= asking else sized
    return moving


def _of_size(domains: list[KnownDomain], memory_bytes: int) -> list[KnownDomain]:
    """Keep those that the stream's total fits; all if it fits none, because it is a hint only."""
    if not memory_bytes:
        return domains
    fitting = [
        domain
        for domain in domains
        if domain.memory_bytes and domain.memory_bytes <= memory_bytes <= domain.memory_bytes + EXTRA_MEMORY_BYTES_MAX
    ]
    exact = [domain for domain in fitting if memory_bytes - domain.memory_bytes < EXTRA_MEMORY_BYTES_MAX // 16]
    return (exact if len(exact) == 1 else fitting) or domains
