"""The alerts and the dashboard: they ask only for metrics that exist, and each alert has its entry in the runbook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.alerts import read_alerts
from tests.support.inputs.documents import anchors
from tests.support.metrics import encoded, parse, snapshot
from tests.support.project import ROOT
from tests.support.promql import names_in
from tests.support.troubles import TROUBLES

ALERTS = read_alerts()
RUNBOOK = (ROOT / "docs" / "RUNBOOK.md").read_text()
OPERATIONS = (ROOT / "docs" / "OPERATIONS.md").read_text()
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "session-relay.json").read_text())
OWN = {"up", "ALERTS"}
"""Series that Prometheus makes itself."""
EXISTING = parse(encoded(snapshot())).names


def panels() -> Iterator[dict[str, Any]]:
    """Yield the panels with queries."""
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def queries() -> dict[str, str]:
    """Return the expressions of the dashboard, by a name for messages."""
    found = {f"{panel['title']} {target['refId']}": target["expr"] for panel in panels() for target in panel["targets"]}
    found |= {annotation["name"]: annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]}
    return {name: expression.replace("$__rate_interval", "5m") for name, expression in found.items()}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_asks_for_metrics_that_exist(name: str) -> None:
    asked = names_in(ALERTS[name].expression)
    assert asked
    assert asked <= EXISTING | OWN


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_its_entry_in_the_runbook(name: str) -> None:
    page, _, anchor = ALERTS[name].runbook.partition("#")
    assert (page, anchor) == ("docs/RUNBOOK.md", name.lower())
    assert anchor in anchors(RUNBOOK)
    entry = RUNBOOK.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    for part in ("**Means**", "**Look**", "**Do**"):
        assert part in entry, part


def test_the_runbook_has_an_entry_for_each_alert_in_their_order() -> None:
    assert re.findall(r"^## (SessionRelay\w+)$", RUNBOOK, re.MULTILINE) == list(ALERTS)


def test_each_alert_has_a_test_that_causes_its_trouble() -> None:
    assert set(TROUBLES) == set(ALERTS)


def test_alerts_have_a_severity_and_a_sentence() -> None:
    assert {alert.severity for alert in ALERTS.values()} == {"critical", "warning"}
    assert [alert.name for alert in ALERTS.values() if not alert.summary.endswith(".")] == []


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed.")
def test_promtool_accepts_the_rules_and_the_names_of_the_metrics() -> None:
    rules = ["promtool", "check", "rules", str(ROOT / "deploy" / "alerts.yml")]
    done = subprocess.run(rules, capture_output=True, text=True, check=False)
    assert (done.returncode, f"{len(ALERTS)} rules found" in done.stdout) == (0, True), done.stdout + done.stderr
    metrics = ["promtool", "check", "metrics"]
    done = subprocess.run(metrics, input=encoded(snapshot()), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", queries())
def test_a_query_of_the_dashboard_asks_for_metrics_that_exist(name: str) -> None:
    asked = names_in(queries()[name])
    assert asked
    assert asked <= EXISTING | OWN


def test_the_dashboard_can_be_provisioned() -> None:
    assert DASHBOARD["uid"] == "session-relay"
    assert "id" not in DASHBOARD
    assert "__inputs" not in DASHBOARD
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    sources = {panel["datasource"]["uid"] for panel in panels()}
    sources |= {target["datasource"]["uid"] for panel in panels() for target in panel["targets"]}
    assert sources == {"${datasource}"}
    assert [variable["type"] for variable in DASHBOARD["templating"]["list"]] == ["datasource"]


def test_no_panels_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_page_lists_exactly_the_existing_metrics() -> None:
    listed = set(re.findall(r"`(session_relay_\w+)`", OPERATIONS.partition("### Counters")[2]))
    families = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in EXISTING}
    assert listed == families
