"""Rate control of migrations that share a link: once a second the allocator's grants go to data processes and libvirt.

The rule: a single domain has no rate limit unless head-room is configured, and grants must not hide what a link could
carry. So of several domains the one with the largest grant has no limit: it takes what the others leave. Where
head-room limits all of them, the limits are lifted for `PROBE_S` every `PROBE_EVERY_S`. A link's limit
(`bandwidth.link_bytes_per_s_max`, the peer's own, or a commanded one; the lowest counts) is a ceiling over all of that,
at every moment and whether links are shared or not.

A domain is one, however many sessions it has: its disks' copies and its memory follow each other. Once its memory is on
the way its disks have no limit any more: they carry what the guest writes, and the guest would be slowed with them. A
memory whose domain is not known yet counts as a domain too; while there is one, no disks are limited, because they may
belong to it. Capacity that a domain cannot use goes to the others. No limit is below `ALIVE_BYTES_PER_S`, however
little the link carries.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from msgspec.structs import replace

from dwcp_migrate.agent.forecasting.series import Forecasts
from dwcp_migrate.agent.peers.limits import lowest_limit
from dwcp_migrate.agent.tracking.registry import MigrationRegistry
from dwcp_migrate.api.migration import Migration, MigrationEvent, append_event
from dwcp_migrate.bandwidth.allocation.allocator import Demand, Grant, LinkCapacity, allocate_rates
from dwcp_migrate.bandwidth.allocation.ceiling import cap_rates
from dwcp_migrate.bandwidth.allocation.usage import Usage
from dwcp_migrate.bandwidth.prediction.guest_model import SAMPLES_KEPT
from dwcp_migrate.bandwidth.storage.series import Key
from dwcp_migrate.config import BandwidthConfig
from dwcp_migrate.units import KIB

PROBE_S: Final = 1.0
PROBE_EVERY_S: Final = 30.0

CHANGE_MIN: Final = 0.03
"""Relative change below which a rate is left as it is, so that small changes of a forecast cost no messages."""

FORECAST_STEPS: Final = 10.0
"""A grant holds for a second; the low quantile of the next ten keeps it from jumping."""

ALIVE_BYTES_PER_S: Final = 256.0 * KIB
"""The largest segment of a stream, 2 MiB, crosses in eight seconds, so that what waits behind it goes on: control
messages, the disk's requests and libvirt's own patience."""

LIMITED: Final = "limit"
"""The event of a record that says what holds it to a rate."""

NOT_LIMITED: Final = "none"

WISHES_MAX: Final = 1024

UNKNOWN_LATER_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class SharePreference:
    """The operator's preference for a domain.

    Attributes:
        weight: its share of what is left, relative to the others.
        due_at: when its migration should be over, seconds since the epoch; 0 without a deadline.
    """

    weight: float = 1.0
    due_at: float = 0.0


@dataclass(frozen=True, slots=True)
class LimitsInForce:
    """The limits in force at a moment, in bytes a second; 0 is none.

    Attributes:
        of_link: of all migrations to a peer together, by its name.
        of_domain: of a domain, by its name.
        words: what holds a migration to a peer, of a domain, by their names.
    """

    of_link: Callable[[str], float]
    of_domain: Callable[[str], float]
    words: Callable[[str, str], str]


class RateController:
    """The grants of this host.

    Attributes:
        usage: what each migration shows that it can use.

    Args:
        ledger: where the migrations are.
        forecasts: what links carry.
        pace: holds a migration's data process to a rate on the wire, 0 for none.
        set_speed: holds QEMU itself, for a migration that passes through; 0 as it was before.
        ceilings: the limits in force.
    """

    def __init__(
        self,
        ledger: MigrationRegistry,
        forecasts: Forecasts,
        pace: Callable[[str, float], None],
        set_speed: Callable[[str, float], None],
        ceilings: LimitsInForce,
    ) -> None:
        self._ledger = ledger
        self._forecasts = forecasts
        self._pace = pace
        self._set_speed = set_speed
        self._ceilings = ceilings
        self._rates: dict[str, float] = {}
        self._slowed: dict[str, str] = {}
        self._wishes: dict[str, SharePreference] = {}
        self._probed_at: dict[str, float] = {}
        self._first: dict[str, set[str]] = {}
        self.usage = Usage()

    def wish(self, domain: str, wish: SharePreference) -> None:
        """Set the preference for a domain's next or running migration; beyond `WISHES_MAX` the oldest is dropped.

        Args:
            domain: libvirt's name.
            wish: weight and deadline.
        """
        self._wishes.pop(domain, None)
        self._wishes[domain] = wish
        if len(self._wishes) > WISHES_MAX:
            del self._wishes[next(iter(self._wishes))]

    def wished(self, domain: str) -> SharePreference:
        """The preference that was set for a domain."""
        return self._wishes.get(domain, SharePreference())

    def holds(self, identity: str) -> bool:
        """Whether a migration is held to a rate now."""
        return self.rate(identity) > 0

    def rate(self, identity: str) -> float:
        """The rate limit of a migration, bytes a second; 0 for none."""
        return self._rates.get(identity, 0.0)

    def _running(self) -> list[Migration]:
        """Source migrations that can be held: their data process carries something.

        Before that there is nobody to be told a rate. After it, until libvirt has said how it ended, the link is the
        others'.
        """
        mine = (one for one in self._ledger.running() if one.role == "source" and one.peer)
        return [one for one in mine if one.state != "opening" and not one.is_delivered]

    def update(self, config: BandwidthConfig, other_bytes_per_s: float, now: float) -> None:
        """Share every link again among the migrations that run.

        Args:
            config: limits and order of the sharing.
            other_bytes_per_s: sent on this host's links by others than its migrations.
            now: seconds since the epoch.
        """
        running = self._running()
        peers = {record.peer for record in running}
        self._first = {peer: names for peer, names in self._first.items() if peer in peers}
        for peer in sorted(peers):
            mine = [record for record in running if record.peer == peer]
            ceiling = lowest_limit(self._ceilings.of_link(peer), config.link_bytes_per_s_max)
            limited = replace(config, link_bytes_per_s_max=ceiling)
            self._hold_all(mine, self._shares(peer, mine, limited, other_bytes_per_s, now), ceiling)
        for record in running:
            self._tell_limit(record, now)
        alive = {record.id for record in running}
        self.usage.keep(alive)
        gone = self._rates.keys() - alive
        for identity in gone:
            del self._rates[identity]
            if uuid := self._slowed.pop(identity, ""):
                self._set_speed(uuid, 0.0)  # libvirt would hold the domain's next migration to it

    def _shares(
        self, peer: str, running: list[Migration], config: BandwidthConfig, other_bytes_per_s: float, now: float
    ) -> dict[str, tuple[float, float]]:
        """For those of a peer's migrations that are held or granted something: the rate (0 for none) and the grant.

        Two sessions whose domain is not known could be of one domain, and would look like two: they are left out.
        """
        mine = [record for record in running if _domain(record)]
        carries = self._forecasts.carries(peer, FORECAST_STEPS)
        alive = self._forecasts.carries(peer, FORECAST_STEPS, alive=True)
        has_headroom = bool(config.headroom_share or config.reserved_bytes_per_s)
        is_certain = all(record.domain or record.uuid for record in mine)
        domains: dict[str, list[Migration]] = {}
        for record in mine:
            if is_certain or record.kind == "memory":
                domains.setdefault(_domain(record), []).append(record)
        if carries is None or alive is None or not config.share or not (len(domains) > 1 or (domains and has_headroom)):
            self._first[peer] = set(domains)
            return {}
        speed = config.link_bytes_per_s_max or float("inf")
        capacity = LinkCapacity(
            forecast_bytes_per_s=alive.low,  # a dead second carries nobody's, so that there is nothing to share in it
            median_bytes_per_s=carries.median,
            speed_bytes_per_s=max(0.0, speed - other_bytes_per_s),
            headroom_share=config.headroom_share,
            reserved_bytes_per_s=config.reserved_bytes_per_s,
        )
        first = self._first.get(peer, set())
        demands = [self._demand(name, sessions, now, is_first=name in first) for name, sessions in domains.items()]
        allocated = allocate_rates(capacity, demands, running_max=config.running_max)
        grants = {grant.identity: grant for grant in allocated}
        free = self._free(peer, grants, now, has_headroom=has_headroom)
        self._first[peer] = {max(grants.values(), key=_size).identity}
        shares: dict[str, tuple[float, float]] = {}
        for name, sessions in domains.items():
            rate = max(grants[name].rate_bytes_per_s, ALIVE_BYTES_PER_S)
            has_memory = any(one.kind == "memory" for one in sessions)
            for record in sessions:
                if record.kind == "memory" or not has_memory:
                    shares[record.id] = (0.0 if name in free else rate, rate)
        return shares

    def _hold_all(self, running: list[Migration], shares: dict[str, tuple[float, float]], ceiling: float) -> None:
        """Put shares in force; under a ceiling all are limited, and those that get less are told first."""
        found = {record.id: shares.get(record.id, (0.0, -1.0)) for record in running}
        if ceiling:
            rates = cap_rates({identity: rate for identity, (rate, _) in found.items()}, ceiling)
            found = {identity: (rate, rate) for identity, rate in rates.items()}
        own = self._under_own_ceilings(running, found)
        found |= own
        for record in sorted(running, key=lambda one: found[one.id][0] > self.rate(one.id)):
            rate, granted = found[record.id]
            self._hold(record, rate, granted, change_min=0.0 if ceiling or record.id in own else CHANGE_MIN)

    def _under_own_ceilings(
        self, running: list[Migration], found: dict[str, tuple[float, float]]
    ) -> dict[str, tuple[float, float]]:
        """Rates of the domains that have a ceiling of their own, over all sessions of each."""
        capped: dict[str, tuple[float, float]] = {}
        for domain in {record.domain for record in running}:
            if ceiling := self._ceilings.of_domain(domain):
                mine = {record.id: found[record.id][0] for record in running if record.domain == domain}
                capped |= {identity: (rate, rate) for identity, rate in cap_rates(mine, ceiling).items()}
        return capped

    def _tell_limit(self, record: Migration, now: float) -> None:
        """Note in the record what holds it, each time that this changes."""
        said = self._ceilings.words(record.peer, record.domain)
        before = next((one.detail for one in reversed(record.events) if one.event == LIMITED), "")
        if (said or NOT_LIMITED) != (before or NOT_LIMITED):
            event = MigrationEvent(at=now, event=LIMITED, detail=said or NOT_LIMITED)
            self._ledger.change(record.id, lambda found: append_event(found, event))

    def _free(self, peer: str, grants: dict[str, Grant], now: float, *, has_headroom: bool) -> set[str]:
        """Domains without a rate limit: the one with most, or for a moment all, so that the link can be measured."""
        if not has_headroom:
            return {max(grants.values(), key=_size).identity}
        since = now - self._probed_at.setdefault(peer, now)
        if since >= PROBE_EVERY_S + PROBE_S:
            self._probed_at[peer] = now
        return set(grants) if since >= PROBE_EVERY_S else set()

    def _demand(self, name: str, sessions: list[Migration], now: float, *, is_first: bool) -> Demand:
        """A domain's demand: that of its memory's migration, before that its disks'."""
        record = min(sessions, key=lambda one: one.kind == "disk")
        wish = self.wished(record.domain)
        later_share = self._share_of(record, "later_share", UNKNOWN_LATER_SHARE)
        # The first bytes of a pass say little of the others: a guest's zero pages lie together.
        now_share = later_share if record.iteration > 1 else self._share_of(record, "first_share", 1 / record.ratio)
        return Demand(
            identity=name,
            weight=wish.weight,
            remaining_bytes=_left_bytes(record) * min(1.0, now_share),
            dirty_bytes_per_s=max(0.0, record.dirty_bytes_per_s) * later_share,
            working_set_bytes=self._working_set_bytes(record) * later_share,
            rate_bytes_per_s_max=max(ALIVE_BYTES_PER_S, self.usage.most(record.id)),
            deadline_s=wish.due_at - now if wish.due_at else None,
            is_switching=record.state in {"switchover", "postcopy"} or record.guest_paused,
            is_first=is_first,
        )

    def _share_of(self, record: Migration, quantity: Literal["first_share", "later_share"], otherwise: float) -> float:
        """Bytes on the wire for each of the guest's in the first pass, or in later ones, as its last migration was."""
        known = self._forecasts.known(Key("domain", quantity, record.uuid), 1) if record.uuid else []
        return known[-1] if known else otherwise

    def _working_set_bytes(self, record: Migration) -> float:
        """The most that its guest wrote in a pass of its last migrations; all of its memory while none has ended.

        Libvirt's first dirty rate of a job can be that of a burst, and many times the usual one.
        """
        known: list[float] = []
        if record.uuid:
            known = self._forecasts.known(Key("domain", "working_set", record.uuid), SAMPLES_KEPT)
        return max(known, default=float(max(1, record.memory_bytes)))

    def _hold(self, record: Migration, rate: float, granted: float, change_min: float) -> None:
        before = self._rates.get(record.id, 0.0)
        changed = (rate > 0) != (before > 0) or abs(rate - before) > change_min * max(rate, before)
        if changed:
            self._rates[record.id] = rate
            if not record.passthrough_reason:
                self._pace(record.id, rate)
            elif record.uuid:
                self._slowed[record.id] = record.uuid
                self._set_speed(record.uuid, rate)
        told = record.granted_bytes_per_s
        if changed or granted < 0 or abs(granted - told) > CHANGE_MIN * max(granted, told):
            self._ledger.change(record.id, lambda found: _granted(found, granted))


def _size(grant: Grant) -> tuple[float, str]:
    return grant.rate_bytes_per_s, grant.identity


def _domain(record: Migration) -> str:
    """The domain of a migration; empty where it cannot be told: passed through, or the disks of some domain."""
    unread = record.kind == "disk" or record.passthrough_reason
    return record.domain or record.uuid or ("" if unread else record.id)


def _left_bytes(record: Migration) -> int:
    """Memory still to be sent in this pass: as libvirt says it, or as the stream's own first pass goes."""
    if record.remaining_bytes >= 0:
        return record.remaining_bytes
    return max(0, record.memory_bytes - record.counters.raw_bytes) if record.iteration <= 1 else record.memory_bytes


def _granted(record: Migration, granted: float) -> Migration:
    same = record.granted_bytes_per_s == granted
    return record if same else replace(record, granted_bytes_per_s=granted)
