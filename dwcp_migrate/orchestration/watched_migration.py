"""One migration on a thread of its own, with a limit on its time.

The rule here: every wait has an end. A migration past its limit is aborted, switched to postcopy, or its guest is
paused, as its options say; a migration that libvirt does not end even then is left to libvirt, and reported. Where the
operator set no limit, the first pass over the guest's memory is never cut short: a large guest needs it, and only the
later passes show whether the migration converges.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from dwcp_migrate.clocks import steady_clock
from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor.inventory.hypervisors import GuestId, Hypervisors, JobFacts
from dwcp_migrate.hypervisor.inventory.migration_options import MigrationOptions
from dwcp_migrate.orchestration.fleet_source import HostAddress
from dwcp_migrate.placement.plan import Step
from dwcp_migrate.units import format_bytes, format_rate

if TYPE_CHECKING:
    from queue import SimpleQueue

POLL_S: Final = 0.5
"""Between two looks at migrations."""

FAREWELL_S: Final = 60.0
"""Time that libvirt gets to end an aborted migration; libvirt itself waits 30 s for a QEMU that hangs."""


@dataclass(slots=True)
class Hosts:
    """Calls to the libvirtds of the hosts.

    Attributes:
        hypervisors: asks libvirtds.
        addresses: of each host.
    """

    hypervisors: Hypervisors
    addresses: Mapping[str, HostAddress]

    def runs(self, step: Step, host: str) -> bool:
        """Whether a step's domain runs on a host and is not about to arrive there.

        Args:
            step: its UUID identifies the domain; its name does where it has none.
            host: name of the host to ask.

        Raises:
            HypervisorError: the host does not answer.
        """
        found = self.hypervisors.domains(self.addresses[host].ours)
        return any(
            (one.uuid == step.uuid if step.uuid else one.name == step.domain) and not one.arriving for one in found
        )

    def migrate(self, step: Step, options: MigrationOptions) -> None:
        """Carry a step out; blocks until libvirt's migration has ended.

        Args:
            step: names domain, source and destination.
            options: of the migration; without an address of QEMU the destination's is filled in.

        Raises:
            HypervisorError: it failed.
        """
        there = self.addresses[step.destination]
        if not options.migrate_uri:
            options = msgspec.structs.replace(options, migrate_uri=there.migrate)
        self.hypervisors.migrate(self.addresses[step.source].ours, guest_of(step), there.theirs, options)

    def job(self, step: Step) -> JobFacts | None:
        """The job of a step's domain on its source.

        Raises:
            HypervisorError: the source does not answer.
        """
        return self.hypervisors.job(self.addresses[step.source].ours, guest_of(step))


def guest_of(step: Step) -> GuestId:
    """Identification of a step's domain for libvirt."""
    return GuestId(step.domain, step.uuid)


class WatchedMigration:
    """See the module.

    Args:
        hosts: calls their libvirtds.
        step: what is migrated.
        options: of it.
        bound_s: time limit where the options set none, in seconds.
        ended: receives this object, once, when libvirt's call ends.
        is_adopted: another process began it, so that its end is waited for and nothing begun.
    """

    def __init__(  # noqa: PLR0913 - each a value of its own
        self,
        hosts: Hosts,
        step: Step,
        options: MigrationOptions,
        bound_s: float,
        ended: "SimpleQueue[WatchedMigration]",
        *,
        is_adopted: bool = False,
        clock: Callable[[], float] = steady_clock,
    ) -> None:
        self.step = step
        self.failure: BaseException | None = None
        self.overdue = ""
        self._hosts, self._options, self._bound_s = hosts, options, bound_s
        self.is_adopted = is_adopted
        self._ended, self._clock = ended, clock
        self._over = threading.Event()
        self._since = clock()
        self._acted_at: float | None = None
        # A daemon: a call that libvirt never answers must not keep the command from ending.
        threading.Thread(target=self._run, name=f"migrate-{step.domain}", daemon=True).start()

    def look(self) -> bool:
        """Act on a migration that takes too long; returns whether to wait no longer for libvirt's answer."""
        now = self._clock()
        if self._acted_at is not None:
            return now >= self._acted_at + FAREWELL_S
        named = self._options.timeout_s
        bound_s = self._bound_s if named is None else named
        if now < self._since + bound_s:
            return False
        try:
            job = self._hosts.job(self.step)
        except HypervisorError:
            job = None
        if named is None and job is not None and job.passes <= 1 and job.bytes_per_s > 0:
            return False
        self._acted_at = now
        self._act(bound_s, job)
        return False

    def _act(self, bound_s: float, job: JobFacts | None) -> None:
        hypervisors, action = self._hosts.hypervisors, self._options.timeout_action
        uri, guest = self._hosts.addresses[self.step.source].ours, guest_of(self.step)
        said = f"it did not end within {bound_s:.0f} s{_standing(job)}"
        try:
            if action == "postcopy":
                hypervisors.start_postcopy(uri, guest)
            elif action == "suspend":
                hypervisors.suspend(uri, guest)
            else:
                self.overdue = f"operation aborted: {said}; it runs on at {self.step.source}"
                hypervisors.abort(uri, guest)
        except HypervisorError as error:
            self.overdue = f"{said}, and libvirt could not end it ({error}); it may still be under way"

    def _run(self) -> None:
        try:
            if self.is_adopted:
                self._wait_for_job()
            else:
                self._hosts.migrate(self.step, self._options)
        except BaseException as error:  # noqa: BLE001 - the reader of `failure` raises it
            self.failure = error
        self._over.set()
        self._ended.put(self)

    def _wait_for_job(self) -> None:
        while self._hosts.job(self.step) is not None and not self._over.wait(POLL_S):
            pass


def _standing(job: JobFacts | None) -> str:
    """Progress of a migration, in words."""
    if job is None:
        return ""
    passes = f"pass {job.passes}, " if job.passes else ""
    return (
        f" ({passes}{format_bytes(job.remaining_bytes)} left; it writes {format_rate(job.dirty_bytes_per_s)}, "
        f"the link takes {format_rate(job.bytes_per_s)})"
    )
