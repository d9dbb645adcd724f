"""The description of the control API against a real agent: what it serves, and what it answers to whatever is asked."""

import json
import os
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from dwcp_migrate.agent.daemon import Agent
from dwcp_migrate.agent.http.routes import ROUTES, ApiRoute, describe_openapi
from dwcp_migrate.agent.http.server import Api
from dwcp_migrate.agent.systemd import Notifier
from dwcp_migrate.config import Config
from dwcp_migrate.hypervisor.base import Interceptor
from tests.agent.hosts import Host

COPY = Path(__file__).parents[3] / "docs" / "schemas" / "openapi.json"

ODD = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "0", "-1", "1", "1e400", "nan", "inf", "9" * 40, "hv2", "../..", "%00", "\N{SNOWMAN}"]),
    st.integers().map(str),
    st.floats().map(str),
)
BODIES = st.one_of(
    st.binary(max_size=64),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ).map(lambda found: json.dumps(found).encode()),
)


def test_the_copy_in_the_documents_is_what_the_code_describes() -> None:
    assert json.loads(COPY.read_text()) == json.loads(json.dumps(describe_openapi())), (
        "dwcp-migrate schema --api > " + str(COPY)
    )


def test_the_description_is_a_valid_schema_and_refers_to_what_is_there() -> None:
    described = describe_openapi()
    for component in described["components"]["schemas"].values():
        Draft202012Validator.check_schema(component)
    text = json.dumps(described)
    referred = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert referred <= described["components"]["schemas"].keys()


def validator(route: ApiRoute, status: int) -> Draft202012Validator | None:
    described = describe_openapi()
    answer = described["paths"][route.path][route.method]["responses"][str(status)]["content"]
    if "application/json" not in answer:
        return None
    return Draft202012Validator({**answer["application/json"]["schema"], "components": described["components"]})


def ask(host: Host, route: ApiRoute, identifier: str, query: dict[str, str], body: bytes) -> None:
    """Ask, and hold the answer against the description."""
    path = route.path.replace("{id}", quote(identifier, safe="") or "%20")
    status, answer = host.get(f"{path}?{urlencode(query)}", route.method.upper(), body or None)
    assert status == 200 or status in route.refusals, (path, query, body, status, answer[:500])
    told = validator(route, status)
    assert told is not None
    told.validate(json.loads(answer))


def test_the_table_is_what_the_agent_serves(pair: tuple[Host, Host]) -> None:
    host = pair[0]
    for route in ROUTES:
        other = "DELETE"
        status, _ = host.get(route.path.replace("{id}", "x"), other)
        assert status == 405, f"{route.path} is not served"


async def test_what_the_agent_serves_is_the_table(tmp_path: Path) -> None:
    config = Config(name="hv1", libvirt_uri="", runtime_directory=tmp_path / "run", state_directory=tmp_path / "state")

    def refuse() -> Interceptor:
        raise AssertionError("only a start opens the redirect")

    notifier = Notifier({}, os.getpid())
    agent = Agent(config, tmp_path / "agent.toml", interceptor=refuse, watcher=None, notifier=notifier)
    try:
        served = {
            (route.method.lower(), resource.canonical)
            for resource in Api(agent).application().router.resources()
            for route in resource
            if route.method != "HEAD"  # aiohttp adds it to each GET
        }
    finally:
        await agent.close()
    assert served == {(route.method, route.path) for route in ROUTES}
    assert len(ROUTES) == len(served), "a route stands in the table twice"


def test_a_drain_says_what_runs_on_and_a_reload_counts_the_peers(pair: tuple[Host, Host]) -> None:
    said = [json.loads(pair[0].get(f"/v1/{action}", "POST")[1])["message"] for action in ("drain", "reload")]
    assert json.loads(pair[0].get("/v1/undrain", "POST")[1])["state"] == "running"
    assert said == ["no migration is under way", "1 peer"]


@pytest.mark.parametrize("since", ["nan", "inf", "-1", "soon"])
def test_a_moment_that_is_none_is_refused(since: str, pair: tuple[Host, Host]) -> None:
    status, body = pair[0].get(f"/v1/recap?since={since}")
    assert (status, json.loads(body)["error"]) == (400, "since must be a number of seconds, from 0")


@pytest.mark.long  # some hundred requests to an agent that runs
@pytest.mark.parametrize("route", [one for one in ROUTES if one.answer is not None], ids=lambda one: one.path)
def test_whatever_is_asked_is_answered_as_described(route: ApiRoute, pair: tuple[Host, Host]) -> None:
    host = pair[0]
    names = [parameter.name for parameter in route.query]

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(
        identifier=ODD,
        query=st.fixed_dictionaries({}, optional=dict.fromkeys([*names, "unknown"], ODD)),
        body=BODIES if route.method == "post" else st.just(b""),
    )
    def fuzz(identifier: str, query: dict[str, str], body: bytes) -> None:
        ask(host, route, identifier, query, body)

    fuzz()
    assert host.status().state in {"running", "draining"}
    assert "Traceback" not in host.log
