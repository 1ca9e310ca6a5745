"""The format of logs, and data that they must not contain."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from models.process.log_setup import MAX_REFUSED_LINES, AccessLog, configure_logging
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
            logger.warning("the last")
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
        AccessLog().write("1", "GET", "/", "1.1", 200)
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


def test_queries_stay_out_of_the_access_log(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        configure_logging(Settings())
    arguments = ("127.0.0.1:1", "GET", "/v1/search?q=secret", "1.1", 200)
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *arguments)
    written = capsys.readouterr().err
    assert '"GET /v1/search HTTP/1.1" 200' in written
    assert "secret" not in written


def test_only_some_requests_over_a_limit_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings())
    access = logging.getLogger("uvicorn.access")

    def log(second: int, status: int) -> None:
        arguments = ("127.0.0.1:1", "POST", "/v1/webhook", "1.1", status)
        record = access.makeRecord(access.name, logging.INFO, "", 0, '%s - "%s %s HTTP/%s" %d', arguments, None)
        record.created = float(second)
        access.handle(record)

    for status in (429, 202):
        for _ in range(30):
            log(1, status)
    log(2, 429)
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.endswith('" 429') for line in lines) == MAX_REFUSED_LINES + 1
    assert sum(line.endswith('" 202') for line in lines) == 30


def test_the_relays_lines_are_uvicorns(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings())
    for path, status in (
        ("/v1/webhook", 202),
        ("/v1/hooks/srh_0123", 404),
        ("/ö" + "x" * 300, 404),
        ("/v1/webhook", 429),
    ):
        AccessLog().write("127.0.0.1:1", "POST", path, "1.1", status)
        arguments = ("127.0.0.1:1", "POST", quote(path), "1.1", status)
        logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *arguments)
    lines = [line.partition(" ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines[::2] == lines[1::2]
    assert [line.rpartition(" ")[2] for line in lines[::2]] == ["202", "404", "404", "429"]
    assert "srh_" not in "".join(lines)


def test_a_line_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_level="WARNING"))
    AccessLog().write("127.0.0.1:1", "POST", "/v1/webhook", "1.1", 202)
    assert capsys.readouterr().err == ""


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
