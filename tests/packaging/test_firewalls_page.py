"""The page of firewalls: its ports are the configuration's, and its rules let the peer in and nobody else."""

import re
import subprocess
from pathlib import Path

import pytest

from dwcp_migrate.config import Config
from dwcp_migrate.units import PORT_MAX, PORT_MIN

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/firewalls.md").read_text()
HOST = "table inet filter { chain input { type filter hook input priority filter; policy drop; iif lo accept; }; }\n"

SCENE = r"""
ip link set lo up
ip link add name there type veth peer name eth0
ip address add 192.0.2.11/24 dev there
ip link set there up
unshare --net sleep 30 > /dev/null 2>&1 & other=$!
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do :; done
ip link set eth0 netns "$other"
nsenter --net=/proc/$other/ns/net sh -euc '
    ip address add 192.0.2.12/24 dev eth0; ip address add 192.0.2.13/24 dev eth0; ip link set eth0 up'
nft --file "$1/host.nft"
nft --file "$1/peers.nft"
nft insert rule inet filter input jump dwcp_migrate
nft --file "$1/peers.nft"
nsenter --net=/proc/$other/ns/net python3 -c '
import socket
for source, port in (("192.0.2.12", 7802), ("192.0.2.13", 7802), ("192.0.2.12", 7803)):
    try:
        socket.create_connection(("192.0.2.11", port), timeout=0.5, source_address=(source, 0))
    except ConnectionRefusedError:
        print(source, port, "let in")
    except TimeoutError:
        print(source, port, "dropped")
'
kill "$other"
"""


def test_ports_on_the_page_are_those_of_the_configuration() -> None:
    defaults = Config()
    for port in (defaults.link.port, defaults.intercept.port, PORT_MIN, PORT_MAX):
        assert re.search(rf"\b{port}\b", PAGE)
    assert f"{defaults.metrics_listen.rpartition(':')[2]} (`metrics_listen`)" in PAGE


def test_every_command_of_the_page_opens_the_link_port_for_the_peer() -> None:
    commands = re.findall(r"^(?:ufw allow|iptables .*--dport|firewall-cmd .*--add).*$", PAGE, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        assert "7802" in command or "service" in command
    service = (REPOSITORY / "systemd/firewalld-dwcp-migrate.xml").read_text()
    assert f'port="{Config().link.port}"' in service


def test_the_chain_of_the_page_lets_the_peer_in_and_nobody_else(tmp_path: Path) -> None:
    (rules,) = re.findall(r"^```nft\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "host.nft").write_text(HOST)
    (tmp_path / "peers.nft").write_text(rules)
    scene = ["unshare", "--net", "bash", "-euc", SCENE, "scene", str(tmp_path)]
    done = subprocess.run(scene, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.splitlines() == [
        "192.0.2.12 7802 let in",
        "192.0.2.13 7802 dropped",
        "192.0.2.12 7803 dropped",
    ], done.stderr


@pytest.mark.parametrize("word", ["flush ruleset", "unreachable", "no-link", "certificate"])
def test_the_page_warns_of_what_goes_wrong(word: str) -> None:
    assert word in PAGE
