import contextlib
import http.server
import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dwcp_migrate.agent.http.metric_table import TABLE, as_markdown
from dwcp_migrate.agent.http.metrics import CONTENT_TYPE, RESULTS, ROLES, STATES, render
from dwcp_migrate.api import schema
from dwcp_migrate.api.cluster import GroupStatus
from dwcp_migrate.api.usage import FilledShare, StoreUse
from dwcp_migrate.state.engine_status import EngineStatus

Make = Callable[..., Any]
REPOSITORY = Path(__file__).parents[3]
PROMTOOL = str(Path(sys.executable).with_name("promtool"))
PROMETHEUS = str(Path(sys.executable).with_name("prometheus"))


STARTING = 503

Key = tuple[str, frozenset[tuple[str, str]]]


def samples(text: bytes) -> dict[Key, float]:
    families = list(text_string_to_metric_families(text.decode()))
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def key(short: str, **labels: str) -> Key:
    return f"dwcp_migrate_{short}", frozenset(labels.items())


def test_every_family_of_the_table_appears_even_before_anything_happened(status: Make) -> None:
    text = render(status(migrations=[], certificates=[])).decode()
    for name, family in TABLE.items():
        assert f"# HELP {name} " in text
        assert f"# TYPE {name} {family.kind}\n" in text


def test_counters_with_known_labels_start_at_zero(status: Make) -> None:
    found = samples(render(status()))
    assert found[key("migrations_total", role="source", result="failed")] == 0
    assert found[key("raw_bytes_total", role="destination")] == 0


def test_numbers_are_those_of_the_status_in_base_units(status: Make) -> None:
    found = samples(render(status()))
    assert found[key("migrations_total", role="source", result="completed")] == 3
    assert found[key("pages_total", role="source", kind="delta")] == 9
    assert found[key("rejected_total", listener="link", reason="preamble")] == 4
    assert found[key("downtime_seconds_sum", role="source")] == 0.36
    assert found[key("downtime_seconds_count", role="source")] == 3
    assert found[key("duration_seconds_count", role="destination")] == 1
    assert found[key("redirected_connections_total", peer="hv2")] == 15
    assert found[key("state", state="running")] == 1
    assert found[key("state", state="draining")] == 0
    assert found[key("in_progress", role="source", state="precopy")] == 1


def test_forecasts_grants_and_scores_are_exported(status: Make, migration: Make) -> None:
    held = migration(eta_range_s=(9.0, 15.0), granted_bytes_per_s=7.0)
    link = schema.LinkForecast(peer="hv2", next_minute=(1.0, 2.0, 3.0))
    totals = schema.Totals(predictions={"inside": 3, "outside": 1}, prediction_error=0.4)
    found = samples(render(status(migrations=[held], links=[link], totals=totals)))
    assert found[key("link_forecast_bytes_per_second", peer="hv2", statistic="p10")] == 1
    assert found[key("predictions_total", interval="inside")] == 3
    assert found[key("prediction_error_ratio_sum")] == 0.4
    assert found[key("prediction_error_ratio_count")] == 4
    values = {name: value for (name, _), value in found.items()}
    assert values["dwcp_migrate_migration_eta_low_seconds"] == 9
    assert values["dwcp_migrate_migration_eta_high_seconds"] == 15
    assert values["dwcp_migrate_migration_granted_bytes_per_second"] == 7


def test_the_page_store_is_exported_where_it_is_on_and_was_looked_at(status: Make) -> None:
    use = StoreUse(
        bytes_max=900, looked_at=5.0, room_bytes=700, oldest_use_at=3.0, evicted_pages=12,
        fills={"sent": FilledShare(pages=4, held_bytes=80)},
    )  # fmt: skip
    found = samples(render(status(store=use)))
    assert found[key("store_usable")] == 1
    assert (found[key("store_bytes_max")], found[key("store_room_bytes")]) == (900, 700)
    assert (found[key("store_held_bytes", fill="sent")], found[key("store_held_bytes", fill="image")]) == (80, 0)
    assert found[key("store_pages", fill="sent")] == 4
    assert (found[key("store_oldest_use_timestamp_seconds")], found[key("store_evicted_pages_total")]) == (3, 12)
    assert samples(render(status(store=msgspec.structs.replace(use, error="EROFS"))))[key("store_usable")] == 0
    for silent in (StoreUse(), StoreUse(bytes_max=900)):
        assert not [name for name, _ in samples(render(status(store=silent))) if "_store_" in name]


def test_the_group_is_exported(status: Make) -> None:
    group = GroupStatus(
        role="replica", connected=["hv1", "hv2"], epoch=2, view=3, sequence=90, view_changes=2,
        batches=10, batched_requests=45, decisions=7, decisions_failed=1, decision_ms_p50=2.0, decision_ms_max=9.0,
        owed=4,
    )  # fmt: skip
    found = samples(render(status(group=group)))
    assert found[key("pbft_role", role="replica")] == 1
    assert found[key("pbft_role", role="none")] == 0
    assert found[key("pbft_connected_members")] == 2
    assert found[key("pbft_epoch")] == 2
    assert found[key("pbft_view")] == 3
    assert found[key("pbft_executed_sequence")] == 90
    assert found[key("pbft_view_changes_total")] == 2
    assert found[key("pbft_batch_requests_sum")] == 45
    assert found[key("pbft_batch_requests_count")] == 10
    assert found[key("pbft_owed")] == 4
    assert found[key("pbft_decisions_total", result="decided")] == 7
    assert found[key("pbft_decisions_total", result="failed")] == 1
    assert found[key("pbft_decision_seconds", statistic="p50")] == 0.002
    assert found[key("pbft_decision_seconds", statistic="max")] == 0.009
    assert not [name for name, _ in samples(render(status())) if name == "dwcp_migrate_pbft_decision_seconds"]


def test_a_domain_name_with_quotes_and_backslashes_survives(status: Make) -> None:
    labels = {key: value for (name, pairs) in samples(render(status())) for key, value in pairs}
    assert labels["domain"] == 'web "1"\\'


def test_gauges_of_a_migration_vanish_with_it(status: Make) -> None:
    assert b"web" in render(status())
    assert b"web" not in render(status(migrations=[]))


def test_what_is_unknown_has_no_sample(status: Make, migration: Make) -> None:
    unknown = migration(remaining_bytes=-1, dirty_bytes_per_s=-1.0, eta_s=-1.0, memory_bytes=0)
    names = {name for name, _ in samples(render(status(migrations=[unknown])))}
    assert not names & {
        f"dwcp_migrate_migration_{what}"
        for what in ("remaining_bytes", "dirty_bytes_per_second", "eta_seconds", "memory_bytes")
    }
    assert "dwcp_migrate_migration_raw_bytes" in names


def test_two_migrations_of_one_domain_are_two_series(status: Make, migration: Make) -> None:
    both = [migration(), migration(id="ab" * 16, kind="disk")]
    found = samples(render(status(migrations=both)))
    assert len([name for name, _ in found if name == "dwcp_migrate_migration_channels"]) == 2
    assert found[key("in_progress", role="source", state="precopy")] == 2


def test_only_gauges_of_a_migration_name_a_domain() -> None:
    for family in TABLE.values():
        named = {"domain", "migration"} & set(family.labels)
        assert not named or (family.kind == "gauge" and family.name.startswith("dwcp_migrate_migration_"))


def test_names_follow_the_conventions() -> None:
    for family in TABLE.values():
        assert re.fullmatch(r"dwcp_migrate_[a-z_]+", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert family.help.endswith((".", "..."))


def test_results_and_states_are_those_of_the_record_and_of_the_agent() -> None:
    assert set(STATES) == set(get_args(schema.AgentState))
    assert set(RESULTS) == set(get_args(schema.Result)) - {""}
    assert set(ROLES) == set(get_args(schema.Role))


def test_promtool_finds_nothing_to_complain_about(status: Make) -> None:
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=render(status()), capture_output=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_operations_page_carries_the_table() -> None:
    page = (REPOSITORY / "docs/operations.md").read_text()
    assert as_markdown() in page, "put the output of agent.http.metric_table.as_markdown() into docs/operations.md"


def test_a_real_prometheus_scrapes_it(status: Make, tmp_path: Path) -> None:
    answer = render(status())
    scraped = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.end_headers()
            self.wfile.write(answer)
            scraped.set()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as exporter:
        thread = threading.Thread(target=exporter.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            found = scrape_with_prometheus(tmp_path, exporter.server_port, scraped)
        finally:
            exporter.shutdown()
            thread.join()
    assert found == "15"


def test_every_expression_of_the_dashboard_answers_over_what_an_agent_exports(status: Make, tmp_path: Path) -> None:
    """A real Prometheus evaluates them, recording rules included, over metrics that grow from scrape to scrape."""
    dashboard = json.loads((REPOSITORY / "monitoring/dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    count = 0

    def growing() -> bytes:
        nonlocal count
        count += 1
        return render(moved(status, count), process=True)

    with exporter_of(growing) as port, prometheus(tmp_path, port) as answers:
        assert len(expressions) > 25
        empty = {expr: answers(expr.replace("$instance", ".*").replace("$__range", "1h")) for expr in expressions}
    assert [expr for expr, result in empty.items() if not result] == []


def moved(status: Make, count: int) -> schema.AgentStatus:
    """A busy agent, later and later."""
    grown = count * 1000
    totals = schema.Totals(
        migrations={"source completed": count, "source failed": count},
        accelerated={"source": count},
        passthrough={"unreachable": count},
        raw_bytes={"source": 10 * grown},
        wire_bytes={"source": grown},
        pages={"source zero": grown},
        held_up_s={"link": float(count)},
        duration_s={"source": 2.0 * count},
        downtime_ms={"source": 100 * count},
        downtime_count={"source": count},
        predictions={"inside": count, "outside": count},
        prediction_error=0.1 * count,
        buckets={
            "duration_seconds source 2": count,
            "downtime_seconds source 0.1": count,
            "prediction_error_ratio 0.1": count,
        },
    )
    busy = status().migrations[0]
    found: schema.AgentStatus = status(
        totals=totals,
        migrations=[msgspec.structs.replace(busy, granted_bytes_per_s=1e6, eta_range_s=(1.0, 2.0))],
        peers_up={"hv2": False},
        links=[schema.LinkForecast(peer="hv2", next_minute=(1.0, 2.0, 3.0))],
        coordination=EngineStatus(engine="raft", state="leader", leader="hv1", commit_ms_p50=1.0, commit_ms_p99=2.0),
    )
    return found


@contextlib.contextmanager
def exporter_of(answer: Callable[[], bytes]) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.end_headers()
            self.wfile.write(answer())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as exporter:
        thread = threading.Thread(target=exporter.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield exporter.server_port
        exporter.shutdown()
        thread.join()


@contextlib.contextmanager
def prometheus(tmp_path: Path, exporter_port: int) -> Iterator[Callable[[str], list[Any]]]:
    """A Prometheus with our rules; gives a function that asks it until something is answered, for 30 s in all."""
    port, deadline = free_port(), time.monotonic() + 60
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(REPOSITORY / "monitoring/recording.yml")],
        "scrape_configs": [
            {"job_name": "dwcp-migrate", "static_configs": [{"targets": [f"127.0.0.1:{exporter_port}"]}]}
        ],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    command = [PROMETHEUS, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]

    def answers(expr: str) -> list[Any]:
        url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
        while True:
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    result: list[Any] = json.load(answer)["data"]["result"]
            except urllib.error.HTTPError as error:
                if error.code != STARTING:
                    raise AssertionError(f"{expr}: {error.read().decode()}") from error
                result = []
            except OSError:
                result = []  # it is still starting
            if result or time.monotonic() > deadline:
                return result
            time.sleep(0.5)  # its API has nothing to wait on

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            yield answers
        finally:
            process.terminate()
            process.wait(timeout=30)


def scrape_with_prometheus(tmp_path: Path, exporter_port: int, scraped: threading.Event) -> str:
    """Run Prometheus on a port of the kernel's choice; return the value of one series as it stored it."""
    port = free_port()
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "400ms"},
        "rule_files": [str(REPOSITORY / "monitoring/alerts.yml"), str(REPOSITORY / "monitoring/recording.yml")],
        "scrape_configs": [
            {"job_name": "dwcp-migrate", "static_configs": [{"targets": [f"127.0.0.1:{exporter_port}"]}]}
        ],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    command = [PROMETHEUS, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            assert scraped.wait(30), (tmp_path / "log").read_text()
            return stored(port)
        finally:
            process.terminate()
            process.wait(timeout=30)


def stored(port: int) -> str:
    url = f"http://127.0.0.1:{port}/api/v1/query?query=dwcp_migrate_redirected_connections_total"
    deadline = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(url, timeout=5) as answer:
            result = json.load(answer)["data"]["result"]
        if result:
            value: str = result[0]["value"][1]
            return value
        assert time.monotonic() < deadline
        time.sleep(0.05)  # Prometheus appends a scrape when it has parsed it; its API has nothing to wait on


def free_port() -> int:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as probe:
        return probe.server_port


@pytest.mark.parametrize("count", [1, 32, 256])
def test_the_answer_grows_with_running_migrations_only(status: Make, migration: Make, count: int) -> None:
    many = [migration(id=f"{number:032x}"[::-1]) for number in range(count)]
    assert len(render(status(migrations=many))) < 24_000 + 2500 * count


def test_sizes_are_counted_in_buckets_that_add_up(status: Make) -> None:
    totals = schema.Totals(
        migrations={"source completed": 4},
        duration_s={"source": 9999.0},
        buckets={"duration_seconds source 2": 2, "duration_seconds source 60": 1},
    )
    found = samples(render(status(totals=totals)))
    counts = [found[key("duration_seconds_bucket", role="source", le=le)] for le in ("1", "2", "30", "60", "+Inf")]
    assert counts == [0, 2, 2, 3, 4]
    assert found[key("duration_seconds_count", role="source")] == 4


def test_promtool_finds_nothing_to_complain_about_in_a_busy_agent(status: Make) -> None:
    text = render(moved(status, 3), process=True)
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
