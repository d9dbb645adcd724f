"""Alerts, recording rules and the dashboard, judged by promtool and by the table of metrics."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dwcp_migrate.agent.http.metric_table import TABLE

REPOSITORY = Path(__file__).parents[2]
PROMTOOL = str(Path(sys.executable).with_name("promtool"))
MONITORING = REPOSITORY / "monitoring"
RULES = [MONITORING / "alerts.yml", MONITORING / "recording.yml"]
SUFFIXES = {"summary": ("_sum", "_count"), "histogram": ("_sum", "_count", "_bucket")}


def exported() -> set[str]:
    return {
        name
        for family in TABLE.values()
        for name in [family.name + suffix for suffix in SUFFIXES.get(family.kind, ("",))]
    }


def recorded() -> set[str]:
    return set(re.findall(r"- record: (\S+)", (MONITORING / "recording.yml").read_text()))


def unknown_names(text: str) -> set[str]:
    named = re.findall(r"(?:[a-z]+:)?\bdwcp_migrate_[a-z_]+(?::[a-z0-9]+)?", text)
    return set(named) - exported() - recorded()


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    return found


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def panels() -> list[dict[str, Any]]:
    """Those that show something; rows are headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False, timeout=200)


def test_promtool_accepts_the_rules() -> None:
    done = promtool("check", "rules", *map(str, RULES))
    assert done.returncode == 0, done.stderr


def test_the_alerts_fire_and_stay_quiet_as_their_tests_say() -> None:
    done = promtool("test", "rules", str(MONITORING / "alerts_test.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_and_has_its_section_in_the_operations_page() -> None:
    alerts = re.findall(r"- alert: (\w+)", RULES[0].read_text())
    tested = re.findall(r"alertname: (\w+)", (MONITORING / "alerts_test.yml").read_text())
    page = (REPOSITORY / "docs/operations.md").read_text()
    assert sorted(alerts) == sorted(tested)
    assert not [alert for alert in alerts if f"### {alert}\n" not in page]
    runbooks = re.findall(r"runbook_url: file:///usr/share/doc/dwcp-migrate/operations.md#(\w+)", RULES[0].read_text())
    assert runbooks == [alert.lower() for alert in alerts]


@pytest.mark.parametrize("path", RULES, ids=lambda path: str(path.name))
def test_rules_ask_only_for_metrics_that_exist(path: Path) -> None:
    expressions = "\n".join(re.findall(r"expr: (.*)", path.read_text()))
    assert expressions
    assert not unknown_names(expressions)


def test_the_check_itself_finds_an_unknown_name() -> None:
    assert unknown_names("rate(dwcp_migrate_raw_bytes_totals[5m])") == {"dwcp_migrate_raw_bytes_totals"}


def test_the_dashboard_asks_only_for_metrics_that_exist() -> None:
    assert len(expressions()) >= len(panels())
    assert not unknown_names("\n".join(expressions()))


def test_promtool_parses_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"dashboard:expression:{number}", "expr": expr.replace("$instance", ".*").replace("$__range", "1h")}
        for number, expr in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_have_their_own_ids_and_places() -> None:
    everything = dashboard()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    cells = [
        (column, row)
        for panel in everything
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for row in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) == 23


def test_the_dashboard_takes_its_datasource_from_a_variable() -> None:
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}


UNITS = {"none", "s", "bytes", "Bps", "pps", "reqps", "percentunit"}
"""Of Grafana's names of units, those that are used here."""


def test_the_dashboard_is_what_grafanas_schema_demands() -> None:
    found = dashboard()
    assert found["schemaVersion"] >= 39
    assert {"title", "uid", "time", "timezone", "templating", "panels", "refresh"} <= found.keys()
    for panel in panels():
        assert {"id", "type", "title", "gridPos", "datasource", "targets", "fieldConfig", "options"} <= panel.keys()
        assert panel["type"] in {"stat", "table", "timeseries"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert all(isinstance(override["properties"], list) for override in panel["fieldConfig"]["overrides"])
    for row in (panel for panel in found["panels"] if panel["type"] == "row"):
        assert row["gridPos"]["w"] == 24
        assert row["panels"] == []  # what an open row holds stands behind it


def test_every_panel_has_a_description_and_a_unit_and_every_number_its_thresholds() -> None:
    for panel in panels():
        assert panel.get("description"), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        if panel["type"] == "stat":
            steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
            assert steps[0]["value"] is None, panel["title"]
            assert len(steps) > 1, panel["title"]


def test_values_of_the_table_have_names_and_units() -> None:
    (table,) = [panel for panel in panels() if panel["type"] == "table"]
    named = {override["matcher"]["options"] for override in table["fieldConfig"]["overrides"]}
    assert named == {f"Value #{target['refId']}" for target in table["targets"]}
