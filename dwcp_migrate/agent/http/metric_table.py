"""Every metric that the agent exports, in one table; docs/operations.md carries it and a test compares.

The rule: base units, `_total` on counters, and **bounded labels**: role, result, reason, kind, listener and peer come
from fixed sets or the configuration. Only the gauges of a migration under way name it, and they vanish with it.
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "summary", "histogram"]

ROLE: Final = ("role",)
MIGRATION: Final = ("migration", "domain", "role", "kind", "peer")
"""`migration` is the start of the id (`ID_CHARACTERS` digits): one domain may have a memory and a disk migration."""

ID_CHARACTERS: Final = 8


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        name: as Prometheus shows it, a counter with its `_total`.
        kind: counter, gauge, summary (`_sum` and `_count`, no quantiles) or histogram (`_bucket` besides).
        labels: their names, in order.
        help: one line.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


_FAMILIES: Final = (
    Family("dwcp_migrate_build_info", "gauge", ("version",), "Always 1; the version of the agent."),
    Family("dwcp_migrate_start_time_seconds", "gauge", (), "When the agent started, seconds since the epoch."),
    Family("dwcp_migrate_state", "gauge", ("state",), "1 for the state that the agent is in: running, draining, ..."),
    Family("dwcp_migrate_config_last_reload_successful", "gauge", (), "1 unless the last reload was refused."),
    Family(
        "dwcp_migrate_config_last_reload_success_timestamp_seconds",
        "gauge",
        (),
        "When the configuration was last read without error, seconds since the epoch.",
    ),
    Family("dwcp_migrate_config_pending_restart", "gauge", (), "Keys of the configuration that wait for a restart."),
    Family("dwcp_migrate_peers", "gauge", (), "Peers, configured or found by the fleet's state."),
    Family("dwcp_migrate_data_process_ready", "gauge", (), "1 while a warm data process waits for a migration."),
    Family("dwcp_migrate_memory_budget_bytes", "gauge", (), "What all sessions together may occupy on this host now."),
    Family("dwcp_migrate_memory_granted_bytes", "gauge", (), "What sessions that run were granted of it."),
    Family("dwcp_migrate_store_usable", "gauge", (), "1 while the page store can be used; absent where it is off."),
    Family("dwcp_migrate_store_bytes_max", "gauge", (), "What the page store may hold, `store.bytes_max`."),
    Family("dwcp_migrate_store_room_bytes", "gauge", (), "What its file system lets it hold in all, at most that."),
    Family("dwcp_migrate_store_held_bytes", "gauge", ("fill",), "What it holds, by source: sent, received, image."),
    Family("dwcp_migrate_store_pages", "gauge", ("fill",), "Pages that it holds, likewise."),
    Family(
        "dwcp_migrate_store_oldest_use_timestamp_seconds",
        "gauge",
        (),
        "When the pages that are evicted next were of use last, since the epoch.",
    ),
    Family("dwcp_migrate_store_evicted_pages_total", "counter", (), "Pages that went because room was needed."),
    Family("dwcp_migrate_redirect_wanted", "gauge", (), "1 while the redirect should be in place."),
    Family("dwcp_migrate_redirect_armed", "gauge", (), "1 while the kernel holds the redirect and all its rules."),
    Family("dwcp_migrate_redirected_connections_total", "counter", ("peer",), "Connections the redirect caught."),
    Family("dwcp_migrate_libvirt_connected", "gauge", (), "1 while the agent hears libvirt's events."),
    Family(
        "dwcp_migrate_certificate_expiry_timestamp_seconds",
        "gauge",
        ("use",),
        "When a certificate ends, seconds since the epoch; 0 when it cannot be read.",
    ),
    Family(
        "dwcp_migrate_certificate_renewal_due_timestamp_seconds",
        "gauge",
        ("use",),
        "When a third of a certificate's life is left, seconds since the epoch.",
    ),
    Family("dwcp_migrate_peer_up", "gauge", ("peer",), "1 while a peer's agent answers; asked about once a minute."),
    Family("dwcp_migrate_announcements_total", "counter", (), "Incoming migrations announced by libvirt's hook."),
    Family(
        "dwcp_migrate_coordination_state",
        "gauge",
        ("state",),
        "1 for what this host is in the fleet's shared state: leader, follower, observer, stopped, ...",
    ),
    Family("dwcp_migrate_coordination_has_leader", "gauge", (), "1 while a leader of the shared state is known."),
    Family("dwcp_migrate_coordination_term", "gauge", (), "Term of the shared state's leader."),
    Family("dwcp_migrate_coordination_commit_index", "gauge", (), "Last entry of the log that is committed."),
    Family("dwcp_migrate_coordination_applied_index", "gauge", (), "Last entry of the log that is applied here."),
    Family("dwcp_migrate_coordination_log_bytes", "gauge", (), "Size of the log on disk."),
    Family(
        "dwcp_migrate_coordination_time_ahead_seconds",
        "gauge",
        (),
        "How far the fleet's time is before this host's clock; 0 where it is not.",
    ),
    Family("dwcp_migrate_coordination_elections_total", "counter", (), "Terms that began while this agent ran."),
    Family(
        "dwcp_migrate_coordination_requests_total",
        "counter",
        ("result",),
        "This host's requests to the shared state: confirmed, or failed for want of a majority in time.",
    ),
    Family(
        "dwcp_migrate_coordination_commit_seconds",
        "gauge",
        ("statistic",),
        "How long this host's last requests took until they were committed: p50 and p99.",
    ),
    Family(
        "dwcp_migrate_pbft_role", "gauge", ("role",), "1 for this host's part in the PBFT group: replica, client, none."
    ),
    Family("dwcp_migrate_pbft_connected_members", "gauge", (), "Members that this host's client is connected to."),
    Family("dwcp_migrate_pbft_epoch", "gauge", (), "Newest epoch of the group whose members this host verified."),
    Family("dwcp_migrate_pbft_view", "gauge", (), "View that the replica here is in."),
    Family("dwcp_migrate_pbft_executed_sequence", "gauge", (), "Last sequence that the replica here executed."),
    Family("dwcp_migrate_pbft_view_changes_total", "counter", (), "Views that the replica here entered."),
    Family(
        "dwcp_migrate_pbft_batch_requests", "summary", (), "Requests in the batches that the replica here executed."
    ),
    Family(
        "dwcp_migrate_pbft_owed", "gauge", (), "Ends of migrations that the group has not confirmed to this host yet."
    ),
    Family(
        "dwcp_migrate_pbft_decisions_total",
        "counter",
        ("result",),
        "This host's requests to the group: decided, or failed for want of an answer in time.",
    ),
    Family(
        "dwcp_migrate_pbft_decision_seconds",
        "gauge",
        ("statistic",),
        "How long this host's last requests took until the group had decided: p50 and max.",
    ),
    Family("dwcp_migrate_migrations_total", "counter", ("role", "result"), "Migrations that ended."),
    Family("dwcp_migrate_accelerated_total", "counter", ROLE, "Migrations that ended and were accelerated."),
    Family("dwcp_migrate_passthrough_total", "counter", ("reason",), "Migrations that ran unaccelerated, and why."),
    Family(
        "dwcp_migrate_not_caught_total",
        "counter",
        ("cause",),
        "Migrations that left this host past the agent: to another address or port, or by a way it cannot see.",
    ),
    Family("dwcp_migrate_refused_total", "counter", ("reason",), "Peers' requests that this agent refused, and why."),
    Family(
        "dwcp_migrate_rejected_total",
        "counter",
        ("listener", "reason"),
        "Connections closed on a listener: garbage, bad certificates, unknown versions.",
    ),
    Family("dwcp_migrate_raw_bytes_total", "counter", ROLE, "Bytes taken from or written into QEMU."),
    Family("dwcp_migrate_wire_bytes_total", "counter", ROLE, "Bytes on the channels between agents, before TLS."),
    Family("dwcp_migrate_return_bytes_total", "counter", ROLE, "Bytes of QEMU's return path."),
    Family("dwcp_migrate_opaque_bytes_total", "counter", ROLE, "Raw bytes carried without being understood."),
    Family("dwcp_migrate_pages_total", "counter", ("role", "kind"), "Guest pages by how they were sent."),
    Family(
        "dwcp_migrate_held_up_seconds_total",
        "counter",
        ("stage",),
        "Time of outgoing migrations by what they waited for: qemu, reader, classifier, compressors, encryption, link, "
        "destination, or cores that others used.",
    ),
    Family(
        "dwcp_migrate_unclassified_bytes_total",
        "counter",
        (),
        "Raw bytes of pages sent as they are, because the pipeline was slower than the link.",
    ),
    Family(
        "dwcp_migrate_aside_bytes_total",
        "counter",
        (),
        "Bytes that went past the channels, because the link outran the pipeline (`policy.step_aside`).",
    ),
    Family(
        "dwcp_migrate_plain_bytes_total",
        "counter",
        (),
        "Of these, bytes that went unencrypted, as QEMU sends them.",
    ),
    Family("dwcp_migrate_segments_resent_total", "counter", (), "Segments sent again after a channel was lost."),
    Family(
        "dwcp_migrate_segments_repaired_total",
        "counter",
        (),
        "Segments that were rebuilt wrong, found by their checksum and sent again raw.",
    ),
    Family("dwcp_migrate_channels_lost_total", "counter", (), "Channels that broke under a running migration."),
    Family("dwcp_migrate_link_losses_total", "counter", (), "Times that a migration lost all of its channels."),
    Family("dwcp_migrate_data_process_crashes_total", "counter", (), "Data processes that exited unexpectedly."),
    Family("dwcp_migrate_postcopy_failed_total", "counter", (), "Postcopies that broke off: a guest waits for memory."),
    Family("dwcp_migrate_adopted_total", "counter", (), "Migrations taken over from the agent before this one."),
    Family(
        "dwcp_migrate_faults_total",
        "counter",
        ("part",),
        "Faults in the agent itself: exceptions that nobody foresaw, each in the log; the part began anew.",
    ),
    Family("dwcp_migrate_duration_seconds", "histogram", ROLE, "How long migrations took."),
    Family("dwcp_migrate_downtime_seconds", "histogram", ROLE, "Downtime of migrations, as libvirt measured it."),
    Family(
        "dwcp_migrate_predictions_total",
        "counter",
        ("interval",),
        "Completed migrations that were predicted: their time lay inside or outside of the predicted interval.",
    ),
    Family("dwcp_migrate_prediction_error_ratio", "histogram", (), "Relative error of predicted times, unsigned."),
    Family(
        "dwcp_migrate_link_forecast_bytes_per_second",
        "gauge",
        ("peer", "statistic"),
        "What the link to a peer will carry over the next minute: p10, p50 and p90.",
    ),
    Family("dwcp_migrate_in_progress", "gauge", ("role", "state"), "Migrations under way."),
    Family("dwcp_migrate_migration_raw_bytes", "gauge", MIGRATION, "Bytes taken from or written into QEMU so far."),
    Family("dwcp_migrate_migration_wire_bytes", "gauge", MIGRATION, "Bytes on the channels so far."),
    Family("dwcp_migrate_migration_memory_bytes", "gauge", MIGRATION, "Guest memory."),
    Family("dwcp_migrate_migration_remaining_bytes", "gauge", MIGRATION, "Still to be sent, by libvirt's measure."),
    Family(
        "dwcp_migrate_host_cpu_cores", "gauge", ("statistic",), "Busy cores of the last hour's minutes: p50 and p90."
    ),
    Family("dwcp_migrate_host_memory_bytes", "gauge", ("statistic",), "Memory in use, likewise."),
    Family("dwcp_migrate_host_memory_stalled_ratio", "gauge", ("statistic",), "Time in which memory was waited for."),
    Family("dwcp_migrate_guests_disk_bytes_per_second", "gauge", ("statistic",), "All guests' disks, likewise."),
    Family("dwcp_migrate_guests_network_bytes_per_second", "gauge", ("statistic",), "All guests' networks, likewise."),
    Family("dwcp_migrate_migration_raw_bytes_per_second", "gauge", MIGRATION, "Guest memory sent lately, per second."),
    Family("dwcp_migrate_migration_dirty_bytes_per_second", "gauge", MIGRATION, "What the guest writes, per second."),
    Family("dwcp_migrate_migration_iteration", "gauge", MIGRATION, "Passes over memory so far."),
    Family("dwcp_migrate_migration_channels", "gauge", MIGRATION, "Channels that are up."),
    Family("dwcp_migrate_migration_rtt_seconds", "gauge", MIGRATION, "Smallest round trip of the link lately."),
    Family("dwcp_migrate_migration_in_flight_bytes", "gauge", MIGRATION, "Raw bytes taken, not yet acknowledged."),
    Family("dwcp_migrate_migration_start_time_seconds", "gauge", MIGRATION, "When it began, since the epoch."),
    Family("dwcp_migrate_migration_eta_seconds", "gauge", MIGRATION, "Estimated time to its end."),
    Family("dwcp_migrate_migration_eta_low_seconds", "gauge", MIGRATION, "It ends sooner in one case of ten."),
    Family("dwcp_migrate_migration_eta_high_seconds", "gauge", MIGRATION, "It ends later in one case of ten."),
    Family(
        "dwcp_migrate_migration_granted_bytes_per_second",
        "gauge",
        MIGRATION,
        "What it was granted of its link, where it shares one.",
    ),
)

TABLE: Final = {family.name: family for family in _FAMILIES}
"""All metrics by name, in the order of `/metrics`."""


def as_markdown() -> str:
    """Write the table as it stands in docs/operations.md."""
    rows = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    rows += [
        f"| `{family.name}` | {family.kind} | {', '.join(family.labels) or '-'} | {family.help} |"
        for family in _FAMILIES
    ]
    return "\n".join(rows) + "\n"
