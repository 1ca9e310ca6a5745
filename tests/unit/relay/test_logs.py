"""The format of logs, and data that they must not contain."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from models.process import log_repetition
from models.process.log_lines import MESSAGE_LENGTH, Fields, LineLog
from models.process.log_setup import configure_logging, write_counts, write_last_lines
from models.settings import Settings
from tests.support.project import ROOT


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


def test_json_has_one_object_a_line_that_contains_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("relay.test").exception("It broke: %d", 7)
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert (record["level"], record["logger"], record["message"]) == ("ERROR", "relay.test", "It broke: 7")
    assert record["time"].endswith("Z")
    assert "ValueError: broken" in record["exc_info"]


def test_a_pipe_that_nobody_reads_stops_nothing_and_later_tells_how_many_lines_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing = os.pipe()
    number = 30_000
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        configure_logging(Settings())
        logger = logging.getLogger("relay.test")

        def log() -> None:
            for line in range(number):
                logger.info("Line %d %s", line, "–" * 20)

        thread = threading.Thread(target=log, daemon=True)
        thread.start()
        thread.join(20)
        is_stuck = thread.is_alive()
        os.set_blocking(pipe.fileno(), False)
        received = b""
        while thread.is_alive():
            received += pipe.read() or b""
        while b"the last" not in received:
            received += pipe.read() or b""
            logger.info("the last")
    assert not is_stuck
    lines = received.decode().splitlines()
    kept = [int(found[1]) for line in lines if (found := re.search(r"Line (\d+) –{20}$", line))]
    assert kept == list(range(len(kept)))
    assert f"{number - len(kept):,} log lines are missing" in next(line for line in lines if "missing" in line)


def test_a_pipe_that_was_closed_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        os.close(reading)
        monkeypatch.setattr(sys, "stderr", stream)
        configure_logging(Settings())
        LineLog("relay.access").write([Fields(message="unheard")])
        logging.getLogger("relay.test").warning("unheard")


TURNS = """
import asyncio, logging
from models.process.log_setup import configure_logging
from models.settings import Settings

async def log():
    for turn in range(50):
        for line in range(100):
            logging.getLogger().info("begin %s end", "x" * 40)
        await asyncio.sleep(0)

configure_logging(Settings())
asyncio.run(log())
"""
"""A program that logs a hundred lines in each turn of its event loop."""


def test_lines_of_processes_that_share_a_pipe_stay_whole() -> None:
    reading, writing = os.pipe()
    command = [sys.executable, "-c", TURNS]
    writers = [subprocess.Popen(command, cwd=ROOT, stderr=writing) for _ in range(2)]
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = pipe.read().decode().splitlines()
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(lines) > 1_000
    assert {line.partition(" root: ")[2] for line in lines} == {f"begin {'x' * 40} end"}


def test_the_console_has_a_readable_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_level="WARNING"))
    logging.getLogger("relay.test").info("unimportant")
    logging.getLogger("relay.test").warning("Mind the gap.")
    (line,) = capsys.readouterr().err.splitlines()
    assert "Z WARNING relay.test: Mind the gap." in line


def test_lines_of_one_turn_are_written_together_and_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings())
    logger, written = logging.getLogger("relay.test"), []

    def read() -> list[str]:
        return [line[-1] for line in capsys.readouterr().err.splitlines()]

    async def log() -> None:
        logger.info("1")
        logger.info("2")
        written.append(read())
        await asyncio.sleep(0)
        written.append(read())
        logger.info("3")
        logger.warning("4")
        written.append(read())
        logger.info("5")
        thread = threading.Thread(target=logger.info, args=["6"])
        thread.start()
        thread.join()
        await asyncio.sleep(0)
        written.append(read())
        logger.info("7")

    asyncio.run(log())
    assert [*written, read()] == [[], ["1", "2"], ["3", "4"], ["5", "6"], ["7"]]


HOSTILE = "a\nb\r\x1b[31m\x85\u2028\ud800\u202e" + "x" * 10_000
"""A text that would be many lines, or change those before it."""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_hostile_texts_stay_on_one_line_and_short(
    capsys: pytest.CaptureFixture[str], log_format: Literal["console", "json"]
) -> None:
    configure_logging(Settings(log_format=log_format))
    logging.getLogger("relay.test").error("%s", HOSTILE)
    hostile = HOSTILE.replace("\ud800", "")
    LineLog("relay.test").write([Fields(message="m", delivery_id=hostile, source=hostile, duration_ms=1.5)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert len(line) < 2 * MESSAGE_LENGTH
        assert line.isprintable() or log_format == "json"
        assert "\x1b" not in line
        if log_format == "json":
            assert json.loads(line)["logger"] == "relay.test"


def test_a_line_for_people_quotes_names_that_could_be_taken_for_other_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(Settings())
    LineLog("relay.test").write([Fields(message="m", outcome="applied", source='a outcome="refused"')])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(' relay.test: m outcome=applied source="a outcome=\\"refused\\""')


def test_extra_values_are_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))
    logging.getLogger("relay.test").warning("Mind the gap.", extra={"webhooks": 3})
    record = json.loads(capsys.readouterr().err)
    assert (record["message"], record["webhooks"]) == ("Mind the gap.", 3)


def test_a_full_disk_stops_nothing_and_lines_are_written_when_there_is_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "log"
    with file.open("a", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        configure_logging(Settings())
        logger = logging.getLogger("relay.test")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            for number in range(5):
                logger.info("Line %d", number)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
        assert file.stat().st_size == 100
        logger.info("Line 5")
    assert [line.rpartition(" ")[2] for line in file.read_text().splitlines()] == list("012345")


# Repetition


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(log_repetition, "time", clock)
    return clock


class Clock:
    """Stands still until it is set."""

    now = 1_000.0

    def monotonic(self) -> float:
        return self.now


def test_a_repeated_warning_is_written_once_and_then_counted(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    configure_logging(Settings(log_format="json"))
    logger = logging.getLogger("relay.test")

    def fail(times: int) -> list[dict[str, Any]]:
        for _ in range(times):
            logger.warning("Redis does not answer (%s).", "ConnectionError")
        return [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    (first,) = fail(313)
    assert first["message"] == "Redis does not answer (ConnectionError)."
    clock.now += 60
    (counted,) = fail(1)
    expected = "Redis does not answer (ConnectionError). This happened 312 more times in 60 s."
    assert (counted["message"], counted["level"]) == (expected, "WARNING")
    assert (counted["repeated"], counted["seconds"]) == (312, 60)
    clock.now += 30
    assert fail(1) == []
    clock.now += 30
    write_counts()
    (counted,) = fail(0)
    assert counted["repeated"] == 2
    clock.now += 60
    write_counts()
    clock.now += 60
    (again,) = fail(1)
    assert again["message"] == "Redis does not answer (ConnectionError)."


def test_counted_warnings_are_written_when_the_process_ends(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    configure_logging(Settings())
    for _ in range(2):
        logging.getLogger("relay.test").error("It broke.")
    clock.now += 7
    write_last_lines()
    _, last = capsys.readouterr().err.splitlines()
    assert last.endswith(" ERROR   relay.test: It broke. This happened once more in 7 s.")


def test_of_many_different_warnings_from_one_place_few_are_written(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    configure_logging(Settings())
    for number in range(1_000):
        logging.getLogger("relay.test").error("Delivery %d is a dead letter.", number)
        logging.getLogger("relay.test").info("Line %d", number)
    lines = capsys.readouterr().err.splitlines()
    assert sum("dead letter" in line for line in lines) == log_repetition.PER_GROUP
    assert sum("Line" in line for line in lines) == 1_000
    clock.now += 60
    write_counts()
    (counted,) = capsys.readouterr().err.splitlines()
    assert counted.endswith("Delivery 999 is a dead letter. This happened 990 more times in 60 s.")


def test_a_cause_in_different_words_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings())
    for shard in range(5):
        logging.getLogger("relay.test").warning("Shard %d waits.", shard, extra={log_repetition.TROUBLE: "no Postgres"})
    assert len(capsys.readouterr().err.splitlines()) == 1
