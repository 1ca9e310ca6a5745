"""Starts the load: wrk if it is installed, otherwise bench.speed.load_process."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

from bench.speed.load_process import Load, Order
from bench.speed.webhook import API_KEY, SESSIONS, SOURCE_PATH, TEMPLATE

ROOT = Path(__file__).resolve().parents[2]
CONNECTIONS = 64
CHECK_SECONDS = 0.02
"""The interval of the checks whether the load must pause."""
PACED_CONNECTIONS = 256
"""Enough that a slow answer delays no other request."""
SATURATED_SHARE = 0.9
"""The share of one core above which the load generator itself may be the limit."""
LEAST_SHARE = 0.95
"""The share of the asked rate below which the load was not what was asked for."""
GRACE_SECONDS = 60.0


class LoadError(RuntimeError):
    """The load generator failed."""


class Pressure(msgspec.Struct, frozen=True, kw_only=True):
    """A load, with the effort of producing it."""

    load: Load
    prefix: str
    cpu_seconds: float
    paused_seconds: float = 0.0
    """The time in which the load was stopped because the backlog was too long."""
    asked_per_second: float = 0.0
    """The rate asked for; 0: as fast as requests are answered."""

    @property
    def per_second(self) -> float:
        """Successful requests per second."""
        return self.succeeded / self.load.seconds

    @property
    def succeeded(self) -> int:
        """Requests with a successful response."""
        return self.load.requests - self.load.refused

    def notes(self) -> list[str]:
        """Describe what makes the figures doubtful."""
        found = []
        if self.load.refused:
            found.append(f"{self.load.refused:,} of {self.load.requests:,} requests were refused")
        if self.load.broken:
            found.append(f"{self.load.broken:,} requests were not answered")
        if self.cpu_seconds > SATURATED_SHARE * (self.load.seconds - self.paused_seconds):
            found.append("the load generator was saturated")
        sent_per_second = self.load.requests / self.load.seconds
        if sent_per_second < LEAST_SHARE * self.asked_per_second:
            found.append(f"only {sent_per_second:,.0f} of {self.asked_per_second:,.0f} requests a second were sent")
        return found


def generator_name() -> str:
    """Name the generator of the load."""
    return "wrk" if shutil.which("wrk") else "asyncio"


def press(
    port: int,
    *,
    seconds: float,
    path: str = SOURCE_PATH,
    sessions: int = SESSIONS,
    must_pause: Callable[[], bool] | None = None,
) -> Pressure:
    """Send as fast as the server answers, to as many sessions in turn. While `must_pause` returns true, the load is
    stopped. Raises LoadError."""
    order = Order(
        port=port, path=path, prefix=_new_prefix(), seconds=seconds, connections=CONNECTIONS, sessions=sessions
    )
    return _run(order, must_pause=must_pause)


def pace(port: int, *, per_second: float, seconds: float, path: str = SOURCE_PATH) -> Pressure:
    """Send at a rate, whether or not the server keeps up. Raises LoadError."""
    order = Order(
        port=port,
        path=path,
        prefix=_new_prefix(),
        seconds=seconds,
        connections=PACED_CONNECTIONS,
        per_second=per_second,
    )
    return _run(order)


def _new_prefix() -> str:
    return secrets.token_hex(4)


def _command(order: Order) -> tuple[str, ...]:
    wrk = shutil.which("wrk")
    if not wrk:
        return (sys.executable, "-m", "bench.speed.load_process", msgspec.json.encode(order).decode())
    script = str(Path(__file__).with_name("webhook.lua"))
    options = ("-t1", f"-c{order.connections}", f"-d{max(1, round(order.seconds))}s", "--timeout", "30s", "-s", script)
    arguments = (order.path, API_KEY, order.prefix, TEMPLATE, str(order.sessions), str(order.per_second))
    return (wrk, *options, f"http://127.0.0.1:{order.port}{order.path}", "--", *arguments)


def _run(order: Order, *, must_pause: Callable[[], bool] | None = None) -> Pressure:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(_command(order), cwd=ROOT, stdout=output, stderr=errors)  # noqa: S603
        try:
            paused_seconds, cpu_seconds = _watch(process, seconds=order.seconds, must_pause=must_pause)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        output.seek(0)
        errors.seek(0)
        written, complaint = output.read(), errors.read().decode(errors="replace").strip()
    lines = [line for line in written.splitlines() if line.startswith(b"{")]
    if process.returncode != 0 or not lines:
        raise LoadError(f"The load generator failed: {complaint or written.decode(errors='replace')}"[:500])
    load = msgspec.json.decode(lines[-1], type=Load)
    return Pressure(
        load=load,
        prefix=order.prefix,
        cpu_seconds=cpu_seconds,
        paused_seconds=paused_seconds,
        asked_per_second=order.per_second,
    )


def _watch(
    process: subprocess.Popen[bytes], *, seconds: float, must_pause: Callable[[], bool] | None
) -> tuple[float, float]:
    """Wait for the end, pausing as asked. Returns the seconds paused, and the CPU seconds used."""
    watched, limit_at = psutil.Process(process.pid), time.monotonic() + seconds + GRACE_SECONDS
    paused_seconds, cpu_seconds, is_paused = 0.0, 0.0, False
    while process.poll() is None:
        if time.monotonic() > limit_at:
            raise LoadError("The load generator did not end.")
        with suppress(psutil.Error):
            times = watched.cpu_times()
            cpu_seconds = max(cpu_seconds, times.user + times.system)
        if must_pause and must_pause() != is_paused:
            is_paused = not is_paused
            process.send_signal(signal.SIGSTOP if is_paused else signal.SIGCONT)
        began_at = time.monotonic()
        with suppress(subprocess.TimeoutExpired):
            process.wait(CHECK_SECONDS)
        paused_seconds += (time.monotonic() - began_at) * is_paused
    return paused_seconds, cpu_seconds
