"""Answers of commands that put answers of the control API together, as `--json` prints them; see `answers`."""

import msgspec

from dwcp_migrate.api.peer_check import PeerCheck
from dwcp_migrate.api.recap import FleetRecap
from dwcp_migrate.cli.host.check import Check
from dwcp_migrate.cli.migrations.peer_judgement import PeerVerdict
from dwcp_migrate.protocol.recap import MigrationRecap
from dwcp_migrate.state.engine_status import EngineMember
from dwcp_migrate.state.fleet.model import HostRecord


class MembersListed(msgspec.Struct, frozen=True, kw_only=True):
    """Voters of the cluster state, and all hosts that it knows."""

    members: list[EngineMember]
    hosts: list[HostRecord]


class PeerDiagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Findings of `check` about a peer: the verdict, the checks that led to it, and the facts behind them."""

    verdict: PeerVerdict
    checks: list[Check]
    facts: PeerCheck


class FleetReport(FleetRecap, frozen=True, kw_only=True):
    """Migrations of a fleet in a period; `total` is the sum of its hosts."""

    total: MigrationRecap
