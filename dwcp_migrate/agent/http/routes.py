"""The control API's routes in one table, and its OpenAPI description made from it.

The rule: the table is compared with what the agent serves, and docs/schemas/openapi.json, a copy, with the table.
It is HTTP/1.1 over the unix socket `control_socket`; there is no TCP port of it.
"""

from typing import Any, Final, Literal, NamedTuple

import msgspec

from dwcp_migrate import __version__
from dwcp_migrate.agent.http.handlers.placement import LEASE_S_MAX, RATE_MAX
from dwcp_migrate.agent.http.handlers.plan import NUMBER_MAX
from dwcp_migrate.agent.pbft.membership_change import Change
from dwcp_migrate.agent.peers.throughput import BYTES_MAX, CHANNELS_MAX, SECONDS_MAX
from dwcp_migrate.api import cluster, plans, schema, watch
from dwcp_migrate.api.limits import LinkLimit, LinkLimits
from dwcp_migrate.api.peer_check import PeerCheck
from dwcp_migrate.api.recap import FleetRecap
from dwcp_migrate.api.warm import WARM_S_MAX, WarmUp, WarmUpList
from dwcp_migrate.protocol.load import FleetLoad
from dwcp_migrate.state.fleet.backup import FleetBackup
from dwcp_migrate.state.fleet.model import LIFETIME_S_MAX, Limits, RuleRecord

EXCLUSIVE: Final = "exclusiveMinimum"


class QueryParameter(NamedTuple):
    """One parameter of a query: its name, its JSON Schema, whether it must be there."""

    name: str
    schema: dict[str, Any]
    required: bool = False


class ApiRoute(NamedTuple):
    """One request.

    Attributes:
        answer: None is a stream of server-sent events, each an `Update`.
        refusals: statuses beside 200 that it is answered with, each with a `Failure`.
        body: type of the request's body, where it has one.
    """

    method: Literal["get", "post"]
    path: str
    answer: type | None
    summary: str
    query: tuple[QueryParameter, ...] = ()
    refusals: tuple[int, ...] = ()
    body: type | None = None


_TEXT: Final = {"type": "string"}
_NAME: Final = QueryParameter("name", _TEXT)
_FROM_ZERO: Final = {"type": "number", "minimum": 0}
_DEADLINE: Final = QueryParameter("deadline_s", _FROM_ZERO)
_TOKEN: Final = QueryParameter("token", {"type": "integer", "minimum": 1, "maximum": 2**53}, required=True)
_COUNT: Final = {"type": "integer", "minimum": 0, "maximum": NUMBER_MAX}
_FLEET: Final = (400, 503)
"""Statuses of what the fleet's state must answer or agree to."""

_LIMIT: Final = {"type": "integer", "minimum": 1, "maximum": schema.HISTORY_LIMIT_MAX}
_WEIGHT: Final = {"type": "number", EXCLUSIVE: 0, "maximum": schema.WEIGHT_MAX}
_LEASE: Final = {"type": "number", EXCLUSIVE: 0, "maximum": LEASE_S_MAX}
_RESERVED: Final = {"type": "number", EXCLUSIVE: 0, "maximum": LIFETIME_S_MAX}
_RATE: Final = {"type": "number", EXCLUSIVE: 0, "maximum": RATE_MAX}

_AGENT: Final = (
    ApiRoute("get", "/v1/status", schema.AgentStatus, "The agent at a glance."),
    ApiRoute("get", "/v1/migrations", schema.Migrations, "Migrations that run now, oldest first."),
    ApiRoute("get", "/v1/migrations/{id}", schema.Migration, "One, by a unique start of its id.", refusals=(404, 409)),
    ApiRoute(
        "get",
        "/v1/history",
        schema.Migrations,
        "Migrations that ended, newest first.",
        (QueryParameter("limit", _LIMIT),),
        (400,),
    ),
    ApiRoute("get", "/v1/peers", schema.Peers, "All peers, asked now."),
    ApiRoute("get", "/v1/config", schema.RunningConfig, "The configuration in force."),
    ApiRoute("get", "/v1/doctor", schema.Facts, "Facts that `doctor` judges."),
    ApiRoute("get", "/v1/events", None, "Migrations as they begin, change and end.", refusals=(503,)),
    ApiRoute(
        "get",
        "/v1/predict",
        schema.Predicted,
        "Time, downtime and bytes of a migration that has not begun.",
        (QueryParameter("domain", _TEXT, required=True), QueryParameter("peer", _TEXT, required=True), _DEADLINE),
        (400, 404, 500),
    ),
    ApiRoute("get", "/v1/measured", schema.Measured, "Dirty rates and links as they were measured last."),
    ApiRoute("get", "/v1/load", FleetLoad, "What hosts and guests use, over the last hour."),
    ApiRoute(
        "post",
        "/v1/share",
        schema.Done,
        "How a domain's next or running migration shares its link.",
        (QueryParameter("domain", _TEXT, required=True), QueryParameter("weight", _WEIGHT), _DEADLINE),
        (400,),
    ),
    ApiRoute("post", "/v1/drain", schema.Done, "No new migrations."),
    ApiRoute("post", "/v1/undrain", schema.Done, "New migrations again."),
    ApiRoute(
        "post",
        "/v1/disable",
        schema.Done,
        "Take part in nothing, over restarts too.",
        (QueryParameter("reason", _TEXT),),
        (422, 500),
    ),
    ApiRoute("post", "/v1/enable", schema.Done, "Take part again.", refusals=(422, 500)),
    ApiRoute("post", "/v1/reload", schema.Done, "Read the configuration again.", refusals=(422,)),
    ApiRoute(
        "post",
        "/v1/record",
        schema.Done,
        "Record the next migration into a directory; without one: do not.",
        (QueryParameter("directory", _TEXT), QueryParameter("domain", _TEXT)),
        (422,),
    ),
)


def _changed(path: str, summary: str, *query: QueryParameter, body: type | None = None) -> ApiRoute:
    return ApiRoute("post", path, cluster.Changed, summary, query, _FLEET, body)


_CLUSTER: Final = (
    ApiRoute("get", "/v1/cluster", cluster.Cluster, "The cluster state.", refusals=_FLEET),
    ApiRoute("get", "/v1/pbft", cluster.PbftView, "The PBFT group.", refusals=_FLEET),
    ApiRoute("get", "/v1/tickets", cluster.TicketList, "Migrations that the fleet agreed to.", refusals=_FLEET),
    ApiRoute("get", "/v1/locks", cluster.Locks, "Leases and shares of links.", refusals=_FLEET),
    ApiRoute("get", "/v1/export", FleetBackup, "The fleet's record.", refusals=_FLEET),
    ApiRoute("get", "/v1/standing", cluster.PlacementConstraints, "What placement must respect.", refusals=_FLEET),
    *(
        _changed(f"/v1/cluster/{verb}", words, _NAME)
        for verb, words in (
            ("add", "A host gets a vote."),
            ("remove", "A host loses its vote."),
            ("transfer-leader", "A host leads; whoever is furthest if none is named."),
            ("drain", "A host takes no domains."),
            ("undrain", "A host takes domains again."),
            ("forget-host", "A host without a vote, and what is its own, are forgotten."),
        )
    ),
    _changed("/v1/cluster/forget-domain", "A domain is forgotten.", QueryParameter("uuid", _TEXT)),
    _changed(
        "/v1/cluster/assign", "A host owns a domain.", QueryParameter("uuid", _TEXT), QueryParameter("owner", _TEXT)
    ),
    _changed("/v1/cluster/set-time", "The fleet's time goes back to this host's clock."),
    _changed("/v1/cluster/raise-version", "The fleet uses what only this release reads."),
    _changed("/v1/cluster/limits", "Limits of the fleet.", body=Limits),
    _changed("/v1/tickets/fail", "A ticket has failed.", _TOKEN),
    _changed("/v1/rules/put", "A rule, new or in another's place.", body=RuleRecord),
    _changed("/v1/rules/remove", "A rule is removed.", _NAME),
    ApiRoute(
        "post",
        "/v1/locks/acquire",
        cluster.HeldLease,
        "This host takes a lease, or prolongs it.",
        (_NAME, QueryParameter("lifetime_s", _LEASE, required=True)),
        _FLEET,
    ),
    _changed("/v1/locks/release", "A lease is given back.", _NAME, _TOKEN),
    ApiRoute(
        "post",
        "/v1/locks/reserve",
        cluster.HeldLease,
        "This host takes a share of a link, or changes it.",
        (
            _NAME,
            QueryParameter("source", _TEXT),
            QueryParameter("destination", _TEXT),
            QueryParameter("bytes_per_s", _RATE, required=True),
            QueryParameter("lifetime_s", _RESERVED, required=True),
        ),
        _FLEET,
    ),
    _changed("/v1/locks/unreserve", "A share of a link is given back.", _NAME, _TOKEN),
    _changed("/v1/pbft/propose", "Other members of the PBFT group.", body=Change),
    _changed(
        "/v1/pbft/assign",
        "A domain's owner, for the group.",
        QueryParameter("uuid", _TEXT),
        QueryParameter("owner", _TEXT),
    ),
)

_PLANS: Final = (
    ApiRoute(
        "get", "/v1/plans", plans.PlanList, "Plans that agents carry out, and the last that ended.", refusals=_FLEET
    ),
    ApiRoute(
        "post",
        "/v1/plans/put",
        plans.StoredPlan,
        "A plan, new (`id` and `revision` 0) or changed.",
        (QueryParameter("id", _COUNT, required=True), QueryParameter("revision", _COUNT, required=True)),
        (400, 412, 503),
        plans.PlanRecord,
    ),
    ApiRoute("get", "/v1/watch", watch.StoredWatch, "The service that relieves the fleet.", refusals=_FLEET),
    ApiRoute(
        "post",
        "/v1/watch/put",
        watch.StoredWatch,
        "Its record, changed.",
        (QueryParameter("revision", _COUNT, required=True),),
        (400, 412, 503),
        watch.WatchRecord,
    ),
)

_LINKS: Final = (
    ApiRoute(
        "get",
        "/v1/check",
        PeerCheck,
        "What a migration to a peer would get; sends some megabytes.",
        (
            QueryParameter("peer", _TEXT, required=True),
            QueryParameter("channels", {**_FROM_ZERO, "maximum": CHANNELS_MAX}),
            QueryParameter("bytes", {**_FROM_ZERO, "maximum": BYTES_MAX}),
            QueryParameter("seconds", {**_FROM_ZERO, "maximum": SECONDS_MAX}),
        ),
        (400, 404),
    ),
    ApiRoute(
        "get",
        "/v1/recap",
        FleetRecap,
        "Migrations of all hosts, summed.",
        (QueryParameter("since", _FROM_ZERO),),
        (400,),
    ),
    ApiRoute("get", "/v1/limits", LinkLimits, "The rate that migrations to each peer are held to."),
    ApiRoute(
        "post",
        "/v1/limit",
        LinkLimit,
        "Hold the migrations to a peer to a rate; 0 takes it off.",
        (
            QueryParameter("peer", _TEXT, required=True),
            QueryParameter("bytes_per_s", _FROM_ZERO),
            QueryParameter("for_s", _FROM_ZERO),
        ),
        (400, 404),
    ),
)

_WARM: Final = (
    ApiRoute("get", "/v1/warm", WarmUpList, "Warm-ups of peers' page stores from this host."),
    ApiRoute(
        "post",
        "/v1/warm",
        WarmUp,
        "Bring a guest's pages to a peer's page store while it runs.",
        (
            QueryParameter("domain", _TEXT, required=True),
            QueryParameter("peer", _TEXT, required=True),
            QueryParameter("bytes_per_s", _FROM_ZERO),
            QueryParameter("for_s", {**_FROM_ZERO, "maximum": WARM_S_MAX}),
        ),
        (400, 404, 500),
    ),
    ApiRoute("post", "/v1/warm/end", WarmUp, "End a warm-up.", (QueryParameter("id", _TEXT, required=True),), (404,)),
)

ROUTES: Final = (*_AGENT, *_CLUSTER, *_PLANS, *_LINKS, *_WARM)
"""All requests of the control API."""

WORDS: Final = {
    400: "A request that cannot be read.",
    404: "There is none.",
    409: "More than one fits.",
    412: "Somebody else changed it meanwhile.",
    422: "What it leads to is wrong.",
    500: "It could not be done.",
    503: "The fleet cannot be asked, or says no.",
}


def describe_openapi() -> dict[str, Any]:
    """Describe the control API as OpenAPI 3.1."""
    kinds = [kind for route in ROUTES for kind in (route.answer, route.body) if kind is not None]
    types = list(dict.fromkeys([*kinds, schema.Update, schema.Failure]))
    _, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dwcp-migrate: control API of the agent",
            "version": __version__,
            "description": (
                "HTTP/1.1 over a unix socket, /run/dwcp-migrate/api.sock unless `control_socket` says otherwise; "
                "there is no TCP port. Who may open the socket may ask all of it. "
                "Fields are added within /v1, never renamed, removed or given another meaning."
            ),
        },
        "servers": [{"url": "http://localhost", "description": "behind the unix socket; the name is of no account"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(route: ApiRoute) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": one.name, "in": "query", "required": one.required, "schema": one.schema} for one in route.query
    ]
    if "{id}" in route.path:
        parameters.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}})
    content = {"application/json": {"schema": _reference(route.answer)}}
    if route.answer is None:
        content = {"text/event-stream": {"schema": _TEXT}}
    answers: dict[str, Any] = {"200": {"description": route.summary, "content": content}}
    failure = {"application/json": {"schema": _reference(schema.Failure)}}
    answers |= {str(status): {"description": WORDS[status], "content": failure} for status in route.refusals}
    found: dict[str, Any] = {"summary": route.summary, "parameters": parameters, "responses": answers}
    if route.body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": _reference(route.body)}}}
    return found


def _reference(kind: type | None) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"} if kind is not None else {}
