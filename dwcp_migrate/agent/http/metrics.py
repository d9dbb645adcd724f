"""The agent's status as Prometheus text: `render(status)`, a pure function without registry or state.

The rule: every exported metric is in `metric_table.TABLE`, and every family of the table appears in every answer, so
that rules and dashboards find all names from the start. A counter whose labels are known beforehand starts at 0,
because a rate needs a first sample.

    GET /metrics -> AgentStatus (api.schema) -> values: {family: {label values: number}} -> families -> text
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from dwcp_migrate.agent.http.metric_table import ID_CHARACTERS, TABLE, Family
from dwcp_migrate.api.cluster import GroupStatus
from dwcp_migrate.api.schema import BUCKETS, NOT_CAUGHT_CAUSES, AgentStatus, Migration, Totals
from dwcp_migrate.api.usage import FilledShare, StoreUse
from dwcp_migrate.protocol.load import HostLoad, LoadRange
from dwcp_migrate.state.engine_status import EngineStatus

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

ROLES: Final = ("source", "destination")
RESULTS: Final = ("completed", "failed")
STATES: Final = ("running", "draining", "stopping")
HELD_UP_STAGES: Final = (
    "qemu",
    "reader",
    "classifier",
    "compressors",
    "encryption",
    "link",
    "destination",
    "cores",
)
GROUP_ROLES: Final = ("replica", "client", "none")
STORE_FILLS: Final = ("sent", "received", "image")
COORDINATION_STATES: Final = ("leader", "follower", "candidate", "observer", "client", "stopped")

Labels = tuple[str, ...]
Values = Mapping[str, Mapping[Labels, float]]
"""Family name (a summary's `_sum` and `_count` apart) to label values to number."""


def render(status: AgentStatus, *, process: bool = False) -> bytes:
    """Write all metrics in Prometheus' text format 0.0.4, see `CONTENT_TYPE`.

    Args:
        status: the agent's.
        process: add this process's own: CPU, memory and descriptors, as every exporter names them.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(values(status), status.totals.buckets))
    if process:
        ProcessCollector(registry=registry)
    return generate_latest(registry)


def values(status: AgentStatus) -> Values:
    """Say which number each family of `TABLE` has for which labels."""
    found: dict[str, dict[Labels, float]] = defaultdict(dict)
    shorts = {
        **_agent(status),
        **_store(status.store),
        **_totals(status.totals),
        **_coordination(status.coordination),
        **_group(status.group),
    }
    for short, by_labels in shorts.items():
        found[f"dwcp_migrate_{short}"].update(by_labels)
    for link in status.links:
        for statistic, number in zip(("p10", "p50", "p90"), link.next_minute, strict=True):
            found["dwcp_migrate_link_forecast_bytes_per_second"][(link.peer, statistic)] = number
    for family, usage in _load(status.load).items():
        for statistic, number in zip(("p50", "p90"), (usage.median, usage.high), strict=True):
            found[family][(statistic,)] = number
    for migration in status.migrations:
        here = (migration.role, migration.state)
        found["dwcp_migrate_in_progress"][here] = found["dwcp_migrate_in_progress"].get(here, 0) + 1
        labels = (migration.id[:ID_CHARACTERS], migration.domain, migration.role, migration.kind, migration.peer)
        for short, number in _migration(migration).items():
            if number >= 0:  # negative means unknown in the record: no sample beats a wrong one
                found[f"dwcp_migrate_migration_{short}"][labels] = number
    return found


def _load(load: HostLoad) -> dict[str, LoadRange]:
    found = {
        "dwcp_migrate_host_cpu_cores": load.cpu,
        "dwcp_migrate_host_memory_bytes": load.memory,
        "dwcp_migrate_host_memory_stalled_ratio": load.stalled,
        "dwcp_migrate_guests_disk_bytes_per_second": load.disk,
        "dwcp_migrate_guests_network_bytes_per_second": load.network,
    }
    return {family: usage for family, usage in found.items() if usage is not None}


def _agent(status: AgentStatus) -> dict[str, dict[Labels, float]]:
    caught: dict[Labels, float] = defaultdict(float)
    for rule in status.intercept.rules:
        caught[(rule.peer,)] += rule.packets  # a nat rule sees the first packet of each connection
    return {
        "build_info": {(status.version,): 1},
        "start_time_seconds": {(): status.started_at},
        "state": {(state,): float(state == status.state) for state in STATES},
        "config_last_reload_successful": {(): float(not status.configuration.error)},
        "config_last_reload_success_timestamp_seconds": {(): status.configuration.read_at},
        "config_pending_restart": {(): len(status.configuration.pending_restart)},
        "peers": {(): status.peers},
        "data_process_ready": {(): status.spare_ready},
        "memory_budget_bytes": {(): status.memory.budget_bytes},
        "memory_granted_bytes": {(): status.memory.granted_bytes},
        "redirect_wanted": {(): status.intercept.wanted},
        "redirect_armed": {(): status.intercept.armed},
        "redirected_connections_total": caught,
        "libvirt_connected": {(): status.libvirt.connected},
        "certificate_expiry_timestamp_seconds": {(one.use,): one.not_after for one in status.certificates},
        "faults_total": {(part,): count for part, count in status.faults.items()},
        "certificate_renewal_due_timestamp_seconds": {
            (one.use,): one.not_after - (one.not_after - one.not_before) / 3
            for one in status.certificates
            if one.not_before
        },
        "peer_up": {(peer,): float(up) for peer, up in status.peers_up.items()},
    }


def _store(use: StoreUse) -> dict[str, dict[Labels, float]]:
    if not use.bytes_max or not use.looked_at:  # off, or not known yet: no sample, so that no rule fires for it
        return {}
    shares = {(fill,): use.fills.get(fill, FilledShare()) for fill in STORE_FILLS}
    return {
        "store_usable": {(): float(not use.error)},
        "store_bytes_max": {(): use.bytes_max},
        "store_room_bytes": {(): use.room_bytes},
        "store_held_bytes": {labels: share.held_bytes for labels, share in shares.items()},
        "store_pages": {labels: share.pages for labels, share in shares.items()},
        "store_oldest_use_timestamp_seconds": {(): use.oldest_use_at} if use.oldest_use_at else {},
        "store_evicted_pages_total": {(): use.evicted_pages},
    }


def _totals(totals: Totals) -> dict[str, dict[Labels, float]]:
    ended = {tuple(key.split(" ", 1)): float(count) for key, count in totals.migrations.items()}
    by_role = {role: sum(count for key, count in ended.items() if key[0] == role) for role in ROLES}
    return {
        "announcements_total": {(): totals.announcements},
        "migrations_total": {(role, result): 0 for role in ROLES for result in RESULTS} | ended,
        "accelerated_total": _each_role(totals.accelerated),
        "passthrough_total": {(reason,): count for reason, count in totals.passthrough.items()},
        "not_caught_total": {(cause,): totals.not_caught.get(cause, 0) for cause in NOT_CAUGHT_CAUSES},
        "refused_total": {(reason,): count for reason, count in totals.refused.items()},
        "rejected_total": {tuple(key.split(" ", 1)): count for key, count in totals.rejected.items()},
        "raw_bytes_total": _each_role(totals.raw_bytes),
        "wire_bytes_total": _each_role(totals.wire_bytes),
        "return_bytes_total": _each_role(totals.reverse_bytes),
        "opaque_bytes_total": _each_role(totals.opaque_bytes),
        "pages_total": {tuple(key.split(" ", 1)): count for key, count in totals.pages.items()},
        "held_up_seconds_total": {(stage,): totals.held_up_s.get(stage, 0.0) for stage in HELD_UP_STAGES},
        "unclassified_bytes_total": {(): totals.unclassified_bytes},
        "aside_bytes_total": {(): totals.aside_bytes},
        "plain_bytes_total": {(): totals.plain_bytes},
        "segments_resent_total": {(): totals.resent_segments},
        "segments_repaired_total": {(): totals.repaired_segments},
        "channels_lost_total": {(): totals.channels_lost},
        "link_losses_total": {(): totals.link_losses},
        "data_process_crashes_total": {(): totals.data_process_crashes},
        "postcopy_failed_total": {(): totals.postcopy_failed},
        "adopted_total": {(): totals.adopted},
        "predictions_total": {(where,): totals.predictions.get(where, 0) for where in ("inside", "outside")},
        "prediction_error_ratio_sum": {(): totals.prediction_error},
        "prediction_error_ratio_count": {(): sum(totals.predictions.values())},
        "duration_seconds_sum": _each_role(totals.duration_s),
        "duration_seconds_count": {(role,): count for role, count in by_role.items()},
        "downtime_seconds_sum": {key: ms / 1000 for key, ms in _each_role(totals.downtime_ms).items()},
        "downtime_seconds_count": _each_role(totals.downtime_count),
    }


def _coordination(view: EngineStatus) -> dict[str, dict[Labels, float]]:
    latencies = {("p50",): view.commit_ms_p50 / 1000, ("p99",): view.commit_ms_p99 / 1000}
    return {
        "coordination_state": {(state,): float(state == view.state) for state in COORDINATION_STATES},
        "coordination_has_leader": {(): float(bool(view.leader))},
        "coordination_term": {(): view.term},
        "coordination_commit_index": {(): view.commit_index},
        "coordination_applied_index": {(): view.applied_index},
        "coordination_log_bytes": {(): view.log_bytes},
        "coordination_time_ahead_seconds": {(): view.time_ahead_s},
        "coordination_elections_total": {(): view.elections},
        "coordination_requests_total": {("confirmed",): view.requests, ("failed",): view.requests_failed},
        "coordination_commit_seconds": {labels: value for labels, value in latencies.items() if value >= 0},
    }


def _group(view: GroupStatus) -> dict[str, dict[Labels, float]]:
    took = {("p50",): view.decision_ms_p50 / 1000, ("max",): view.decision_ms_max / 1000}
    return {
        "pbft_role": {(role,): float(role == view.role) for role in GROUP_ROLES},
        "pbft_connected_members": {(): len(view.connected)},
        "pbft_epoch": {(): view.epoch},
        "pbft_view": {(): view.view},
        "pbft_executed_sequence": {(): view.sequence},
        "pbft_view_changes_total": {(): view.view_changes},
        "pbft_batch_requests_sum": {(): view.batched_requests},
        "pbft_batch_requests_count": {(): view.batches},
        "pbft_owed": {(): view.owed},
        "pbft_decisions_total": {("decided",): view.decisions, ("failed",): view.decisions_failed},
        "pbft_decision_seconds": {labels: value for labels, value in took.items() if value >= 0},
    }


def _each_role(by_role: Mapping[str, float]) -> dict[Labels, float]:
    return {(role,): by_role.get(role, 0) for role in ROLES}


def _migration(migration: Migration) -> dict[str, float]:
    counters = migration.counters
    return {
        "raw_bytes": counters.raw_bytes,
        "wire_bytes": counters.wire_bytes,
        "memory_bytes": migration.memory_bytes or -1,
        "remaining_bytes": migration.remaining_bytes,
        "raw_bytes_per_second": migration.raw_bytes_per_s,
        "dirty_bytes_per_second": migration.dirty_bytes_per_s,
        "iteration": migration.iteration,
        "channels": counters.channels,
        "rtt_seconds": counters.rtt_s,
        "in_flight_bytes": counters.in_flight_bytes,
        "start_time_seconds": migration.started_at,
        "eta_seconds": migration.eta_s,
        "eta_low_seconds": migration.eta_range_s[0] if migration.eta_range_s else -1,
        "eta_high_seconds": migration.eta_range_s[1] if migration.eta_range_s else -1,
        "granted_bytes_per_second": migration.granted_bytes_per_s,
    }


class _Collected(Collector):
    """Hands prometheus_client the families of one answer."""

    def __init__(self, found: Values, buckets: Mapping[str, int]) -> None:
        self._found = found
        self._buckets = buckets

    def collect(self) -> Iterator[Metric]:
        """Yield the families in the order of the table."""
        for family in TABLE.values():
            if family.kind == "histogram":
                yield self._histogram(family)
            else:
                yield self._summary(family) if family.kind == "summary" else self._plain(family)

    def _plain(self, family: Family) -> Metric:
        made = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
        metric = made(family.name, family.help, labels=family.labels)
        for labels, number in self._found.get(family.name, {}).items():
            metric.add_metric(labels, number)
        return metric

    def _summary(self, family: Family) -> Metric:
        metric = SummaryMetricFamily(family.name, family.help, labels=family.labels)
        sums = self._found.get(f"{family.name}_sum", {})
        for labels, count in self._found.get(f"{family.name}_count", {}).items():
            metric.add_metric(labels, count_value=int(count), sum_value=sums.get(labels, 0.0))
        return metric

    def _histogram(self, family: Family) -> Metric:
        metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        short = family.name.removeprefix("dwcp_migrate_")
        sums = self._found.get(f"{family.name}_sum", {})
        for labels, count in self._found.get(f"{family.name}_count", {}).items():
            below, buckets = 0, []
            for bound in BUCKETS[short]:
                below += self._buckets.get(" ".join((short, *labels, f"{bound:g}")), 0)
                buckets.append((f"{bound:g}", below))
            metric.add_metric(labels, buckets=[*buckets, ("+Inf", int(count))], sum_value=sums.get(labels, 0.0))
        return metric
