"""Settings of one migration: what `[[domains]]` and its peer's entry choose over those of the whole host (pure).

The rule: of the entries of `[[domains]]` the first that names the domain counts. What a domain's entry says goes before
what its peer's says, but limits only add up to lower ones: the lowest holds.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec

from dwcp_migrate.config.model import Config, DomainConfig, PeerConfig, RateHours
from dwcp_migrate.units import format_rate

MINUTES_OF_HOUR = 60


class MigrationChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Settings chosen for a migration, each with the entry that does so.

    Attributes:
        plain_by: which entry keeps it unaccelerated; empty where it may be accelerated.
        codec: in the place of `encoding.codec`; empty leaves that.
        codec_by: which entry says so.
    """

    plain_by: str = ""
    codec: str = ""
    codec_by: str = ""


class ChosenLimit(msgspec.Struct, frozen=True):
    """A limit in bytes a second, 0 for none, and the entry that sets it, in words."""

    bytes_per_s: float = 0.0
    by: str = ""


def choose_settings(config: Config, peer: PeerConfig, names: Sequence[str]) -> MigrationChoice:
    """Choose the settings of a migration that begins.

    Args:
        config: of this host.
        peer: where it goes.
        names: of the domains that it may be of. Where several may be meant, one that is to run unaccelerated keeps it
            so, and a codec counts only where it is the same for all.
    """
    found = [entry for name in names if (entry := domain_entry(config, name)) is not None]
    plain = next((_named(entry) for entry in found if not entry.accelerate), "")
    if not peer.accelerate:
        plain = plain or f"[[peers]] of {peer.name}"
    codecs = {entry.codec if (entry := domain_entry(config, name)) is not None else "" for name in names}
    if len(codecs) == 1 and (codec := codecs.pop()):
        return MigrationChoice(plain_by=plain, codec=codec, codec_by=_named(found[0]))
    by = f"[[peers]] of {peer.name}" if peer.codec else ""
    return MigrationChoice(plain_by=plain, codec=peer.codec, codec_by=by)


def domain_entry(config: Config, name: str) -> DomainConfig | None:
    """The first entry of `[[domains]]` that names a domain.

    Args:
        config: of this host.
        name: of the domain; empty where it is not known.
    """
    fits = (one for one in config.domains if any(fnmatchcase(name, pattern) for pattern in one.names))
    return next(fits, None) if name else None


def peer_limit(peer: PeerConfig | None, minute: int) -> ChosenLimit:
    """The limit of a peer's own entry.

    Args:
        peer: None for one that is not configured.
        minute: of the day here, from 0.
    """
    if peer is None:
        return ChosenLimit()
    return _limit(f"[[peers]] of {peer.name}", peer.link_bytes_per_s_max, peer.hours, minute)


def domain_limit(config: Config, name: str, minute: int) -> ChosenLimit:
    """The limit of a domain's own entry.

    Args:
        config: of this host.
        name: of the domain; empty where it is not known.
        minute: of the day here, from 0.
    """
    entry = domain_entry(config, name)
    if entry is None:
        return ChosenLimit()
    return _limit(_named(entry), entry.link_bytes_per_s_max, entry.hours, minute)


def _limit(by: str, always: float, hours: Sequence[RateHours], minute: int) -> ChosenLimit:
    limits = [(always, by)] if always else []
    limits += [(one.link_bytes_per_s_max, f"{by}, {one.begin} to {one.end}") for one in hours if is_within(one, minute)]
    if not limits:
        return ChosenLimit()
    rate, said = min(limits)
    return ChosenLimit(rate, f"{format_rate(rate)} by {said}")


def is_within(hours: RateHours, minute: int) -> bool:
    """Whether a limit holds now; hours that end before they begin go over midnight.

    Args:
        hours: of the limit.
        minute: of the day, from 0.
    """
    begin, end = minute_of_day(hours.begin), minute_of_day(hours.end)
    return begin <= minute < end if begin < end else minute >= begin or minute < end


def minute_of_day(text: str) -> int:
    """Read `HH:MM` as a minute of the day, from 0."""
    hour, _, minute = text.partition(":")
    return int(hour) * MINUTES_OF_HOUR + int(minute)


def _named(entry: DomainConfig) -> str:
    return f"[[domains]] of {', '.join(entry.names)}"
