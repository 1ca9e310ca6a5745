"""A runner whose relay responds oddly, once to every call about every task: it goes on, logs it, and loses no task."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent import runner
from agent.execution import task_execution
from agent.execution.placeholders import Template
from agent.execution.task_execution import Job, RunnerEvent
from agent.http import claims_client, client
from agent.http.client import Client
from agent.runner import ClaimOptions, Runner

KEY = "srk_unmistakable"
LIMIT_SECONDS = 60.0
JSON = "Content-Type: application/json\r\n"


def answer(status: str, body: bytes | str = b"", headers: str = JSON) -> bytes:
    content = body if isinstance(body, bytes) else body.encode()
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(content)}\r\n\r\n".encode() + content


def error(status: str, code: str, **more: Any) -> bytes:
    return answer(status, json.dumps({"error": {"code": code, "message": "Odd.", **more}}))


ODD: dict[str, bytes] = {
    "nothing": b"",
    "no HTTP": b"\x00\xff\x16\x03\x01 nonsense\r\n\r\n",
    "a bad status line": b"HTTP/1.1 abc OK\r\n\r\n",
    "a status beyond all": answer("999 Odd", "{}"),
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Ty",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b'{"claim_token": "t',
    "a body that goes on": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + b" " * 0x10000,
    "no chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length below zero": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}",
    "a header of 100 kB": answer("200 OK", "{}", f"X-Odd: {'x' * 100_000}\r\n"),
    "200 headers": answer("200 OK", "{}", "".join(f"X-{number}: x\r\n" for number in range(200))),
    "HTML": answer("200 OK", "<html>Log in first</html>", "Content-Type: text/html\r\n"),
    "an empty body": answer("200 OK"),
    "a list": answer("200 OK", "[]"),
    "null": answer("200 OK", "null"),
    "a number": answer("200 OK", "1" * 5_000),
    "an empty object": answer("200 OK", "{}"),
    "other types": answer(
        "200 OK", '{"claim_token": 5, "task_id": [], "data": [], "cancelled": "no", "status": null, "attempt": "1"}'
    ),
    "huge numbers": answer("200 OK", f'{{"claim_token": 1e400, "attempt": {"9" * 400}, "cancelled": 1, "data": 1}}'),
    "data of another shape": answer("200 OK", '{"data": {"status": 5}, "cancelled": 0}'),
    "half a character": answer("200 OK", '{"claim_token": "\\ud800"}'),
    "no UTF-8": answer("200 OK", b'{"claim_token": "\xff"}'),
    "a deep list": answer("200 OK", "[" * 100_000),
    "a deep object": answer("200 OK", '{"a":' * 100_000 + "1" + "}" * 100_000),
    "invalid gzip": answer("200 OK", "{}", f"{JSON}Content-Encoding: gzip\r\n"),
    "gzip of 100 MB": answer("200 OK", gzip.compress(b" " * 1_000_000, 1) * 100, f"{JSON}Content-Encoding: gzip\r\n"),
    "only 100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "103": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: odd\r\n\r\n",
    "204 with a body": b'HTTP/1.1 204 No Content\r\nContent-Length: 14\r\n\r\n{"odd": "yes"}',
    "206": answer("206 Partial Content", '{"odd": true}'),
    "a redirection": answer("307 Temporary Redirect", "", "Location: ELSEWHERE\r\n"),
    "a redirection nowhere": answer("302 Found", "", "Location: http://[\r\n"),
    "304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "an error in a redirection": error("300 Multiple Choices", "odd"),
    "403 of a proxy": answer("403 Forbidden", "<html>", "Content-Type: text/html\r\n"),
    "404 of a proxy": answer("404 Not Found", "<html>", "Content-Type: text/html\r\n"),
    "413 of a proxy": answer("413 Too Large", "<html>", "Content-Type: text/html\r\n"),
    "an invalid error": answer("409 Conflict", '{"error": {"code": 5}}'),
    "an error that is text": answer("500 Odd", '{"error": "odd"}'),
    "503 and a long wait": answer("503 Away", "", "Retry-After: 99999999999999999999\r\n"),
    "503 and a wait below zero": error("503 Away", "unavailable").replace(
        b"\r\n\r\n", b"\r\nRetry-After: -1\r\n\r\n", 1
    ),
    "429 and no wait": error("429 Slow", "rate_limited"),
    "429 and an odd wait": error("429 Slow", "odd").replace(b"\r\n\r\n", b"\r\nRetry-After: soon\r\n\r\n", 1),
    "502": answer("502 Bad Gateway", "<html>"),
    "an endless message": error("503 Away", "unavailable", hint="x" * 900_000),
}
DRIPPING = {"dripping 100s": b"HTTP/1.1 100 Continue\r\n\r\n", "a dripping body": b" "}
"""The bytes that are sent repeatedly, so that the connection is never idle."""
HEAD_OF_DRIPS = {"a dripping body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"}
NAMES = [*ODD, *DRIPPING]


class OddRelay(ThreadingHTTPServer):
    """Hands out a task for each odd response, and gives it as the first response to every call about the task."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Lock()
        self.claims = 0
        self.seen: set[tuple[int, str]] = set()
        self.results: dict[int, str] = {}
        self.keys_elsewhere: list[str] = []

    def next_claim(self) -> tuple[int, bool]:
        """Return the number of a claim's task, and whether it is the odd one of its two."""
        with self.lock:
            self.claims += 1
            return (self.claims - 1) // 2, self.claims % 2 == 1

    def is_first(self, number: int, action: str) -> bool:
        with self.lock:
            is_first = (number, action) not in self.seen
            self.seen.add((number, action))
            return is_first


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: OddRelay

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/elsewhere":
            self.server.keys_elsewhere.append(str(self.headers))
            return self._send(answer("200 OK", "{}"))
        if self.path == "/v1/tasks/claim":
            number, is_odd = self.server.next_claim()
            if number >= len(NAMES):
                time.sleep(0.05)
                return self._send(answer("204 No Content", "", ""))
            task = {"task_id": f"t{number}", "session_id": "s", "description": "Do it", "attempt": 1, "max_attempts": 3}
            right = answer("200 OK", json.dumps({"claim_token": f"secret-{number}", **task}))
        else:
            _, _, _, token, action = self.path.split("/")
            number = int(token.removeprefix("secret-"))
            is_odd = self.server.is_first(number, action)
            if not is_odd and action == "heartbeat":
                (self.server.folder / f"t{number}").touch()
            if not is_odd and action in ("complete", "fail", "ask"):
                self.server.results.setdefault(number, action)
            told = {"cancelled": False, "data": {"status": "completed"}}
            right = answer("200 OK", json.dumps(told))
        if is_odd:
            self._send_odd(NAMES[number])
        else:
            self._send(right)
        return None

    do_GET = do_POST  # noqa: N815

    def _send(self, content: bytes) -> None:
        self.wfile.write(content)

    def _send_odd(self, name: str) -> None:
        self.close_connection = name != "204 with a body"
        try:
            if name in DRIPPING:
                self.wfile.write(HEAD_OF_DRIPS.get(name, b""))
                while True:
                    self.wfile.write(DRIPPING[name])
                    time.sleep(0.05)
            self.wfile.write(ODD[name].replace(b"ELSEWHERE", f"{self.server.url}/elsewhere".encode()))
        except OSError:
            pass  # The runner may disconnect early.

    def log_message(self, format: str, *values: Any) -> None:
        pass


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[OddRelay]:
    with OddRelay(tmp_path) as relay:
        thread = threading.Thread(target=relay.serve_forever)
        thread.start()
        yield relay
        relay.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def in_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten pauses and limits."""
    monkeypatch.setattr(client, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(claims_client, "ANSWER_BYTES", 200_000)
    monkeypatch.setattr(claims_client, "BEAT_SECONDS", 1.0)
    monkeypatch.setattr(claims_client, "SUBMIT_SECONDS", 1.0)
    monkeypatch.setattr(claims_client, "ANSWER_MARGIN_SECONDS", 1.0)
    monkeypatch.setattr(runner, "WAIT_SECONDS", 0.5)
    monkeypatch.setattr(runner, "SHORTEST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(task_execution, "LONGEST_BEAT_SECONDS", 0.05)
    for module in (runner, task_execution):
        monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.02)
        monkeypatch.setattr(module, "LAST_PAUSE_SECONDS", 0.05)


def job_of(folder: Path) -> Job:
    """Return a command that ends after a valid response to a heartbeat. Of three commands, one fails and one asks a
    question."""
    script = folder / "script"
    script.write_text(
        f'until [ -e "{folder}/$SESSION_RELAY_TASK_ID" ]; do sleep 0.05; done\n'
        "number=$((${SESSION_RELAY_TASK_ID#t} % 3))\n[ $number = 1 ] && exit 3\n"
        '[ $number = 2 ] && echo Which? >"$SESSION_RELAY_QUESTION_FILE"\necho done'
    )
    return Job(
        template=Template(["sh", str(script)]),
        timeout_seconds=LIMIT_SECONDS,
        lease_seconds=60,
        environment={"PATH": "/usr/bin:/bin"},
        key=KEY,
    )


def test_it_logs_the_odd_response_and_loses_no_task(relay: OddRelay, tmp_path: Path) -> None:
    warnings: list[str] = []
    relay_client = Client(relay.url, KEY, on_retry=warnings.append)
    wish = ClaimOptions(agent_name="a", worker="w", concurrency=8)
    runner = Runner(relay_client, wish, job_of(tmp_path), warn=warnings.append)
    ends_at = time.monotonic() + LIMIT_SECONDS
    limit = threading.Timer(LIMIT_SECONDS, runner.stop)
    limit.start()
    events: list[RunnerEvent] = []
    try:
        for said in runner.run():
            if isinstance(said, RunnerEvent):
                events.append(said)
            if len(relay.results) == len(NAMES) and len([event for event in events if event.event != "claimed"]) == len(
                NAMES
            ):
                runner.stop()
    finally:
        limit.cancel()
        relay_client.close()
    assert time.monotonic() < ends_at, {NAMES[number] for number in range(len(NAMES)) if number not in relay.results}
    expected = {number: ("complete", "fail", "ask")[number % 3] for number in range(len(NAMES))}
    assert {NAMES[number]: result for number, result in relay.results.items()} == {
        NAMES[number]: result for number, result in expected.items()
    }
    assert {event.event for event in events} == {"claimed", "finished", "failed", "asked"}
    assert relay.keys_elsewhere == []
    said = "\n".join(warnings)
    assert "secret-" not in said
    assert KEY not in said
    assert max(map(len, warnings)) < 5_000
    for sentence in (
        "not a session-relay: it responds only HTTP 103",
        "invalid HTTP: ",
        "redirects to",
        "has no token",
    ):
        assert sentence in said
