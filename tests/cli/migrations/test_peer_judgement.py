"""The conclusion of `check`: which fault decides, under which name, and which rate is promised."""

from typing import Any

import msgspec
import pytest

from dwcp_migrate.api import schema
from dwcp_migrate.api.peer_check import LinkMeasured, PastMigrations, PeerCheck
from dwcp_migrate.cli.migrations.peer_judgement import conclude, judge_peer
from dwcp_migrate.protocol.control import Examined, HookRound
from tests.cli.conftest import NOW, make_peer

REDIRECT = schema.RedirectStatus(wanted=True, armed=True, port_min=49152, port_max=49215, addresses=1)
THERE = Examined(
    own_addresses=("10.0.0.2",),
    hook=HookRound(round_trip_s=0.04, last_at=NOW - 60),
    libvirt="11.3.0",
    sessions_max=32,
    certificate_names=("hv2",),
    certificate_until=NOW + 90 * 86400,
    port_min=49152,
    port_max=49215,
)
MEASURED = LinkMeasured(channels=8, channels_wanted=8, bytes=64 << 20, seconds=1.0, bytes_per_s=64e6)


def facts(**changes: Any) -> PeerCheck:
    fields: dict[str, Any] = {
        "own_name": "hv1",
        "own_version": "0.1.0",
        "own_state": "running",
        "peer": make_peer(),
        "resolved": ["10.0.0.2"],
        "redirect": REDIRECT,
        "redirected": ["10.0.0.2"],
        "examined": THERE,
        "measured": MEASURED,
    }
    return PeerCheck(**(fields | changes))


def test_a_peer_without_fault_is_promised_its_rate_and_that_of_memory() -> None:
    found = facts(past=PastMigrations(count=3, raw_bytes=300, wire_bytes=100))
    checks = judge_peer(found, NOW)
    assert {check.verdict for check in checks} == {"ok"}
    verdict = conclude(found, checks)
    assert (verdict.accelerated, verdict.bytes_per_s, verdict.memory_bytes_per_s) == (True, 64e6, 192e6)
    assert verdict.text == (
        "A migration to hv2 would be accelerated, at about 512.0 Mbit/s on the wire.\n"
        "The last 3 migrations there took 3.0 bytes of memory for each on the wire: about 183.1 MiB of guest memory a"
        " second."
    )


@pytest.mark.parametrize(
    ("changes", "reason", "word"),
    [
        ({"peer": make_peer(reachable=False, code="certificate", error="hv2: expired")}, "certificate", "expired"),
        ({"redirected": []}, "not-caught", "does not catch migrations to 10.0.0.2"),
        ({"redirect": msgspec.structs.replace(REDIRECT, armed=False, error="no nft")}, "not-caught", "no nft"),
        ({"redirect": msgspec.structs.replace(REDIRECT, wanted=False)}, "not-caught", "the redirect is off"),
        ({"peer": make_peer(not_redirected="hv2: no such name")}, "not-caught", "no such name"),
        ({"own_refusal": "draining", "own_refusal_why": "this agent is draining"}, "draining", "this agent"),
        ({"own_refusal": "step-aside", "own_refusal_why": "QEMU was faster"}, "step-aside", "faster"),
        ({"fleet": "stopped", "fleet_error": "no leader", "is_agreement_required": True}, "no-quorum", "no leader"),
        ({"examined": msgspec.structs.replace(THERE, refuses="memory")}, "memory", "no memory"),
        ({"examined": msgspec.structs.replace(THERE, own_addresses=())}, "address", "is not the peer's"),
        (
            {"examined": msgspec.structs.replace(THERE, hook=HookRound(problem="gone"), libvirt="")},
            "not-announced",
            "gone",
        ),
        (
            {"own_certificates": [schema.CertificateExpiry(use="host", path="/t/host.pem", not_after=NOW - 1)]},
            "certificate",
            "/t/host.pem: expired",
        ),
    ],
)
def test_the_first_that_fails_decides_and_is_named_as_in_a_record(
    changes: dict[str, Any], reason: str, word: str
) -> None:
    found = facts(**changes)
    checks = judge_peer(found, NOW)
    failed = [check for check in checks if check.verdict == "fail"]
    assert [bool(check.remedy and check.why) for check in failed] == [True]
    verdict = conclude(found, checks)
    assert (verdict.accelerated, verdict.reason) == (False, reason)
    assert word in verdict.text
    assert f"unaccelerated ({reason}), " in verdict.text


@pytest.mark.parametrize(
    ("changes", "check", "word"),
    [
        ({"resolved": ["10.0.0.2", "10.9.9.9"]}, "name", "add 10.9.9.9 to the addresses of hv2"),
        ({"resolved": [], "resolve_error": "no such name"}, "name", "getent ahosts hv2"),
        ({"fleet": "stopped", "fleet_error": "no leader"}, "fleet", "cluster status"),
        ({"peer": make_peer(clock_ahead_s=-9.0)}, "clock", "NTP"),
        ({"peer": make_peer(version="0.0.9")}, "versions", "upgrade the older"),
        ({"peer": make_peer(calls_itself="hv9")}, "names", 'set name = "hv2"'),
        ({"peer": make_peer(calls_us="hv7")}, "names", 'set name = "hv7" in this host'),
        ({"examined": msgspec.structs.replace(THERE, certificate_until=NOW + 86400)}, "certificate", "cert renew"),
        ({"examined": msgspec.structs.replace(THERE, port_max=60000)}, "ports", "intercept.port_min"),
        ({"examined": msgspec.structs.replace(THERE, hook=HookRound(problem="gone"))}, "hook", "install the hook"),
        ({"measured": None, "measure_error": "no", "measure_hint": "again"}, "link", "again"),
        ({"measured": msgspec.structs.replace(MEASURED, channels=5, error="reset")}, "link", "firewall"),
    ],
)
def test_what_costs_only_speed_warns_and_says_what_to_do(changes: dict[str, Any], check: str, word: str) -> None:
    found = facts(**changes)
    checks = judge_peer(found, NOW)
    assert [one.id for one in checks if one.verdict == "warn"] == [check]
    assert word in next(one.remedy for one in checks if one.verdict == "warn")
    assert conclude(found, checks).accelerated


def test_a_migration_that_the_fleet_has_to_agree_to_is_promised_with_that() -> None:
    found = facts(fleet="follower", is_agreement_required=True)
    verdict = conclude(found, judge_peer(found, NOW))
    assert verdict.accelerated
    assert "The fleet has to agree to it" in verdict.text


def test_a_rate_that_the_agents_bounded_is_a_lower_bound() -> None:
    found = facts(measured=msgspec.structs.replace(MEASURED, is_bound_there=True))
    verdict = conclude(found, judge_peer(found, NOW))
    assert verdict.is_lower_bound
    assert "at least 512.0 Mbit/s" in verdict.text


def test_beside_migrations_the_forecast_is_told_and_not_the_trickle() -> None:
    held = msgspec.structs.replace(MEASURED, bytes_per_s=65536.0, held_to_bytes_per_s=65536.0)
    forecast = schema.LinkForecast(peer="hv2", next_minute=(1e6, 2e6, 3e6))
    found = facts(measured=held, running=1, forecast=forecast)
    assert conclude(found, judge_peer(found, NOW)).bytes_per_s == 2e6
    assert "not measured" in conclude(facts(measured=held, running=1), []).text


def test_a_limit_that_held_the_measurement_up_is_named() -> None:
    held = msgspec.structs.replace(MEASURED, bytes_per_s=0.98e6, held_to_bytes_per_s=1e6)
    found = facts(measured=held, limit_bytes_per_s=1e6)
    assert "held to 8.0 Mbit/s by link_bytes_per_s_max" in conclude(found, judge_peer(found, NOW)).text
