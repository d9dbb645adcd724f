"""The contract of `--json`: form and types of each command's output, and a JSON Schema of all of it made from them.

The rule: the types are the contract, the schema is written from them; docs/schemas/commands.json is a copy that a test
compares.
"""

from typing import Any, Final, Literal, NamedTuple

import msgspec

from dwcp_migrate.api import cluster, plans, schema, watch
from dwcp_migrate.api.limits import LinkLimit
from dwcp_migrate.api.warm import WarmUp
from dwcp_migrate.cli.fleet.backup import Exported, Imported
from dwcp_migrate.cli.fleet.hosts import HostRow
from dwcp_migrate.cli.fleet.place import Placed
from dwcp_migrate.cli.host.status import StatusReport
from dwcp_migrate.cli.support import answers, composed
from dwcp_migrate.cli.support.failure import CommandFailure
from dwcp_migrate.cli.support.output import FORMAT_VERSION
from dwcp_migrate.pki import CertificateFacts
from dwcp_migrate.placement.fleet import Rule
from dwcp_migrate.placement.plan import Plan
from dwcp_migrate.state.fleet.model import Limits

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

Form = Literal["object", "list", "lines", "either"]


class Printed(NamedTuple):
    """Output of a command: an object, a list of them, one a line, or either of the first two; each of these types."""

    form: Form
    types: tuple[type, ...]


def _object(*types: type) -> Printed:
    return Printed("object", types)


def _list(kind: type) -> Printed:
    return Printed("list", (kind,))


def _lines(*types: type) -> Printed:
    return Printed("lines", types)


_CHANGED: Final = _object(cluster.Changed)
_DONE: Final = _object(schema.Done)
_MOVES: Final = _lines(Plan, answers.MoveEvent, plans.PlanEvent)
"""A plan alone, on several lines, where it is only shown; else an event a line while it is carried out."""

PRINTED: Final[dict[str, Printed]] = {
    "status": _object(StatusReport),
    "doctor": _object(answers.Diagnosis),
    "config check": _lines(answers.FileChecked),
    "config diff": _object(answers.FileDifferences),
    "config show": _object(dict),
    "cordon": _DONE,
    "uncordon": _DONE,
    "reload": _DONE,
    "cert csr": _object(answers.SigningRequest),
    "cert init": _object(answers.CertificateFiles),
    "cert issue": _object(answers.CertificateFiles),
    "cert renew": _object(answers.CertificateFiles),
    "cert show": _object(CertificateFacts),
    "cert sign": _object(answers.CertificateFiles),
    "record": _DONE,
    "store add": _object(answers.StoredImage),
    "store remove": _object(answers.VolumesRemoved),
    "store status": _object(answers.StoreContents),
    "store verify": _object(answers.StoreVerified),
    "store wipe": _object(answers.VolumesRemoved),
    "sysdump": _object(answers.Archived),
    "migrate": _MOVES,
    "top": _lines(schema.AgentStatus),
    "predict": _object(schema.Predicted),
    "share": _DONE,
    "warm": _object(WarmUp),
    "history": _list(schema.Migration),
    "show": _object(schema.Migration),
    "events": _lines(schema.Update),
    "abort": _object(answers.CommandDone),
    "hosts": _list(HostRow),
    "place": _list(Placed),
    "rebalance": _lines(Plan, answers.MoveEvent, plans.PlanEvent, watch.WatchRecord),
    "drain": _lines(Plan, answers.MoveEvent, plans.PlanEvent, schema.Done),
    "undrain": _object(answers.CommandDone),
    "plans": _list(plans.PlanRecord),
    "plan show": _lines(plans.PlanRecord, plans.PlanEvent),
    "plan pause": _object(plans.PlanRecord),
    "plan resume": _object(plans.PlanRecord),
    "plan abort": _object(plans.PlanRecord),
    "explain": _object(answers.Explained),
    "rules list": _list(Rule),
    "rules add": _object(answers.CommandDone),
    "rules remove": _object(answers.CommandDone),
    "cluster status": _object(cluster.Cluster),
    "cluster members": _object(composed.MembersListed),
    "cluster limits": _object(Limits),
    "cluster key": _object(answers.IdentityFile),
    "cluster export": _object(Exported),
    "cluster import": _object(Imported),
    "cluster pbft": _object(cluster.PbftView),
    "tickets": _object(cluster.TicketList),
    "locks": _object(cluster.Locks),
    "locks acquire": _object(cluster.HeldLease),
    "locks reserve": _object(cluster.HeldLease),
    "check": _object(composed.PeerDiagnosis),
    "disable": _DONE,
    "enable": _DONE,
    "limit": Printed("either", (LinkLimit,)),
    "report": _object(schema.Migration, composed.FleetReport),
    "locks release": _CHANGED,
    "locks unreserve": _CHANGED,
    "cluster add": _CHANGED,
    "cluster remove": _CHANGED,
    "cluster transfer-leader": _CHANGED,
    "cluster assign": _CHANGED,
    "cluster forget-domain": _CHANGED,
    "cluster forget-host": _CHANGED,
    "cluster raise-version": _CHANGED,
    "cluster set-time": _CHANGED,
    "cluster pbft assign": _CHANGED,
    "cluster pbft propose": _CHANGED,
    "tickets fail": _CHANGED,
}
"""Of each command that is there on every host, by its words."""


def commands_schema(commands: list[str]) -> dict[str, Any]:
    """Write the JSON Schema of what commands print.

    Args:
        commands: by their words, as `locks acquire`.
    """
    shown = {command: PRINTED[command] for command in commands if command in PRINTED}
    types = [kind for printed in shown.values() for kind in printed.types if kind is not dict]
    types = list(dict.fromkeys([*types, CommandFailure]))
    _, components = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    version = {"properties": {"format_version": {"const": FORMAT_VERSION}}, "required": ["format_version"]}
    return {
        "$schema": DIALECT,
        "title": "What dwcp-migrate's commands print under --json",
        "format_version": FORMAT_VERSION,
        "failure": {"allOf": [{"$ref": "#/$defs/CommandFailure"}, {"$ref": "#/$defs/FormatVersion"}]},
        "commands": {command: _described(printed) for command, printed in shown.items()},
        "$defs": {**components, "FormatVersion": version},
    }


def _described(printed: Printed) -> dict[str, Any]:
    kinds = [{"$ref": f"#/$defs/{kind.__name__}"} if kind is not dict else {"type": "object"} for kind in printed.types]
    either = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    each = {"allOf": [either, {"$ref": "#/$defs/FormatVersion"}]}
    listed = {"type": "array", "items": each}
    shapes = {"list": listed, "either": {"anyOf": [each, listed]}}
    return {"form": printed.form, "schema": shapes.get(printed.form, each)}
