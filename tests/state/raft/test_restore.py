"""A new cluster out of a backup: on disks in memory with the real replicas, and in directories."""

from pathlib import Path

import pytest

from dwcp_migrate.errors import JournalError
from dwcp_migrate.state.fleet import commands, model
from dwcp_migrate.state.fleet.backup import LEAP, FleetBackup, carry_on, decode_backup, encode_backup
from dwcp_migrate.state.fleet.commands import Acquire, Command, PutHost
from dwcp_migrate.state.fleet.replicated import FleetMachine
from dwcp_migrate.state.raft import snapshots
from dwcp_migrate.state.raft.restore import image_of, restore_replica
from tests.state.raft.simulation.world import DIRECTORY, Node, Promises, World, virtual_time

VOTERS = ("h0", "h1", "h2")


def taken(machine: FleetMachine, *, entry: int = 5, term: int = 3) -> FleetBackup:
    return FleetBackup(host="h0", at=1e9, entry=entry, term=term, is_confirmed=True, state=machine.save())


def machine_with_a_lease() -> FleetMachine:
    machine = FleetMachine()
    bodies: tuple[commands.Body, ...] = (PutHost(name="h0"), Acquire(name="plan", lifetime_s=3600))
    for number, body in enumerate(bodies):
        machine.apply([commands.encode(Command(request=f"r{number}", by="h0", at=1e9, body=body))])
    return machine


def lease(node: Node, name: str) -> None:
    """Have a host take a lease."""
    assert node.replica is not None
    command = Command(request=f"q{name}", by=node.name, at=1e9 + 1, body=Acquire(name=name, lifetime_s=3600))
    node.replica.submit(commands.encode_batch([commands.encode(command)]), lambda *_: None)


def test_a_backup_reads_as_it_was_written_and_any_other_bytes_do_not() -> None:
    backup = taken(machine_with_a_lease())
    data = encode_backup(backup)
    assert decode_backup(data) == backup
    for place in range(0, len(data), 7):
        with pytest.raises(JournalError):
            decode_backup(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(JournalError, match="no backup"):
        decode_backup(data[:10])
    with pytest.raises(JournalError, match="cannot be read"):
        carry_on(FleetBackup(host="h0", at=0, entry=1, term=1, is_confirmed=True, state=b"\xc1"))


def test_what_was_there_is_kept_and_the_new_directory_belongs_to_whom_the_old_did(tmp_path: Path) -> None:
    directory = tmp_path / "fleet"
    assert restore_replica(directory, taken(machine_with_a_lease()), VOTERS) is None
    old = restore_replica(directory, taken(machine_with_a_lease()), VOTERS)
    assert old == tmp_path / "fleet.before-import-1"
    assert restore_replica(directory, taken(machine_with_a_lease()), VOTERS) == tmp_path / "fleet.before-import-2"
    image = snapshots.decode((directory / "snapshot").read_bytes())
    assert (image.voters, image.last.index) == (VOTERS, 5 + LEAP)
    assert (directory / "snapshot").stat().st_uid == tmp_path.stat().st_uid


def test_a_host_that_still_has_the_old_log_takes_the_restored_record_over() -> None:
    """h2 was forgotten: its log goes on behind the backup, in its old cluster's terms."""
    world = World(7, VOTERS)
    first, _, forgotten = nodes = list(world.nodes.values())
    with virtual_time(world):
        world.start()
        world.run(2.0)
        leader = world.leader()
        assert leader is not None
        lease(leader, "before")
        world.run(3.0)
        assert first.replica is not None
        backup = taken(first.machine, entry=first.replica.applied_index, term=first.replica.term)
        lease(leader, "after-the-backup")
        world.run(4.0)
        tokens = [held.token for held in first.machine.fleet.leases.values()]
        for node in nodes:
            node.crash(power=False)
        data = snapshots.encode(image_of(backup, VOTERS))
        for node in nodes[:2]:
            for path in [path for path in node.disk._names if path.parent == DIRECTORY / node.name]:
                node.disk.remove(path)
            node.disk.write_whole(DIRECTORY / node.name / "snapshot", data)
            node.disk.write_whole(DIRECTORY / node.name / "origin", b'["h0","h1","h2"]')
        world._committed.clear()
        world._leaders.clear()
        for node in nodes:
            node.promises = Promises()
            node.start()
        forgotten.promises = Promises()
        world.run(9.0)
        leader = world.leader()
        assert leader is not None
        lease(leader, "restored")
        world.run(12.0)
    states = {model.encode(node.machine.fleet) for node in nodes}
    assert len(states) == 1
    leases = leader.machine.fleet.leases
    assert set(leases) == {"before", "restored"}
    assert leases["restored"].token > max(tokens) + LEAP / 2
