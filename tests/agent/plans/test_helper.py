"""A real agent, its helper process and the control API: a plan handed over, carried out, and said how."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.api.client import ApiClient
from dwcp_migrate.api.plans import PlanRecord, PlanRequest
from dwcp_migrate.errors import StalePlanError
from dwcp_migrate.orchestration.plan_store import AgentPlans
from dwcp_migrate.placement.plan import Goal
from tests.agent.conftest import close_hosts, make_hosts
from tests.agent.hosts import Host


@pytest.fixture
def host(tmp_path: Path, authority: Path) -> Iterator[Host]:
    """One agent with libvirt's test driver, whose only peer does not answer."""
    hosts = make_hosts(tmp_path, authority)
    hosts[0].settings["libvirt_uri"] = "test:///default"
    hosts[0].tables["placement"] = {"uri": "test:///nowhere/{address}"}
    yield hosts[0].start()
    close_hosts(hosts)


def ended(host: Host, store: AgentPlans, number: int) -> PlanRecord:
    """Wait until a plan has ended."""
    found: list[PlanRecord] = []

    def look(_status: object) -> bool:
        found[:] = [one.record for one in store.all() if one.record.id == number and not one.record.is_open]
        return bool(found)

    host.wait(look)
    return found[0]


def test_a_plan_is_carried_out_by_the_agent_s_helper_and_kept_over_its_restart(host: Host) -> None:
    store = AgentPlans(ApiClient(host.directory / "run" / "api.sock"))
    request = PlanRequest(goal=Goal(purpose="drain", host=host.name), reached=[host.name])
    made = store.put(PlanRecord(request=request), 0)
    record = ended(host, store, made.record.id)
    assert (record.state, record.carrier, record.exit_code) == ("partly", host.name, 13)
    assert [one.domain for one in record.left] == ["test"]
    assert "is on source.lab alone as far as libvirt shows" in record.left[0].why
    with pytest.raises(StalePlanError):
        store.put(msgspec.structs.replace(made.record, wish="abort"), made.revision)
    host.stop()
    host.start()
    assert [one.record for one in store.all()] == [record]
