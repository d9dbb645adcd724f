"""Operators' repairs through the control API, on agents' real parts."""

from pathlib import Path

import pytest

from dwcp_migrate.agent.http.handlers.repair import RepairHandlers
from dwcp_migrate.config import CoordinationConfig
from dwcp_migrate.errors import ConfigError, CoordinationError
from dwcp_migrate.state.fleet.commands import PutDomain, PutHost
from dwcp_migrate.state.fleet.model import VERSION
from tests.agent.authorization.world import NAMES, UUID, world_of


async def test_repairs_change_the_record_once_every_host_reads_them(tmp_path: Path) -> None:
    async with world_of(tmp_path, CoordinationConfig(voters=NAMES)) as world:
        repairs = RepairHandlers(world.hosts["a"].coordination).changes()
        fleet = world.machine.fleet
        with pytest.raises(CoordinationError, match="a, b, c: the software there"):
            await repairs["cluster/set-time"]({}, b"")
        for name, host in world.hosts.items():
            await host.coordination.submit(PutHost(name=name, reads=VERSION))
        fleet.now += 70 * 365 * 86400.0
        assert "earlier" in (await repairs["cluster/set-time"]({}, b"")).message
        assert fleet.now < 3e9
        await world.hosts["a"].coordination.submit(PutDomain(uuid=UUID))
        await repairs["cluster/assign"]({"uuid": UUID, "owner": "b"}, b"")
        assert fleet.domains[UUID].owner == "b"
        await repairs["cluster/forget-host"]({"name": "b"}, b"")
        assert sorted(fleet.hosts) == ["a", "c"]
        assert UUID not in fleet.domains
        with pytest.raises(CoordinationError, match="no such host"):
            await repairs["cluster/forget-host"]({"name": "b"}, b"")
        with pytest.raises(CoordinationError, match="has a vote"):
            await repairs["cluster/forget-host"]({"name": "a"}, b"")
        with pytest.raises(CoordinationError, match="no such domain"):
            await repairs["cluster/forget-domain"]({"uuid": UUID}, b"")
        with pytest.raises(CoordinationError, match="no such open ticket"):
            await repairs["tickets/fail"]({"token": "1"}, b"")
        with pytest.raises(ConfigError):
            await repairs["tickets/fail"]({"token": "x"}, b"")
        await repairs["cluster/raise-version"]({}, b"")
        assert fleet.version == VERSION
