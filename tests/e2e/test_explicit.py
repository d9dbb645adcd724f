"""The form without a redirect: `--migrateuri tcp://127.0.0.1:PORT` at the source."""

import time
from typing import Final

import pytest

from tests.e2e.world import World, completed

pytestmark = pytest.mark.lab

PORT: Final = 49210


def test_the_explicit_form_needs_no_redirect(world: World) -> None:
    source, destination = world.shuttle.source, world.shuttle.destination
    world.configure(
        {"intercept": {"redirect": False, "explicit_port": PORT, "explicit_peer": destination.name}}, source
    )
    assert "redirect to" not in source.run(["nft", "list", "ruleset"]).stdout
    begin = time.time()
    outcome = world.shuttle.move("--migrateuri", f"tcp://127.0.0.1:{PORT}")
    out, _ = completed(world, outcome, (source, destination), begin)
    assert out.port == PORT
