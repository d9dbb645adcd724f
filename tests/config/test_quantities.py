"""Sizes, rates and times with units."""

import pytest

from dwcp_migrate.config import parse
from dwcp_migrate.config.quantities import Unit, number_of, unit_of
from dwcp_migrate.units import GIB, MIB


@pytest.mark.parametrize(
    ("text", "unit", "number"),
    [
        ("1GiB", "size", GIB),
        ("1.5 GiB", "size", 3 * GIB // 2),
        ("10MB", "size", 10_000_000),
        ("200Mbit/s", "rate", 25_000_000),
        ("1GiB/s", "rate", GIB),
        ("3bit/s", "rate", 0.375),
        ("90s", "seconds", 90),
        ("2min", "seconds", 120),
        ("300ms", "seconds", 0.3),
        ("0.3s", "milliseconds", 300),
        (" 50ms ", "milliseconds", 50),
        ("", "size", None),
        ("GiB", "size", None),
        ("-1GiB", "size", None),
        ("1 gib", "size", None),
        ("1Gbit/s", "size", None),
        ("1e3s", "seconds", None),
        ("1  s", "seconds", None),
    ],
)
def test_a_quantity_is_read_in_the_unit_of_its_key_or_not_at_all(text: str, unit: Unit, number: float | None) -> None:
    assert number_of(text, unit) == number


@pytest.mark.parametrize(
    ("key", "unit"),
    [
        ("encoding.cache_bytes", "size"),
        ("record.bytes_max", "size"),
        ("bandwidth.link_bytes_per_s_max", "rate"),
        ("link.loss_s_max", "seconds"),
        ("link.in_flight_ms_max", "milliseconds"),
        ("link.channels", None),
        ("peers", None),
    ],
)
def test_a_keys_suffix_names_its_unit(key: str, unit: Unit | None) -> None:
    assert unit_of(key) == unit


def test_a_file_may_write_units() -> None:
    config = parse(
        '[encoding]\ncache_bytes = "512MiB"\n[link]\nloss_s_max = "2min"\nin_flight_ms_max = "0.1s"\n'
        '[bandwidth]\nlink_bytes_per_s_max = "1Gbit/s"\n'
    )
    assert config.encoding.cache_bytes == 512 * MIB
    assert config.link.loss_s_max == 120
    assert config.link.in_flight_ms_max == 100
    assert config.bandwidth.link_bytes_per_s_max == 125e6
