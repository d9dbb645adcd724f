"""What is measured while guests migrate lies on the disk afterwards, one file for each series."""

import pytest

from dwcp_migrate.bandwidth.storage.model_files import SERIES_DIRECTORY
from dwcp_migrate.bandwidth.storage.series import LOAD_QUANTITIES, QUANTITIES
from dwcp_migrate.bandwidth.storage.series_store import read_all
from tests.e2e.world import SLOW, World, migrate

pytestmark = pytest.mark.lab

UNCERTAIN = {
    ("link", "rate"),  # only of seconds in which the link was filled, which loaded hosts do not manage
    ("interface", "speed"),  # the lab's interfaces have none
    ("domain", "encode"),  # only where the link left the hosts free
}


def test_every_quantity_that_a_migration_shows_is_kept(world: World) -> None:
    world.lab.wan.set(SLOW)
    source = world.shuttle.source
    question = f"domain={world.shuttle.guest.name}&peer={world.shuttle.other(source).name}"
    world.agent(source).get(f"/v1/predict?{question}")  # QEMU's dirty rate is measured when somebody asks
    record, _ = migrate(world)
    world.restart(source)  # an agent that ends writes what it has
    kept = read_all(world.agent(source).config.parent / "state" / SERIES_DIRECTORY)
    mine = [ring for ring in kept if ring.key.kind != "domain" or ring.key.subject == record.uuid]
    assert {
        (ring.key.kind, ring.key.quantity) for ring in mine
    } >= QUANTITIES.keys() - LOAD_QUANTITIES.keys() - UNCERTAIN
    assert {ring.key.subject for ring in kept if ring.key.kind == "link"} == {record.peer}
    assert all(ring.taken >= 1 and (ring.values >= 0).all() for ring in kept)
