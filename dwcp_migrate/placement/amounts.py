"""Amounts of resources: what a host may promise, and what a domain uses.

It loads no kernel, so that a list of hosts compiles nothing.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.placement.fleet import Domain, Fleet


def usable(fleet: Fleet, resources: Sequence[str]) -> NDArray[np.float64]:
    """Capacity that may be promised (R, H): with over-commit, without reserves for the host and for failures."""
    capacity = np.zeros((len(resources), len(fleet.hosts)))
    for h, host in enumerate(fleet.hosts):
        for r, name in enumerate(resources):
            whole = host.capacity.get(name, 0.0) * host.overcommit.get(name, 1.0)
            capacity[r, h] = max(0.0, whole - host.reserve.get(name, 0.0))
    up = [h for h, host in enumerate(fleet.hosts) if host.state == "up"]
    if fleet.reserve_hosts and up:
        largest = np.sort(capacity[:, up], axis=1)[:, ::-1][:, : fleet.reserve_hosts].sum(axis=1)
        total = capacity[:, up].sum(axis=1)
        capacity *= np.where(total > 0, 1 - largest / np.where(total > 0, total, 1), 1)[:, None]
    return capacity


def used_amounts(domain: Domain, quantile: float) -> dict[str, float]:
    """Resources that a domain uses: measured, else the quantile of its series, else what it is promised."""
    series = {name: float(np.quantile(values, quantile)) for name, values in domain.series.items()}
    return {**domain.demand, **series, **domain.load}
