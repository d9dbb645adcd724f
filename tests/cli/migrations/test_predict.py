from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from dwcp_migrate.api import schema

Call = Callable[..., tuple[int, str, str]]
Make = Callable[..., Any]


def test_predict_says_time_downtime_bytes_and_what_to_do(call: Call, agent: Any) -> None:
    code, out, _ = call("predict", "web1", "--to", "hv2", "--deadline", "60")
    assert code == 0
    lines = dict(line.split(":", 1) for line in out.splitlines())
    assert lines["Time"].strip() == "42 s (38 s to 51 s)"
    assert lines["Downtime"].strip() == "120 ms (100 ms to 300 ms)"
    assert lines["On the wire"].strip() == "1.0 GiB (512.0 MiB to 2.0 GiB)"
    assert lines["Dirty rate"].strip() == "40.0 Mbit/s"
    assert lines["Link"].strip() == "200.0 Mbit/s (160.0 Mbit/s to 208.0 Mbit/s)"
    assert lines["Advice"].strip() == "precopy: virsh migrate --live"
    assert agent.asked == {"domain": "web1", "peer": "hv2", "deadline_s": "60.0"}


def test_predict_says_that_a_link_was_never_measured_and_that_a_peer_is_silent(call: Call, agent: Any) -> None:
    agent.predicted = replace(agent.predicted, link_known=False, rtt_s=0.0)
    _, out, _ = call("predict", "web1", "--to", "hv2")
    assert "not measured yet" in out
    assert "no answer" in out


def test_predict_as_json_is_the_agents_answer(call: Call, agent: Any) -> None:
    _, out, _ = call("predict", "web1", "--to", "hv2", "--json")
    assert msgspec.json.decode(out, type=schema.Predicted) == agent.predicted


def test_predict_of_an_unknown_domain_exits_3(call: Call, agent: Any) -> None:
    agent.failure = (404, schema.Failure(error="no domain 'web9' runs here", hint="`virsh list` lists those that do"))
    code, _, err = call("predict", "web9", "--to", "hv2")
    assert code == 3
    assert "virsh list" in err


def test_share_hands_weight_and_deadline_to_the_agent(call: Call, agent: Any) -> None:
    code, out, _ = call("share", "web1", "--weight", "3", "--deadline", "90")
    assert code == 0
    assert "done" in out
    assert agent.posted == [("/v1/share", {"domain": "web1", "weight": "3.0", "deadline_s": "90.0"})]


@pytest.mark.parametrize("arguments", [["--weight", "0"], ["--weight", "1001"], ["--deadline", "-1"]])
def test_share_refuses_what_the_agent_would(call: Call, arguments: list[str]) -> None:
    assert call("share", "web1", *arguments)[0] == 2


def test_the_estimate_of_a_running_migration_has_its_range(
    call: Call, agent: Any, status: Make, migration: Make
) -> None:
    agent.status = status(migrations=[migration(eta_s=42.0, eta_range_s=(38.0, 51.0))])
    assert "42 s (38 s to 51 s)" in call("status")[1]
    assert "42 s (38 s to 51 s)" in call("show", "web1")[1]


def test_show_says_how_far_off_the_prediction_was(call: Call, agent: Any, ended: Make) -> None:
    agent.status = replace(agent.status, migrations=[])
    agent.ended = [ended(expected=agent.predicted.expected)]  # it took 50 s
    assert "42 s (38 s to 51 s), 16 % less than it took" in call("show", "web1")[1]
