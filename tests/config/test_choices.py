"""Settings of single domains and peers: which entry counts, and when its hours hold."""

import pytest

from dwcp_migrate.config import Config, DomainConfig, PeerConfig, RateHours
from dwcp_migrate.config.choices import choose_settings, domain_limit, is_within, minute_of_day, peer_limit

NIGHT = RateHours(begin="22:00", end="06:00", link_bytes_per_s_max=5e6)
DAY = RateHours(begin="08:00", end="18:30", link_bytes_per_s_max=25e6)
PEER = PeerConfig(name="hv2", addresses=["192.0.2.2"], codec="lz4")
CONFIG = Config(
    domains=(
        DomainConfig(names=("build-*",), accelerate=False),
        DomainConfig(names=("db-1", "db-?"), codec="zstd", link_bytes_per_s_max=50e6, hours=(DAY,)),
        DomainConfig(names=("*",), link_bytes_per_s_max=100e6),
    )
)


@pytest.mark.parametrize(
    ("hours", "time", "holds"),
    [
        (DAY, "07:59", False),
        (DAY, "08:00", True),
        (DAY, "18:29", True),
        (DAY, "18:30", False),
        (NIGHT, "21:59", False),
        (NIGHT, "22:00", True),
        (NIGHT, "00:00", True),
        (NIGHT, "05:59", True),
        (NIGHT, "06:00", False),
    ],
)
def test_hours_hold_from_their_begin_to_before_their_end(hours: RateHours, time: str, *, holds: bool) -> None:
    assert is_within(hours, minute_of_day(time)) is holds


def test_the_first_entry_that_names_a_domain_counts() -> None:
    assert domain_limit(CONFIG, "db-1", minute_of_day("03:00")).bytes_per_s == 50e6
    assert domain_limit(CONFIG, "web", 0).bytes_per_s == 100e6
    assert domain_limit(CONFIG, "build-7", 0).bytes_per_s == 0
    assert domain_limit(CONFIG, "", 0).bytes_per_s == 0


def test_the_lowest_limit_of_an_entry_holds_and_says_why() -> None:
    found = domain_limit(CONFIG, "db-1", minute_of_day("12:00"))
    assert found.bytes_per_s == 25e6
    assert found.by == "200.0 Mbit/s by [[domains]] of db-1, db-?, 08:00 to 18:30"
    low = PeerConfig(name="hv2", addresses=["192.0.2.2"], link_bytes_per_s_max=1e6, hours=(DAY,))
    assert peer_limit(low, minute_of_day("12:00")).bytes_per_s == 1e6
    assert peer_limit(None, 0).bytes_per_s == 0


def test_a_domains_codec_goes_before_its_peers() -> None:
    chosen = choose_settings(CONFIG, PEER, ["db-1"])
    assert (chosen.codec, chosen.codec_by) == ("zstd", "[[domains]] of db-1, db-?")
    other = choose_settings(CONFIG, PEER, ["web"])
    assert (other.codec, other.codec_by) == ("lz4", "[[peers]] of hv2")


def test_where_several_domains_may_be_meant_one_that_is_kept_plain_keeps_it_so() -> None:
    assert choose_settings(CONFIG, PEER, ["web", "build-7"]).plain_by == "[[domains]] of build-*"
    assert choose_settings(CONFIG, PEER, ["web", "db-1"]).codec == "lz4"
    assert choose_settings(CONFIG, PEER, ["web"]).plain_by == ""
