"""A host's ledger, forecasts and shares, with records that a test makes and time of its own."""

from pathlib import Path

from msgspec.structs import replace

from dwcp_migrate.agent.forecasting.rate_control import LimitsInForce, RateController
from dwcp_migrate.agent.forecasting.series import REPLAY, Forecasts
from dwcp_migrate.agent.tracking.history import MigrationHistory
from dwcp_migrate.agent.tracking.registry import MigrationRegistry
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.bandwidth.storage.series import Key
from dwcp_migrate.config import BandwidthConfig
from dwcp_migrate.units import GIB

RATE = 25e6
PEER = "hv2"
LINK = Key("link", "rate", PEER)
NO_LIMITS = LimitsInForce(of_link=lambda _: 0.0, of_domain=lambda _: 0.0, words=lambda _peer, _domain: "")


def record(identity: str = "aa" * 16, **changes: object) -> Migration:
    known = Migration(
        id=identity,
        role="source",
        state="precopy",
        peer=PEER,
        address="10.0.0.2",
        port=49152,
        domain=f"guest-{identity[:2]}",
        uuid=f"{identity[:8]}-0000-4000-8000-000000000000",
        started_at=1000.0,
        memory_bytes=GIB,
        remaining_bytes=GIB,
        dirty_bytes_per_s=1e6,
        iteration=1,
    )
    return replace(known, **changes)


class Bench:
    """A ledger, forecasts that know the link, and what the data processes were told."""

    def __init__(self, directory: Path, *, link: float = RATE) -> None:
        self.now = 1000.0
        self.ledger = MigrationRegistry(MigrationHistory(directory), lambda: self.now)
        self.forecasts = Forecasts(directory)
        self.paced: dict[str, float] = {}
        self.speeds: dict[str, float] = {}
        self.sharing = RateController(
            self.ledger, self.forecasts, self.paced.__setitem__, self.speeds.__setitem__, NO_LIMITS
        )
        for _ in range(REPLAY if link else 0):
            self.now += 1
            self.forecasts.sample(LINK, link, self.now)
            self.forecasts.step(self.now)

    def share(self, **config: object) -> None:
        self.sharing.update(BandwidthConfig(**{"share": True, **config}), 0.0, self.now)  # type: ignore[arg-type]  # names are the fields


def rate_of(bench: Bench, samples: list[float], *, begin: float) -> float:
    """What the link is said to carry over a minute after a migration that showed these samples, one a second."""
    for second, value in enumerate(samples):
        bench.forecasts.sample(LINK, value, begin + second)
        bench.forecasts.step(begin + second)
    found = bench.forecasts.carries(PEER, 60)
    assert found is not None
    return found.median
