"""Three hypervisors, eight guests: a host emptied and filled, one that dies in mid-plan, a plan killed and resumed.

The commands run on hv1 as an operator runs them; agents run on all three and accelerate what libvirt migrates. Every
test takes the guests where the one before left them.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dwcp_migrate.lab.lab import Lab, LabOptions
from dwcp_migrate.orchestration.plan_journal import JOURNAL_NAME, PlanProgress, read
from tests.e2e.plan_lab import COMMAND_S_MAX, WAN, PlanLab, wait_for_begin

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


class Place(PlanLab):
    """The lab, two of whose guests are kept apart."""

    def journal(self) -> PlanProgress:
        found = read(Path(self.lab.agents["hv1"].config).parent / "state" / JOURNAL_NAME)
        assert found is not None
        return found

    def check(self) -> dict[str, list[str]]:
        """See `PlanLab.check`; and the pair is apart."""
        where = super().check()
        for names in where.values():
            assert not {"vm0", "vm1"} <= set(names), where
        return where


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    options = LabOptions(name=f"place-{os.getpid()}", hosts=3, link=WAN, owned=True)
    with Lab.up(options) as lab:
        made = Place(lab)
        assert made.say("rules", "add", "pair", "apart", "vm0", "vm1").returncode == 0
        yield made


def even(where: dict[str, list[str]]) -> bool:
    counts = sorted(len(names) for names in where.values())
    return counts[-1] - counts[0] <= 1


def test_a_host_is_emptied_without_a_rule_broken_and_the_fleet_is_even_again(place: Place) -> None:
    place.check()
    done = place.say("drain", "hv1", "--here")
    assert done.returncode == 0, done.stdout + done.stderr
    where = place.check()
    assert where["hv1"] == []
    assert place.journal().ended == "completed"
    assert json.loads(place.say("rebalance", "--json").stdout)["steps"] == []  # nothing comes to a host in maintenance
    assert place.say("undrain", "hv1").returncode == 0
    assert place.journal().moved_at
    done = place.say("rebalance", "--apply", "--here")
    assert done.returncode == 0, done.stdout + done.stderr
    where = place.check()
    again = json.loads(place.say("rebalance", "--json").stdout)
    assert again["steps"] == []
    assert even(where), where


@pytest.mark.long
def test_a_plan_that_was_killed_goes_on(place: Place) -> None:
    before = place.check()
    source = max(before, key=lambda name: len(before[name]))
    command = subprocess.Popen(place.argv("drain", source, "--here"), stdout=subprocess.PIPE, text=True, bufsize=1)
    assert command.stdout is not None
    wait_for_begin(command.stdout)
    command.send_signal(signal.SIGKILL)
    command.wait()
    command.stdout.close()
    assert place.journal().ended is None
    done = place.say("drain", source, "--here")
    assert done.returncode == 0, done.stdout + done.stderr
    where = place.check()
    assert where[source] == []
    assert place.journal().ended == "completed"
    assert place.say("undrain", source).returncode == 0


@pytest.mark.long
def test_a_host_that_dies_in_mid_plan_is_planned_around(place: Place) -> None:
    before = place.check()
    source = "hv1" if before["hv1"] else "hv2"
    command = subprocess.Popen(place.argv("drain", source, "--here"), stdout=subprocess.PIPE, text=True, bufsize=1)
    assert command.stdout is not None
    wait_for_begin(command.stdout)
    place.lab.wan.cut("hv3")
    said, _ = command.communicate(timeout=COMMAND_S_MAX)
    place.lab.wan.heal("hv3")
    assert place.journal().ended == "completed", said
    where = place.check()
    assert where[source] == [], said
    assert place.say("undrain", source).returncode == 0


@pytest.mark.long
def test_a_plan_goes_on_without_its_terminal_and_after_the_death_of_its_agent(place: Place) -> None:
    before = place.check()
    source = max(before, key=lambda name: len(before[name]))
    command = subprocess.Popen(place.argv("drain", source), stdout=subprocess.PIPE, text=True, bufsize=1)
    assert command.stdout is not None
    wait_for_begin(command.stdout)
    command.send_signal(signal.SIGKILL)
    command.wait()
    command.stdout.close()
    number = json.loads(place.say("plans", "--json").stdout)[-1]["id"]
    place.lab.agents["hv1"].kill()
    place.start_agent(place.lab["hv1"])
    done = place.say("plan", "show", str(number), "--follow")
    assert done.returncode == 0, done.stdout + done.stderr
    assert place.check()[source] == []
    assert place.say("undrain", source).returncode == 0
