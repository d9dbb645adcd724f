import pytest

from dwcp_migrate.errors import LabError
from dwcp_migrate.lab import quantities


def test_rates_times_sizes_and_shares_are_read_with_their_units() -> None:
    assert quantities.rate_bytes_per_s("200mbit") == 25e6
    assert quantities.rate_bytes_per_s("1 Gbit") == 125e6
    assert quantities.duration_s("40ms") == pytest.approx(0.04)
    assert quantities.size_bytes("64k") == 65536
    assert quantities.parse_percent("0.1%") == pytest.approx(0.001)


def test_zero_needs_no_unit() -> None:
    assert quantities.size_bytes("0") == 0
    assert quantities.parse_percent("0") == 0


@pytest.mark.parametrize("text", ["200", "fast", "", "-1mbit", "1 parsec", "0x10mbit"])
def test_a_rate_without_a_known_unit_is_refused(text: str) -> None:
    with pytest.raises(LabError, match="kbit, mbit, gbit"):
        quantities.rate_bytes_per_s(text)


def test_a_share_beyond_the_whole_is_refused() -> None:
    assert quantities.parse_percent("100%") == 1.0
    with pytest.raises(LabError, match="more than 100 %"):
        quantities.parse_percent("100.1%")
