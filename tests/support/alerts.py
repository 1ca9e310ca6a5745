"""The alerts in deploy/alerts.yml."""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml

from tests.support.project import ROOT


class Alert(NamedTuple):
    """An alert: its name, its condition, and its entry in the runbook."""

    name: str
    expression: str
    severity: str
    summary: str
    runbook: str


def read_alerts() -> dict[str, Alert]:
    """Return all alerts by their names."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())
    rules = [rule for group in document["groups"] for rule in group["rules"]]
    alerts = [
        Alert(
            rule["alert"],
            rule["expr"],
            rule["labels"]["severity"],
            rule["annotations"]["summary"],
            rule["annotations"]["runbook"],
        )
        for rule in rules
    ]
    assert len({alert.name for alert in alerts}) == len(alerts)
    return {alert.name: alert for alert in alerts}
