"""The command that measures the product, run briefly, in processes that are forked. Its figures are not checked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.__main__ import main
from bench.speed import stack
from models.process.supervision import Child
from tests.support.processes.fork_server import ForkedRoom
from tests.support.servers import start_migrated_postgres


class OnOneCore(ForkedRoom):
    """A forked process that shares the core of the measurement, since it loads all that it gets."""

    def __init__(self, child: Child) -> None:
        super().__init__(child)
        psutil.Process(self.pid).cpu_affinity(list(os.sched_getaffinity(0)))


@pytest.fixture
def _briefly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Prepared data, no model, and forked processes. The test's own process gets all cores back."""
    monkeypatch.setenv("EMBEDDINGS", "off")
    monkeypatch.setattr(stack, "start_postgres", start_migrated_postgres)
    monkeypatch.setattr(stack, "ChildProcess", OnOneCore)
    cores = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, cores)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Cores can be chosen on Linux only.")
@pytest.mark.usefixtures("_briefly")
def test_a_short_measurement_applies_what_it_sends_and_reports_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--rounds", "1", "--seconds", "1", "--only", "end-to-end", "--cores", "1")
    code = main([*options, "--output", str(tmp_path / "short")])
    shown = capsys.readouterr()
    assert code == 0, shown.out + shown.err
    assert "accepted p99 at 70 %" in shown.out
    (row,) = json.loads((tmp_path / "short.json").read_text())["rows"]
    assert row["rounds"] == 1
    assert row["per_second"] > 0
    assert row["cpu_ms"].keys() == {"relay", "worker", "postgres", "valkey"}
    assert 0 < row["milliseconds"]["accepted p50"] <= row["milliseconds"]["accepted p99"]
