"""What a move costs by the local agent's word, and when that is not asked for."""

from typing import Any

from dwcp_migrate.api import schema
from dwcp_migrate.errors import AgentUnreachableError, DwcpError, NotFoundError
from dwcp_migrate.orchestration.move_cost import ASKING_S_MAX, AgentCost, Questions
from dwcp_migrate.placement.cost import default_cost
from dwcp_migrate.placement.explain import explain_plan
from dwcp_migrate.placement.model import build_problem
from dwcp_migrate.placement.planner import plan_drain
from tests.cli.conftest import make_predicted
from tests.placement.fleets import domain, fleet, host

RATE = 125e6
WEB = domain("web1", "hv1")


class Agent:
    """Predicts what it is told to, or fails; `clock` goes on by a second a question."""

    def __init__(self, error: DwcpError | None = None, **changes: Any) -> None:
        self.error = error
        self.predicted = make_predicted(**changes)
        self.measured = schema.Measured()
        self.asked: list[tuple[str, str]] = []

    def ask(self, name: str, peer: str) -> schema.Predicted:
        self.asked.append((name, peer))
        if self.error is not None:
            raise self.error
        return self.predicted

    def tell(self) -> schema.Measured:
        if self.error is not None:
            raise self.error
        return self.measured

    def clock(self) -> float:
        return float(len(self.asked))

    def cost(self, *peers: str) -> AgentCost:
        return AgentCost(Questions(self.ask, self.tell), "hv1", peers, self.clock)


def test_the_agent_is_asked_once_for_its_own_domains() -> None:
    agent = Agent()
    cost = agent.cost("hv2", "hv3")
    for _ in range(2):
        found = cost(WEB, RATE, "hv1", "hv2")
        assert (found.seconds, found.downtime_s, found.wire_bytes, found.by) == (42.0, 0.12, float(1 << 30), "agent")
    assert agent.asked == [("web1", "hv2")]
    assert cost(WEB, RATE, "hv2", "hv3") == default_cost(WEB, RATE)
    assert cost(WEB, RATE, "hv1", "ghost") == default_cost(WEB, RATE)
    assert cost(WEB, RATE, "hv1") == default_cost(WEB, RATE)  # two peers: the destination is not known
    assert agent.asked == [("web1", "hv2")]


def test_one_peer_is_the_destination() -> None:
    assert Agent().cost("hv2")(WEB, RATE, "hv1").by == "agent"


def test_a_silent_agent_is_asked_no_more() -> None:
    agent = Agent(AgentUnreachableError("gone"))
    cost = agent.cost("hv2")
    for name in ("web1", "web2"):
        assert cost(domain(name, "hv1"), RATE, "hv1", "hv2").by == "model"
    assert len(agent.asked) == 1


def test_a_domain_that_it_does_not_know_leaves_the_others() -> None:
    agent = Agent(NotFoundError("no such domain"))
    cost = agent.cost("hv2")
    assert cost(WEB, RATE, "hv1", "hv2").by == "model"
    agent.error = None
    assert cost(domain("web2", "hv1"), RATE, "hv1", "hv2").by == "agent"


def test_a_link_that_was_never_measured_is_the_operators_to_say() -> None:
    assert Agent(link_known=False).cost("hv2")(WEB, RATE, "hv1", "hv2") == default_cost(WEB, RATE)


def test_while_the_destination_is_open_measured_rates_count() -> None:
    agent = Agent()
    links = [schema.LinkForecast(peer=f"hv{n}", next_minute=(0.0, n * 1e6, 9e9)) for n in (2, 3, 4)]
    agent.measured = schema.Measured(guests=[schema.GuestRate(domain="web1", dirty_bytes_per_s=2e6)], links=links)
    cost = agent.cost("hv2", "hv3", "hv4")
    dirty = domain("web1", "hv1", dirty_bytes_per_s=2e6)
    found = cost(WEB, RATE, "hv1")
    assert (found.seconds, found.by) == (default_cost(dirty, 3e6).seconds, "rates")
    assert cost(domain("db", "hv1"), RATE, "hv1").seconds == default_cost(domain("db", "hv1"), 3e6).seconds
    assert agent.asked == []
    assert cost(WEB, RATE, "hv2") == default_cost(WEB, RATE)  # hv2 knows its own guests


def test_what_the_time_does_not_reach_is_forecast_from_rates() -> None:
    agent = Agent(link_known=False)
    agent.measured = schema.Measured(guests=[schema.GuestRate(domain="web1", dirty_bytes_per_s=2e6)])
    found = agent.cost("hv2")(WEB, RATE, "hv1", "hv2")
    assert found.by == "rates"
    assert found.seconds == default_cost(domain("web1", "hv1", dirty_bytes_per_s=2e6), RATE).seconds


def test_the_questions_of_a_command_are_bounded_in_time() -> None:
    agent = Agent()
    cost = agent.cost("hv2")
    made = [cost(domain(f"vm{number}", "hv1"), RATE, "hv1", "hv2").by for number in range(int(ASKING_S_MAX) + 5)]
    assert made == ["agent"] * int(ASKING_S_MAX) + ["model"] * 5


def test_plan_and_explanation_say_who_forecast() -> None:
    whole = fleet([host("hv1"), host("hv2")], [WEB, domain("db", "hv1")])
    agent = Agent()
    plan = plan_drain(whole, "hv1", cost=agent.cost("hv2"))
    assert [(step.seconds, step.forecast_by) for step in plan.steps] == [(42.0, "agent")] * 2
    lines = explain_plan(build_problem(whole), plan)
    assert "  web1 takes 42 s, downtime 120 ms, 1.0 GiB on the wire, by the agent's prediction" in lines
    plain = explain_plan(build_problem(whole), plan_drain(whole, "hv1"))
    assert sum(line.endswith("by the plain model of precopy") for line in plain) == 2
