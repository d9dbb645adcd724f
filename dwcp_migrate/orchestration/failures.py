"""Failed migrations as a plan remembers them: the cause of each, and the hosts that its domain is kept from.

The rule here: one refusal closes one host to one domain, so that the next best host is tried. An error about the domain
itself closes all hosts, because each would give the same. After a lost connection the same host is tried once more.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from dwcp_migrate.placement.fleet import Domain, Fleet

FAILURES_MAX: Final = 3
"""Failures after which a domain is left where it is, whatever their destinations."""

LOST_MAX: Final = 2
"""Tries of one domain towards one host that end with a lost connection."""

OWN_WORDS: Final = (
    "cannot migrate",
    "cannot be migrated",
    "migration is not supported",
    "does not support migration",
    "non-migratable",
    "is not migratable",
    "host devices",
    "active block job",
    "unsafe migration",
    "operation aborted",
    "marked for auto destroy",
)
"""Parts of libvirt's messages that speak of the domain, whatever its destination (qemuMigrationSrcIsAllowed, and jobs
that somebody aborted)."""

LOST_WORDS: Final = (
    "connection reset",
    "broken pipe",
    "keepalive",
    "cannot recv data",
    "unable to write to socket",
    "client socket is closed",
    "lost connection",
    "timed out",
)


class MigrationFailure(NamedTuple):
    """A migration that failed: its destination, and libvirt's words."""

    host: str
    error: str


def is_domains_own(error: str) -> bool:
    """Whether libvirt's words are about the domain, so that no other host would help."""
    lowered = error.lower()
    return any(words in lowered for words in OWN_WORDS)


def is_lost_connection(error: str) -> bool:
    """Whether libvirt's words are about a connection that broke, which the next attempt may not."""
    lowered = error.lower()
    return any(words in lowered for words in LOST_WORDS)


def remembering(fleet: Fleet, failures: Mapping[str, Sequence[MigrationFailure]]) -> Fleet:
    """Keep domains from the hosts that refused them, and leave those where they are that failed too often.

    Args:
        fleet: as it is now.
        failures: by domain, the oldest first.
    """
    bars = dict(fleet.bars)
    domains = []
    for domain in fleet.domains:
        failed = failures.get(domain.name, ())
        if failed and domain.movable:
            name = f"failures of {domain.name}"
            bars[name] = _barred(failed)
            domains.append(_after(domain, failed, name))
        else:
            domains.append(domain)
    return msgspec.structs.replace(fleet, domains=domains, bars=bars)


def merged_failures(
    one: Mapping[str, Sequence[MigrationFailure]], other: Mapping[str, Sequence[MigrationFailure]]
) -> dict[str, list[MigrationFailure]]:
    """Join failures of migrations, by domain.

    Args:
        one: the earlier ones, of another carrier of the plan.
        other: those since.
    """
    return {domain: [*one.get(domain, ()), *other.get(domain, ())] for domain in {**one, **other}}


def _barred(failed: Sequence[MigrationFailure]) -> dict[str, str]:
    tries = Counter(one.host for one in failed)
    return {
        one.host: f"a migration there failed: {one.error}"
        for one in failed
        if not is_lost_connection(one.error) or tries[one.host] >= LOST_MAX
    }


def _after(domain: Domain, failed: Sequence[MigrationFailure], bar: str) -> Domain:
    last = failed[-1]
    if is_domains_own(last.error):
        return msgspec.structs.replace(domain, movable=False, stays=f"its migration failed: {last.error}")
    if len(failed) >= FAILURES_MAX:
        stays = f"its migration failed {len(failed)} times, the last time to {last.host}: {last.error}"
        return msgspec.structs.replace(domain, movable=False, stays=stays)
    return msgspec.structs.replace(domain, bars=[*domain.bars, bar])
