"""The command that measures the product, run briefly. Its figures are not checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.project import ROOT


def test_a_short_measurement_applies_what_it_sends_and_reports_its_figures(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--rounds", "1", "--seconds", "1", "--only", "end-to-end"]
    done = subprocess.run(
        [*command, "--output", tmp_path / "short"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accepted p99 at 70 %" in done.stdout
    (row,) = json.loads((tmp_path / "short.json").read_text())["rows"]
    assert row["rounds"] == 1
    assert row["per_second"] > 0
    assert row["cpu_ms"].keys() == {"relay", "worker", "postgres", "valkey"}
    assert 0 < row["milliseconds"]["accepted p50"] <= row["milliseconds"]["accepted p99"]
