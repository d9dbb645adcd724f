import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dwcp_migrate.api import schema
from dwcp_migrate.api.cluster import NO_GROUP, GroupStatus, RecordFacts
from dwcp_migrate.cli.host import checks, host_files
from dwcp_migrate.cli.host.check import Check, worst
from dwcp_migrate.cli.host.checks import Findings
from dwcp_migrate.cli.host.memory_check import judge_store
from dwcp_migrate.config import Config, InterceptConfig, parse
from dwcp_migrate.hypervisor import qemu_conf
from dwcp_migrate.state.engine_status import EngineMember, EngineStatus

Make = Callable[..., Any]
NOW = 1_790_000_100.0
DAY = 86400.0

HEALTHY = host_files.HostFiles(
    hook_path="/etc/libvirt/hooks/qemu.d/50-dwcp-migrate",
    hook_problem="",
    qemu_conf_readable=True,
    port_min=None,
    port_max=None,
    conntrack_count=10,
    conntrack_max=1000,
    congestion_controls=("reno", "cubic"),
    clock_synchronised=True,
)


def judge(
    facts: schema.Facts | None,
    found: host_files.HostFiles = HEALTHY,
    config: Config | None = None,
    resolved: dict[str, frozenset[str]] | None = None,
) -> dict[str, Check]:
    findings = Findings(
        facts=facts,
        agent_error="" if facts else "the agent does not answer",
        config=config or Config(),
        config_error="",
        host=found,
        now=NOW,
        resolved=resolved or {},
    )
    return {check.id: check for check in checks.examine(findings)}


def test_a_healthy_host_has_nothing_to_do(facts: Make) -> None:
    judged = judge(facts())
    assert {check.verdict for check in judged.values()} == {"ok"}
    assert not [check.id for check in judged.values() if check.remedy]
    assert len(judged) >= 15


def test_whatever_is_not_ok_says_what_to_do(facts: Make, peer: Make) -> None:
    broken = facts(
        state="draining",
        intercept=schema.RedirectStatus(wanted=True, armed=False, error="EPERM", port_min=49152, port_max=49215),
        libvirt=schema.Libvirt(uri="qemu:///system", connected=False, error="refused"),
        hook=schema.Hook(socket="/run/h", listening=False, last_at=0.0, pending=0),
        certificates=[schema.CertificateExpiry(use="host", path="/h", error="no such file")],
        name_in_certificate=False,
        listeners=[schema.ListenerStatus(use="link", address="0.0.0.0:7802", listening=False, error="in use")],
        peers=[peer(reachable=False, code="unreachable", error="no answer")],
        spare_ready=False,
        history_error="disk full",
        core_dumps_off=False,
        configuration_error="$.x",
        pending_restart=["link.port"],
        open_descriptors=90,
        open_descriptors_max=100,
        group=GroupStatus(error="it was removed", owed=2),
        fleet=RecordFacts(
            is_shared=True,
            engine=EngineStatus(engine="raft", state="stopped", error="disk full", time_ahead_s=100.0),
            stuck_tickets=["7 of u (hv1 to hv2, running for 9 min)"],
        ),
        memory=schema.MemoryUse(budget_bytes=1024),
        store=schema.StoreUse(directory="/run/s", bytes_max=9, looked_at=1.0, error="read-only"),
        ports_not_redirected=["hv3: it migrates at 50000 to 50100, here 49152 to 49215 are redirected"],
    )
    sick = host_files.HostFiles(
        hook_path="/h",
        hook_problem="it is not executable",
        qemu_conf_readable=True,
        port_min=40000,
        port_max=40063,
        conntrack_count=None,
        conntrack_max=None,
        congestion_controls=("cubic",),
        clock_synchronised=False,
        migration_host="hv1-mig",
        migration_address="192.0.2.9",
        keepalive_s={"qemu.conf": 10.0},
    )
    names = {peer().name: frozenset({"198.51.100.7"}), "hv1-mig": frozenset({"192.0.2.8"})}
    judged = judge(broken, sick, parse('[link]\ncongestion_control = "bbr"\n'), names)
    assert not [check.id for check in judged.values() if check.verdict == "ok"]
    assert not [check.id for check in judged.values() if not check.remedy or not check.why]


@pytest.mark.parametrize(
    ("seen", "says", "remedy"),
    [
        ({"clock_ahead_s": 3600.2}, "its clock is 3600 s ahead of this host's", "NTP"),
        ({"clock_ahead_s": -90.0}, "its clock is 90 s behind this host's", "NTP"),
        ({"calls_itself": "peer"}, "it calls itself peer", "in its configuration"),
        ({"silent": {"10.0.0.9": "refused"}}, "at 10.0.0.9 it does not answer: refused", "take it out"),
        ({"calls_us": "other.lab"}, "it calls this host other.lab", "in this host's configuration"),
    ],
)
def test_what_a_peer_sees_differently_is_named_with_its_remedy(
    facts: Make, peer: Make, seen: dict[str, object], says: str, remedy: str
) -> None:
    found = peer(**seen)
    check = judge(facts(peers=[found]))[f"peer-{found.name}"]
    assert check.verdict == "warn"
    assert says in check.what
    assert remedy in check.remedy


def test_a_peer_that_spells_names_in_capitals_is_as_good(facts: Make, peer: Make) -> None:
    found, own = peer(), facts().name
    found = peer(calls_itself=found.name.upper(), calls_us=f"{own.upper()}.", clock_ahead_s=-1.0)
    assert judge(facts(peers=[found]))[f"peer-{found.name}"].verdict == "ok"


def test_without_an_agent_the_host_is_still_looked_at() -> None:
    judged = judge(None)
    assert judged["agent"].verdict == "fail"
    assert judged["ports"].verdict == "ok"
    assert worst(list(judged.values())) == "fail"


@pytest.mark.parametrize(
    ("left_days", "verdict"), [(-0.01, "fail"), (0.5, "warn"), (13.99, "warn"), (14.01, "ok"), (365, "ok")]
)
def test_a_certificate_warns_two_weeks_before_it_ends(facts: Make, left_days: float, verdict: str) -> None:
    certificate = schema.CertificateExpiry(use="host", path="/h", not_before=0.0, not_after=NOW + left_days * DAY)
    assert judge(facts(certificates=[certificate]))["certificate-host"].verdict == verdict


@pytest.mark.parametrize(
    ("changes", "verdict", "what"),
    [
        ({"error": NO_GROUP}, "ok", NO_GROUP),
        ({"members": ["hv1"], "epoch": 2}, "ok", "of epoch 2"),
        ({"members": ["hv1"], "epoch": 2, "note": "epoch 2 counts"}, "warn", "epoch 2 counts"),
        ({"members": ["hv1"], "unreachable": ["hv1"]}, "warn", "hv1 cannot be dialled"),
        ({"members": ["hv1"], "error": "it was removed"}, "fail", "it was removed"),
        ({"error": "cannot be used"}, "fail", "cannot be used"),
    ],
)
def test_the_group_is_judged_by_what_counts_and_what_is_configured(
    facts: Make, changes: dict[str, Any], verdict: str, what: str
) -> None:
    check = judge(facts(group=GroupStatus(**changes)))["pbft"]
    assert (check.verdict, what in check.what) == (verdict, True)
    assert bool(check.remedy) == (verdict != "ok")


def test_a_certificate_of_the_future_points_at_the_clock(facts: Make) -> None:
    certificate = schema.CertificateExpiry(use="host", path="/h", not_before=NOW + 1, not_after=NOW + 90 * DAY)
    check = judge(facts(certificates=[certificate]))["certificate-host"]
    assert (check.verdict, check.remedy) == ("fail", "set this host's clock")


def test_ports_of_qemu_conf_beyond_the_agents_fail(facts: Make) -> None:
    def ports(low: int | None, high: int | None) -> str:
        found = host_files.HostFiles(
            **{name: getattr(HEALTHY, name) for name in HEALTHY.__slots__} | {"port_min": low, "port_max": high}
        )
        return judge(facts(), found)["ports"].verdict

    assert ports(None, None) == ports(49152, 49215) == ports(49160, 49170) == "ok"
    assert ports(49151, None) == ports(None, 49216) == "fail"


@pytest.mark.parametrize(
    ("mark", "verdict"), [(0xD3C9, "warn"), (0x8000, "warn"), (0x10000, "warn"), (0x0100, "warn"), (0x1000, "ok")]
)
def test_a_mark_that_others_act_on_is_named(mark: int, verdict: str) -> None:
    assert judge(None, config=Config(intercept=InterceptConfig(mark=mark)))["mark"].verdict == verdict


def test_a_peer_without_an_address_to_redirect_is_named_and_the_kernel_is_not_blamed(facts: Make, peer: Make) -> None:
    unarmed = schema.RedirectStatus(
        wanted=True, armed=False, error="no peer has an IP address that is known", port_min=49152, port_max=49215
    )
    judged = judge(facts(intercept=unarmed, peers=[peer(not_redirected="hv2.example: no such name is known")]))
    assert judged["addresses-hv2"].verdict == "fail"
    assert "getent" in judged["addresses-hv2"].remedy
    assert "CAP_NET_ADMIN" not in judged["redirect"].remedy


def test_connections_of_other_services_that_run_through_the_agent_are_named(facts: Make) -> None:
    check = judge(facts(foreign=["10.0.0.2 port 49152"]))["foreign"]
    assert check.verdict == "warn"
    assert "10.0.0.2 port 49152" in check.what
    assert "foreign" not in judge(facts())


def test_without_a_mark_there_is_nothing_to_say(facts: Make) -> None:
    assert "mark" not in judge(facts())


def test_the_host_is_read_from_files(tmp_path: Path) -> None:
    hook = tmp_path / host_files.HOOK
    hook.parent.mkdir(parents=True)
    assert host_files.examine(tmp_path).hook_problem == "it is not there"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o644)
    (tmp_path / qemu_conf.QEMU_CONF).write_text("# migration_port_min = 1\n  migration_port_min = 50000\n")
    (tmp_path / host_files.CONNTRACK).mkdir(parents=True)
    (tmp_path / host_files.CONNTRACK / "nf_conntrack_count").write_text("7\n")
    found = host_files.examine(tmp_path)
    assert found.hook_problem == "it is not executable"
    assert (found.port_min, found.port_max) == (50000, None)
    assert (found.conntrack_count, found.conntrack_max) == (7, None)
    hook.chmod(0o757)
    assert host_files.examine(tmp_path).hook_problem == "everyone may write it"
    hook.chmod(0o755)
    assert host_files.examine(tmp_path).hook_problem == ""


def test_the_command_exits_1_when_a_check_fails(call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, _ = call("doctor", "--config", str(tmp_path / "none.toml"))
    assert code == 1
    assert "FAIL  configuration: cannot read" in out
    assert "        do:  " in out
    assert "ok    redirect: armed towards 1 address" in out
    quiet = call("doctor", "--quiet", "--config", str(tmp_path / "none.toml"))[1]
    assert "ok    redirect" not in quiet


def test_json_gives_every_check_all_its_fields(call: Callable[..., tuple[int, str, str]]) -> None:
    answer = json.loads(call("doctor", "--json")[1])
    assert answer["verdict"] in {"ok", "warn", "fail"}
    assert {tuple(sorted(check)) for check in answer["checks"]} == {("id", "remedy", "verdict", "what", "why")}


@pytest.mark.parametrize(("used", "verdict"), [(80, "ok"), (81, "warn")])
def test_descriptors_are_plenty_up_to_their_share(facts: Make, used: int, verdict: str) -> None:
    assert judge(facts(open_descriptors=used, open_descriptors_max=100))["descriptors"].verdict == verdict


def test_a_peer_s_name_that_leads_past_its_listed_addresses_is_named_with_the_address_to_add(
    facts: Make, peer: Make
) -> None:
    found = peer()
    known, strange = found.addresses[0], "198.51.100.7"
    assert judge(facts(peers=[found]), resolved={found.name: frozenset({known})})[f"name-{found.name}"].verdict == "ok"
    check = judge(facts(peers=[found]), resolved={found.name: frozenset({known, strange})})[f"name-{found.name}"]
    assert check.verdict == "warn"
    assert strange in check.what
    assert f"add {strange} to the addresses of {found.name}" in check.remedy


@pytest.mark.parametrize(
    ("named", "listens", "verdict"),
    [
        ("", "", "ok"),
        ("hv1-mig", "", "ok"),
        ("hv1-mig", "192.0.2.8", "ok"),
        ("192.0.2.8", "192.0.2.8", "ok"),
        ("hv1-mig", "192.0.2.9", "warn"),
        ("hv1-mig", "0.0.0.0", "ok"),  # noqa: S104 - all addresses
    ],
)
def test_where_qemu_conf_sends_migrations_must_be_where_qemu_listens(
    facts: Make, named: str, listens: str, verdict: str
) -> None:
    host = replace(HEALTHY, migration_host=named, migration_address=listens)
    check = judge(facts(), host, resolved={"hv1-mig": frozenset({"192.0.2.8"})})["migration-host"]
    assert check.verdict == verdict
    assert named in check.what


def test_settings_of_qemu_conf_are_read_as_libvirt_reads_them() -> None:
    text = '#migration_host = "old"\nmigration_host = "hv1-mig.example.net"\n  migration_address="::"\n'
    assert qemu_conf.text_setting(text, "migration_host") == "hv1-mig.example.net"
    assert qemu_conf.text_setting(text, "migration_address") == "::"
    assert qemu_conf.text_setting(text, "migration_port_min") == ""


def test_names_are_resolved_as_far_as_they_can_be() -> None:
    found = host_files.resolve_names(["localhost", "name.invalid", ""])
    assert found["localhost"] & {"127.0.0.1", "::1"}
    assert "name.invalid" not in found


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 30.0),
        ("keepalive_interval = -1\n", None),
        ("keepalive_interval = 2\nkeepalive_count = 3\n", 8.0),
        ("#keepalive_interval = -1\nkeepalive_count = 0\n", 5.0),
    ],
)
def test_libvirts_patience_is_read_from_its_files(tmp_path: Path, text: str, seconds: float | None) -> None:
    directory = tmp_path / "etc" / "libvirt"
    directory.mkdir(parents=True)
    (directory / "virtqemud.conf").write_text(text)
    assert host_files.examine(tmp_path).keepalive_s == {"virtqemud.conf": seconds}


@pytest.mark.parametrize(
    ("silent_s", "verdict", "words"),
    [
        ({"qemu.conf": 30.0, "libvirtd.conf": 30.0}, "ok", "after 30 s of silence"),
        ({"qemu.conf": None, "libvirtd.conf": None}, "ok", "link.loss_s_max (120 s)"),
        ({"qemu.conf": None, "libvirtd.conf": 30.0}, "warn", "(libvirtd.conf)"),
        ({"qemu.conf": 10.0, "libvirtd.conf": 30.0}, "warn", "after 10 s of silence (qemu.conf)"),
        ({}, "ok", "cannot be read"),
    ],
)
def test_libvirts_patience_with_a_cut_link_is_judged(
    facts: Make, silent_s: dict[str, float | None], verdict: str, words: str
) -> None:
    check = judge(facts(), replace(HEALTHY, keepalive_s=silent_s))["keepalive"]
    assert check.verdict == verdict
    assert words in check.what
    assert bool(check.remedy) == (verdict == "warn")


def fleet(**engine: Any) -> RecordFacts:
    stands: dict[str, Any] = {"engine": "raft", "state": "follower", "leader": "hv1"}
    return RecordFacts(is_shared=True, engine=EngineStatus(**(stands | engine)))


def test_a_fleet_without_a_majority_is_named_with_the_voters_that_are_away(facts: Make) -> None:
    members = [
        EngineMember(name="hv1", role="voter", connected=True),
        EngineMember(name="hv2", role="voter", connected=False),
        EngineMember(name="hv3", role="voter", connected=False),
        EngineMember(name="hv4", role="observer", connected=False),
    ]
    found = judge(facts(fleet=fleet(state="candidate", leader="", members=members)))["fleet"]
    assert found.verdict == "fail"
    assert "2 voters are not connected (hv2, hv3)" in found.what
    assert judge(facts(fleet=fleet()))["fleet"].what == "follower, led by hv1"


def test_a_replica_that_stopped_is_named_with_its_reason_also_on_a_host_by_itself(facts: Make) -> None:
    for is_shared in (True, False):
        engine = EngineStatus(engine="raft", state="stopped", error="the disk failed to sync")
        found = judge(facts(fleet=RecordFacts(is_shared=is_shared, engine=engine)))["fleet"]
        assert (found.verdict, found.what) == ("fail", "the disk failed to sync")


@pytest.mark.parametrize(("ahead_s", "verdict"), [(60.0, "ok"), (61.0, "warn"), (2.2e9, "warn")])
def test_a_fleets_time_that_is_ahead_is_named(facts: Make, ahead_s: float, verdict: str) -> None:
    assert judge(facts(fleet=fleet(time_ahead_s=ahead_s)))["fleet-time"].verdict == verdict


def test_tickets_that_nobody_settles_are_named_and_counted(facts: Make) -> None:
    stuck = [f"{token} of u" for token in range(8)]
    found = judge(facts(fleet=RecordFacts(is_shared=True, stuck_tickets=stuck)))["tickets"]
    assert (found.verdict, "4 of u and 3 more" in found.what, "tickets fail" in found.remedy) == ("warn", True, True)


MEMBERS = ["r0", "r1", "r2", "r3"]


@pytest.mark.parametrize(
    ("changes", "verdict", "what"),
    [
        ({}, "ok", "replica of epoch 2"),
        ({"connected": MEMBERS[:3]}, "ok", "replica of epoch 2"),
        ({"connected": MEMBERS[:2]}, "fail", "no quorum: 2 of 4 members are connected, it takes 3"),
        ({"epoch_heard": 3}, "fail", "others are in epoch 3"),
        ({"epoch_replica": 1}, "warn", "the replica here is in epoch 1"),
    ],
)
def test_a_group_without_a_quorum_or_in_an_epoch_behind_is_named(
    facts: Make, changes: dict[str, Any], verdict: str, what: str
) -> None:
    stands: dict[str, Any] = {
        "role": "replica",
        "members": MEMBERS,
        "connected": MEMBERS,
        "faulty_max": 1,
        "epoch": 2,
        "epoch_replica": 2,
    }
    found = judge(facts(group=GroupStatus(**(stands | changes))))["pbft"]
    assert (found.verdict, what in found.what) == (verdict, True), found


def test_ends_that_are_owed_to_the_group_are_counted(facts: Make) -> None:
    assert judge(facts(group=GroupStatus(owed=1)))["pbft-owed"].what == "1 end of migrations not told to the group"


@pytest.mark.parametrize(
    ("use", "verdict", "says"),
    [
        (schema.StoreUse(bytes_max=8 << 30, looked_at=NOW, room_bytes=8 << 30), "ok", "of 8.0 GiB held"),
        (schema.StoreUse(bytes_max=8 << 30), "ok", "of 8.0 GiB held"),
        (schema.StoreUse(bytes_max=8 << 30, looked_at=NOW, room_bytes=1 << 30), "warn", "has room for 1.0 GiB"),
        (schema.StoreUse(bytes_max=8 << 30, looked_at=NOW), "warn", "has room for 0 B"),
        (schema.StoreUse(bytes_max=9, looked_at=NOW, error="/s is open to others"), "warn", "/s is open to others"),
        (schema.StoreUse(bytes_max=9, room_bytes=9, looked_at=NOW - 1201, directory="/s"), "warn", "for 20 min"),
    ],
)
def test_a_page_store_that_is_of_less_use_than_configured_is_said(
    use: schema.StoreUse, verdict: str, says: str
) -> None:
    found = judge_store(use, NOW)
    assert (found.verdict, says in found.what) == (verdict, True), found.what


def test_a_page_store_that_is_off_is_not_judged(facts: Make) -> None:
    assert "store" not in judge(facts())


def test_doctor_without_permission_does_not_advise_to_start_the_agent(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (file := tmp_path / "agent.toml").write_text('name = "hv1"')
    monkeypatch.setattr("socket.socket.connect", refuse)
    out = call("doctor", "--config", str(file))[1]
    told = out[out.index("FAIL  agent: no permission to use") :].splitlines()[:3]
    assert told[2] == "        do:  run it as root or as a member of the group dwcp-migrate"


def test_doctor_says_what_a_missing_configuration_means(
    call: Callable[..., tuple[int, str, str]], agent: Any, tmp_path: Path
) -> None:
    gone = call("doctor", "--config", str(tmp_path / "none.toml"), "--socket", str(tmp_path / "nobody"))[1]
    told = gone[gone.index("FAIL  configuration: cannot read") :].splitlines()[:3]
    assert told[1] == "        why: the agent does not start with it"
    assert told[2].startswith("        do:  name another file")
    runs = call("doctor", "--config", str(tmp_path / "none.toml"), "--socket", str(agent.socket_path))[1]
    assert "why: the agent goes on with the configuration that it last read" in runs
