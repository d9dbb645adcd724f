"""An agent with a user of its own, as its unit runs it: its connections pass the redirect without a mark."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.conftest import close_hosts, make_hosts
from tests.agent.hosts import DESTINATION_ADDRESS, Host, echoing, exchange, make_authority

Hosts = tuple[Host, Host]

USER = 60123
CAPABILITIES = "+net_admin,+dac_override"
"""The unit's, and that which lets the user read this checkout wherever it lies."""

RUN_AS_USER = [
    "setpriv",
    f"--reuid={USER}",
    f"--regid={USER}",
    "--clear-groups",
    f"--inh-caps={CAPABILITIES}",
    f"--ambient-caps={CAPABILITIES}",
    "--no-new-privs",
]


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Source and destination whose files are the user's, in a place that it can reach."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o711)
        found = make_hosts(directory, make_authority(directory / "tls"))
        for host in found:
            host.prefix = RUN_AS_USER
            host.write_config()
        for path in directory.rglob("*"):
            os.chown(path, USER, USER)
        yield found
        close_hosts(found)


def test_what_passes_through_is_not_redirected_again_though_rules_drop_kubernetes_marks(hosts: Hosts) -> None:
    source, destination = hosts
    source.namespace.run("nft", "add table ip kube; add chain ip kube out { type filter hook output priority 0; }")
    source.namespace.run("nft", "add rule ip kube out meta mark & 0x8000 == 0x8000 drop")
    source.start()
    assert f"meta skuid != {USER}" in source.namespace.run("nft", "list", "ruleset")
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"plain") == b"plain"
    (record,) = source.ended()
    assert (record.passthrough_reason, record.result) == ("unreachable", "completed")
    (caught,) = [rule for rule in source.status().intercept.rules if rule.address == DESTINATION_ADDRESS]
    assert caught.packets == 1


def test_two_such_agents_accelerate(hosts: Hosts) -> None:
    source, destination = hosts
    for host in hosts:
        host.spawn()
    for host in hosts:
        host.ready()
    with echoing(destination.listen()):
        assert exchange(source.connect(DESTINATION_ADDRESS), b"stream") == b"stream"
    assert source.ended()[0].passthrough_reason == ""
