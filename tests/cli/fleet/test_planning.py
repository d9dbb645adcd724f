"""Exit codes and last words of plans that were carried out, on hypervisors that are played."""

import threading
from pathlib import Path

import pytest

from dwcp_migrate.cli.fleet.planning import carry_out
from dwcp_migrate.config import Config
from dwcp_migrate.errors import HypervisorError, PlacementError, UnfinishedError
from dwcp_migrate.orchestration.workspace import Workspace
from tests.orchestration.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def workspace(world: World, directory: Path) -> Workspace:
    return Workspace(Config(state_directory=directory), world.source, world.hosts)


def refusing(world: World, *names: str) -> None:
    """Let libvirt say of some domains that they cannot be migrated."""

    def refuse(_uri: str, name: str, _destination: str) -> None:
        if name in names:
            raise HypervisorError("cannot migrate domain: it has a device of the host")

    world.hypervisors.before_migration = refuse


def test_a_plan_that_was_carried_out_exits_with_0_and_said_how_far_it_was(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert carry_out(workspace(world, tmp_path), world.drain("hv1"), as_json=False) == 0
    assert world.names("hv1") == set()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("4 migrations, about ")
    assert said[-1].endswith("; 0 to go")


def test_a_plan_that_leaves_something_exits_with_a_code_of_its_own_and_names_it(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing(world, "vm3")
    assert carry_out(workspace(world, tmp_path), world.drain("hv1"), as_json=False) == UnfinishedError.exit_code
    err = capsys.readouterr().err
    assert "vm3 stays on hv1: its migration failed: cannot migrate domain: it has a device of the host" in err
    assert "3 domains moved, 1 left; mend what is said above, then give the command again" in err


def test_a_plan_of_which_nothing_could_be_done_exits_with_that_of_no_plan(world: World, tmp_path: Path) -> None:
    refusing(world, *world.names("hv1"))
    assert carry_out(workspace(world, tmp_path), world.drain("hv1"), as_json=False) == PlacementError.exit_code
    assert len(world.names("hv1")) == 4


def test_signals_are_put_back_and_work_only_where_they_are_heard(world: World, tmp_path: Path) -> None:
    codes: list[int] = []

    def run() -> None:
        with pytest.raises(ValueError, match="main thread"):
            codes.append(carry_out(workspace(world, tmp_path), world.drain("hv1"), as_json=False))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert codes == []
    assert world.hypervisors.migrations == []
