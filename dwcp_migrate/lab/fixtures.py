"""pytest fixtures for tests that need hypervisors.

A conftest takes them by name:

    from dwcp_migrate.lab.fixtures import lab, shared_lab, start_guest  # noqa: F401

The rule here: one lab for the whole run (half a second to make, ten to boot a guest), handed to each test as new: no
guests, no agents, a healed WAN with `QUIET`'s properties. A lab that a killed run left is cleared by the next one.
"""

import os
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from dwcp_migrate.lab.guest import GuestOptions, LabGuest
from dwcp_migrate.lab.lab import Lab, LabOptions
from dwcp_migrate.lab.wan import WanLink

QUIET: Final = WanLink(rate_bytes_per_s=125e6, delay_s=0.001, loss=0.0)
"""1 Gbit/s, 2 ms, no loss: tests that are not about the WAN do not wait for it."""

StartGuest = Callable[..., LabGuest]


@pytest.fixture(scope="session")
def shared_lab() -> Iterator[Lab]:
    """Two hypervisors, up as long as the test run."""
    with Lab.up(LabOptions(name=f"test-{os.getpid()}", link=QUIET, owned=True)) as made:
        yield made


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    """The shared lab, as new."""
    reset(shared_lab)
    yield shared_lab
    reset(shared_lab)


@pytest.fixture
def start_guest(lab: Lab) -> StartGuest:
    """Start a guest on a host: `start_guest(GuestOptions(...), host="hv2")`; the lab's reset ends it."""

    def start(options: GuestOptions | None = None, *, host: str = "hv1") -> LabGuest:
        guest = LabGuest(options or GuestOptions())
        guest.start(lab[host])
        return guest

    return start


def reset(lab: Lab) -> None:
    """Make a lab as new: WAN healed, agents stopped, all domains destroyed."""
    lab.wan.heal()
    lab.wan.set(QUIET)
    lab.stop_agents()
    for host in lab.hypervisors:
        for domain in host.virsh("list", "--name").stdout.split():
            host.virsh("destroy", domain)
