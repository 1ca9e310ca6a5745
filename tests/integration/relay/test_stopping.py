"""A process that stops says so to its last line, and does not wait for bodies that do not arrive."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from tests.support.processes.serving import Serving, Stopwatch
from tests.support.project import API_KEY
from tests.support.sockets import receive_all


def test_the_log_of_a_process_that_was_stopped_has_its_last_line(redis_url: str, tmp_path: Path) -> None:
    serving = Serving("relay", tmp_path, REDIS_URL=redis_url)
    serving.close()
    assert "Finished server process" in serving.log().splitlines()[-1]


def test_half_a_body_does_not_hold_up_a_stop_and_its_sender_is_told_to_retry(redis_url: str, tmp_path: Path) -> None:
    serving = Serving("relay", tmp_path, REDIS_URL=redis_url)
    connection = socket.create_connection(("127.0.0.1", serving.port), timeout=40)
    head = f"POST /v1/webhook HTTP/1.1\r\nX-API-Key: {API_KEY}\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    connection.sendall(head.encode())
    assert connection.recv(1_000).startswith(b"HTTP/1.1 100")  # The app waits for the body.
    connection.sendall(b"{")
    watch = Stopwatch()
    serving.close()
    took_seconds = watch.seconds
    head, _, body = receive_all(connection).decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 503"), head
    assert "retry-after: " in head
    assert json.loads(body)["error"]["retryable"] is True
    assert "Traceback" not in serving.log()
    assert took_seconds < 12
