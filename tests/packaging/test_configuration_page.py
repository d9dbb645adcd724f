"""docs/configuration.md names every key of the configuration with the default that the code has."""

import re
from pathlib import Path

import msgspec
import pytest

from dwcp_migrate import config

PAGE = Path(__file__).parents[2] / "docs/configuration.md"
TABLES: dict[str, type[msgspec.Struct]] = {
    "metrics": config.MetricsConfig,
    "tls": config.TlsConfig,
    "intercept": config.InterceptConfig,
    "link": config.LinkConfig,
    "encoding": config.EncodingConfig,
    "policy": config.MigrationPolicy,
    "bandwidth": config.BandwidthConfig,
    "record": config.RecordConfig,
    "store": config.StoreConfig,
    "coordination": config.CoordinationConfig,
    "coordination.etcd": config.EtcdConfig,
    "coordination.pbft": config.PbftConfig,
    "placement": config.PlacementConfig,
}


def documented(heading: str) -> dict[str, str]:
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.+) \|$", section, re.MULTILINE)
    return {key: default.strip("`") for key, default, _ in rows}


def actual(struct: type[msgspec.Struct], without: tuple[str, ...] = ()) -> dict[str, str]:
    found = {}
    for field in msgspec.structs.fields(struct):
        required = field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
        made = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        default = "required" if required else msgspec.json.encode(made, enc_hook=str).decode()
        if field.name not in without:
            found[field.name] = default
    return found


def test_the_top_level() -> None:
    assert documented("Top level") == actual(config.Config, ("peers", "domains", *TABLES))


def test_a_peer() -> None:
    assert documented("[[peers]]") == actual(config.PeerConfig)


def test_a_domain() -> None:
    assert documented("[[domains]]") == actual(config.DomainConfig)


def test_hours_of_a_limit() -> None:
    assert documented("hours, of a peer or of domains") == actual(config.RateHours)


def test_a_member_of_the_group() -> None:
    assert documented("[[coordination.pbft.members]]") == actual(config.PbftMemberConfig)


def test_a_scope_of_the_store() -> None:
    assert documented("[[store.scopes]]") == actual(config.StoreScopeConfig)


@pytest.mark.parametrize("table", TABLES)
def test_each_table(table: str) -> None:
    within = tuple(other.removeprefix(f"{table}.") for other in TABLES)
    assert documented(f"[{table}]") == actual(TABLES[table], within)


def test_no_table_is_forgotten() -> None:
    structs = {
        field.name for field in msgspec.structs.fields(config.Config) if isinstance(field.default, msgspec.Struct)
    }
    assert structs == {table for table in TABLES if "." not in table}


def test_the_example_is_a_valid_configuration() -> None:
    example = PAGE.read_text().partition("```toml\n")[2].partition("```")[0]
    assert config.parse(example).peers[0].name == "hv2.example.net"
