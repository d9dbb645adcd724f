"""Loads of a fleet out of bulk statistics, in small."""

from bench.suites.watch.month import weigh
from dwcp_migrate.orchestration.measured_load import CPU_USED


def test_a_fleet_s_loads_are_known_within_their_share_of_ten_seconds() -> None:
    fleet, seconds = weigh(40, 25)
    assert len([one for one in fleet.domains if one.load.get(CPU_USED, 0) > 0]) == 1000
    assert (
        seconds < 5 * 10.0 * 1000 / 50_000
    )  # a fiftieth of the fleet, and five times its share: others use the machine
