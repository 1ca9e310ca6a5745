"""Connections to a particular one of the processes that serve a port."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple

import psutil

from tests.support.processes.stack import wait_for
from tests.support.project import API_KEY

MAX_ATTEMPTS = 100
"""Each meets one of two processes with equal chances."""


class Answer(NamedTuple):
    """A response."""

    status: int
    body: Any


def serving_processes(pid: int) -> list[psutil.Process]:
    """Return the processes of a supervisor, without those that have ended."""
    return [child for child in psutil.Process(pid).children() if _is_alive(child)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_complete(pid: int, port: int, *, processes: int = 2) -> list[psutil.Process]:
    """Wait until all processes of this supervisor listen. Returns them."""

    def find() -> list[psutil.Process]:
        found = serving_processes(pid)
        is_complete = len(found) == processes and all(listening(process.pid, port) for process in found)
        return found if is_complete else []

    return wait_for(find, what=f"{processes} processes listening")


def listening(pid: int, port: int) -> int:
    """Return the number of sockets on which a process listens."""
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return 0
    return sum(found.status == psutil.CONN_LISTEN and found.laddr.port == port for found in connections)


def connect_to(process: psutil.Process, port: int) -> HTTPConnection:
    """Return a connection that this process has accepted."""
    for _ in range(MAX_ATTEMPTS):
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.connect()
        if _owner(connection, process.parent()) == process.pid:
            return connection
        connection.close()
    raise AssertionError(f"No connection to port {port} reached the process {process.pid}.")


def _owner(connection: HTTPConnection, supervisor: psutil.Process | None) -> int:
    assert supervisor is not None
    own = connection.sock.getsockname()

    def find() -> int | None:
        for process in serving_processes(supervisor.pid):
            if any(found.raddr == own for found in process.net_connections("tcp")):
                return process.pid
        return None

    return wait_for(find, what="connection accepted") or 0


def ask(connection: HTTPConnection, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """Send a request with the tests' key. Returns its response."""
    content = None if body is None else json.dumps(body)
    all_headers = {"X-API-Key": API_KEY, "Content-Type": "application/json", **headers}
    connection.request(method, path, content, all_headers)
    response = connection.getresponse()
    read = response.read()
    return Answer(response.status, json.loads(read) if read else None)


def ask_once(port: int, method: str, path: str, body: Any = None, **headers: str) -> Answer | None:
    """Send a request on a connection of its own. Returns None if there is no response."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        return ask(connection, method, path, body, **headers)
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


def statuses(port: int, body: Any, number: int) -> Counter[int]:
    """Post a webhook so many times, each on a connection of its own. Returns the number of responses by status."""
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda _: ask_once(port, "POST", "/v1/webhook", body), range(number))
        return Counter(answer.status for answer in answers if answer)
