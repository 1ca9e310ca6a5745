"""Logs in files, which are rotated while processes write to them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local.stack.log_rotation import KEPT, LogRotation, rotate
from tests.support.processes.stack import wait_for
from tests.support.project import ROOT

WRITER = """
import logging, sys, time
from models.process.log_setup import configure_logging
from models.settings import read_settings

configure_logging(read_settings())
number = 0
ends_at = time.monotonic() + 2.5
while time.monotonic() < ends_at:
    number += 1
    logging.getLogger(sys.argv[1]).info("Line %d", number)
    time.sleep(0.001)
print(sys.argv[1], "ends at", number, flush=True)
"""
"""A program that logs numbers for a while, and then prints the last one."""


def test_no_line_is_lost_while_two_processes_write_to_a_log_that_is_rotated(tmp_path: Path) -> None:
    log = tmp_path / "writer.log"
    names = ("one", "two")
    environment = {**os.environ, "LOG_FILE": str(log)}
    command = [sys.executable, "-c", WRITER]
    writers = [subprocess.Popen([*command, name], cwd=ROOT, env=environment) for name in names]
    rotation = LogRotation(tmp_path, largest_bytes=1_000)

    def have_ended() -> bool:
        rotation.tend()
        return all(writer.poll() is not None for writer in writers)

    wait_for(have_ended, what="written")
    files = sorted(tmp_path.glob("writer.log*"), reverse=True)
    assert 2 <= len(files) <= KEPT + 1
    lines = [line for file in files for line in file.read_text().splitlines()]
    for name in names:
        numbers = [int(line.rpartition(" ")[2]) for line in lines if f" {name}: Line " in line]
        assert numbers == list(range(1, numbers[-1] + 1))
        assert f"{name} ends at {numbers[-1]}" in lines


def test_all_output_goes_to_the_log_file(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = WRITER.replace("2.5", "0") + "raise ValueError('uncaught')"
    environment = {**os.environ, "LOG_FILE": str(log)}
    command = [sys.executable, "-c", program, "one"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
    assert "one ends at 0" in log.read_text()
    assert log.read_text().endswith("ValueError: uncaught\n")


def test_a_log_file_that_cannot_be_opened_stops_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "LOG_FILE": str(tmp_path / "no folder" / "log")}
    command = [sys.executable, "-c", WRITER.replace("2.5", "0.1"), "one"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    assert b" one: Line 1\n" in done.stderr


@pytest.mark.parametrize("name", ["relay.log", "postgres.log"])
def test_the_newest_logs_are_kept(tmp_path: Path, name: str) -> None:
    log = tmp_path / name
    for number in range(KEPT + 3):
        log.write_text(str(number))
        rotate(log)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir() if path.stat().st_size}
    assert kept == {f"{name}.{age}": str(KEPT + 3 - age) for age in range(1, KEPT + 1)}


def test_a_log_that_its_process_keeps_open_is_emptied(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    with log.open("ab", buffering=0) as process:
        process.write(b"before\n")
        rotate(log)
        process.write(b"after\n")
    assert log.read_text() == "after\n"
    assert (tmp_path / "postgres.log.1").read_text() == "before\n"


def test_a_small_log_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "relay.log").write_text("small")
    LogRotation(tmp_path).tend()
    assert [path.name for path in tmp_path.iterdir()] == ["relay.log"]
