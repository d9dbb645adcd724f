"""`limit`: what is asked of the agent, and what is said of its answer."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from dwcp_migrate.api.limits import LinkLimit, LinkLimits

Call = Callable[..., tuple[int, str, str]]
LIMITED = LinkLimit(peer="hv2", commanded_bytes_per_s=25e6, bytes_per_s=25e6)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (LIMITED, "hv2: held to 200.0 Mbit/s until `dwcp-migrate limit hv2 off`"),
        (
            LinkLimit(peer="hv2", commanded_bytes_per_s=25e6, configured_bytes_per_s=5e6, bytes_per_s=5e6),
            "hv2: held to 40.0 Mbit/s: the configuration has the lower limit",
        ),
        (LinkLimit(peer="hv2", configured_bytes_per_s=5e6, bytes_per_s=5e6), "hv2: held to 40.0 Mbit/s, as configured"),
        (LinkLimit(peer="hv2"), "hv2: no limit"),
    ],
)
def test_what_holds_is_said(agent: Any, call: Call, answer: LinkLimit, said: str) -> None:
    agent.more["/v1/limit"] = answer
    assert call("limit", "hv2", "200Mbit/s", "--for", "2h")[:2] == (0, f"{said}\n")
    assert agent.posted == [("/v1/limit", {"peer": "hv2", "bytes_per_s": "25000000.0", "for_s": "7200.0"})]


def test_off_takes_the_limit_off(agent: Any, call: Call) -> None:
    agent.more["/v1/limit"] = LinkLimit(peer="hv2")
    assert call("limit", "hv2", "off")[0] == 0
    assert agent.posted[0][1]["bytes_per_s"] == "0.0"


def test_limits_are_listed(agent: Any, call: Call) -> None:
    agent.more["/v1/limits"] = LinkLimits(limits=[LIMITED, LinkLimit(peer="hv3")])
    code, out, _ = call("limit")
    assert code == 0
    assert [line.split() for line in out.splitlines()[2:]] == [
        ["hv2", "200.0", "Mbit/s", "200.0", "Mbit/s", "it", "is", "taken", "off", "-"],
        ["hv3", "-", "-", "-"],
    ]


def test_json_is_a_list_of_limits_whatever_was_asked(agent: Any, call: Call) -> None:
    agent.more["/v1/limits"] = LinkLimits(limits=[LIMITED])
    agent.more["/v1/limit"] = LIMITED
    for arguments in ((), ("hv2", "off")):
        code, out, _ = call("limit", *arguments, "--json")
        assert (code, msgspec.json.decode(out, type=list[LinkLimit])) == (0, [LIMITED])


@pytest.mark.parametrize("rate", ["fast", "200", "0Mbit/s", "-5MB/s"])
def test_a_rate_that_is_none_is_refused_with_an_example(call: Call, rate: str) -> None:
    code, _, err = call("limit", "hv2", "--", rate)
    assert code == 2
    assert "200Mbit/s" in err
