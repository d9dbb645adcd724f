"""Amounts of resources: those that a host may promise, and those that a domain uses.

It loads no kernel, so that a list of hosts compiles nothing.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.placement.fleet import Domain, Fleet


def usable_capacity(fleet: Fleet, resources: Sequence[str]) -> NDArray[np.float64]:
    """Compute the capacity that may be promised: with over-commit, without reserves for the host and for failures.

    Args:
        fleet: hosts and reserves count.
        resources: names.

    Returns:
        (R, H), in the order of `resources` and `fleet.hosts`.
    """
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
    """Return the resources that a domain uses: measured, else the quantile of its series, else the promised amount.

    Args:
        domain: of a fleet.
        quantile: of its series, 0 to 1.
    """
    series = {name: float(np.quantile(values, quantile)) for name, values in domain.series.items()}
    return {**domain.demand, **series, **domain.load}
