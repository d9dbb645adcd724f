"""What `config check`, the agent's start and a reload refuse, each with file, key and value."""

from pathlib import Path

import pytest

from dwcp_migrate.config import load, parse
from dwcp_migrate.config.addresses import NAME_LENGTH_MAX, address_fault, normalise_address
from dwcp_migrate.errors import ConfigError


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as refused:
        parse(text, "agent.toml")
    return refused.value


def peers(*addresses: list[str], port: int = 7802) -> str:
    return "\n".join(
        f'[[peers]]\nname = "hv{number}.example.net"\naddresses = {found!r}\nport = {port}'
        for number, found in enumerate(addresses)
    )


@pytest.mark.parametrize(
    "address", ["192.0.2.12", "2001:db8::12", "hv2", "hv2.example.net", "hv2.example.net.", "hv_2", "2hv.example"]
)
def test_addresses_and_host_names_are_accepted(address: str) -> None:
    assert address_fault(address) == ("", "")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("", "empty"),
        (" ", "empty"),
        ("192.0.2.300", "neither"),
        ("192.0.2", "neither"),
        ("192.0.2.13/24", "network"),
        ("2001:db8::/64", "network"),
        ("192.0.2.13:49152", "port or brackets"),
        ("hv2:49152", "port or brackets"),
        ("[2001:db8::14]", "port or brackets"),
        ("[2001:db8::14]:49152", "port or brackets"),
        ("fe80::1%eth0", "link-local"),
        ("fe80::1", "link-local"),
        ("0.0.0.0", "no host has it"),  # noqa: S104 - refused, not listened on
        ("::", "no host has it"),
        ("224.0.0.1", "no host has it"),
        ("127.0.1.1", "every host has it"),
        ("::1", "every host has it"),
        ("2001:db8::g", "neither"),
        ("hv2 ", "neither"),
        ("-hv2", "neither"),
        ("hv2..net", "neither"),
    ],
)
def test_what_is_no_address_of_a_host_is_refused_with_file_key_and_value(address: str, why: str) -> None:
    error = refusal(peers(["192.0.2.2"], ["192.0.2.1", address]))
    assert str(error).startswith(f"agent.toml:7: peers[1].addresses[1] = {address!r}: ")
    assert why in str(error)
    assert error.hint
    assert [(fault.key, fault.value) for fault in error.faults] == [("peers[1].addresses[1]", address)]


def test_a_name_may_be_as_long_as_dns_allows_and_no_longer() -> None:
    label = "a" * 62
    longest = ".".join([label] * 4)[:NAME_LENGTH_MAX]
    assert address_fault(longest) == ("", "")
    assert address_fault(".".join([label] * 4) + ".bb")[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [("2001:db8::12", "2001:0db8:0:0::12"), ("192.0.2.1", "::ffff:192.0.2.1"), ("hv2.example", "HV2.example.")],
)
def test_one_address_in_two_spellings_is_refused(one: str, other: str) -> None:
    assert normalise_address(one) == normalise_address(other)
    error = refusal(peers([one], [other]))
    assert "peers[1].addresses[0]" in str(error)
    assert "peers[0].addresses[0] is the same address" in str(error)
    assert refusal(peers([one, other])).faults


def test_two_peers_whose_names_differ_in_case_are_refused() -> None:
    text = peers(["192.0.2.1"]) + "\n" + peers(["192.0.2.2"]).replace("hv0", "HV0")
    assert [fault.key for fault in refusal(text).faults] == ["peers[1].name"]


@pytest.mark.parametrize("port", [49152, 49200, 49215])
def test_ports_of_agents_within_libvirts_range_are_refused(port: int) -> None:
    assert [fault.key for fault in refusal(f"[link]\nport = {port}").faults] == ["link.port"]
    assert [fault.key for fault in refusal(peers(["192.0.2.1"], port=port)).faults] == ["peers[0].port"]


@pytest.mark.parametrize("port", [49151, 49216])
def test_ports_beside_the_range_are_accepted(port: int) -> None:
    assert parse(f"[link]\nport = {port}").link.port == port


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ('[link]\nport = "x"', "link.port", "x"),
        ("[link]\nchanels = 3", "link.chanels", 3),
        ("nonsense = true", "nonsense", True),
        ('[[peers]]\nname = "a"\naddresses = ["b"]\nport = 0', "peers[0].port", 0),
        ('[link]\nlisten = "0.0.0"', "link.listen", "0.0.0"),
        ("[link]\nport = 7801", "link.port", 7801),
        ('metrics_listen = "9177"', "metrics_listen", "9177"),
        ('metrics_listen = "127.0.0.1:99999"', "metrics_listen", "127.0.0.1:99999"),
        ('[placement]\nuri = "qemu:///system"', "placement.uri", "qemu:///system"),
        ("[intercept]\nport_min = 3\nport_max = 2", "intercept.port_min", 3),
        ("[intercept]\nexplicit_port = 49152", "intercept.explicit_peer", ""),
        ("[coordination]\nrequire = true", "coordination.require", True),
    ],
)
def test_each_refusal_names_its_key_and_its_value(text: str, key: str, value: object) -> None:
    assert [(fault.key, fault.value) for fault in refusal(text).faults] == [(key, value)]


def test_all_that_is_wrong_is_told_at_once() -> None:
    error = refusal(peers([""], ["192.0.2.1/32"]))
    assert len(error.faults) == 2
    assert str(error).splitlines()[0] == "agent.toml: 2 keys are wrong"


def test_a_file_is_named_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    for content in (b"[[", b"\xff", b"x = 1"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=str(path)):
            load(path)
