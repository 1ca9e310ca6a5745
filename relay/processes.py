"""Runs a server as RELAY_PROCESSES processes on one port: one by itself, several behind a supervisor.

The supervisor binds the port, once for each process, and the processes inherit the sockets. So connections of a process
that dies wait for its successor. It imports the app and never runs it: its processes are copies (see
models.process.forking), which share the memory of what is imported.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from models.errors import SettingsError
from models.process.gc_tuning import collect_nothing, collect_seldom
from models.process.log_setup import configure_logging, write_counts
from models.process.parent_death import ParentWatch, exit_with_parent
from models.process.program import python_command
from models.process.supervision import Child, ChildProcess, Supervisor, UnexpectedExit
from models.settings import Settings, read_settings

if TYPE_CHECKING:
    from starlette.applications import Starlette

VARIABLE = "SESSION_RELAY_SOCKETS"
"""The file descriptors of the listening sockets that a child inherits, separated by commas."""
CANNOT_LISTEN = 3
"""The exit code if the port is not available; uvicorn's own."""
SHARED = sys.platform != "linux"
"""Whether all processes share the sockets. Linux spreads connections over sockets of its own for each; where they share
one, the process that wakes first takes nearly all of a burst."""
TEND_SECONDS = 0.1
FORKS = sys.platform == "linux"
"""Whether the processes are copies of the supervisor: some libraries of macOS fail in copies."""
STOP_SECONDS = 25.0
"""A process answers its requests within 15 s, and then ends its background services."""

logger = logging.getLogger("relay")

if TYPE_CHECKING:
    Load = Callable[[], Callable[[Settings], Starlette]]
    """Imports the app, and returns the function that creates it."""


def main(module: str, load: Load) -> int:
    """Serve the app until SIGTERM or SIGINT. Where processes cannot be copies, `module` is started with `python -m` for
    each of several. Returns 2 for invalid settings, CANNOT_LISTEN if the port is in use."""
    inherited = os.environ.pop(VARIABLE, "")
    try:
        settings = read_settings()
        configure_logging(settings)
    except SettingsError as error:
        return _refuse(error)
    if settings.relay_processes > 1 and not inherited:
        return _supervise(module, settings, load)
    return _serve(settings, load, [int(number) for number in inherited.split(",") if number])


def _serve(settings: Settings, load: Load, listeners: Sequence[int]) -> int:
    exit_with_parent()
    collect_nothing()
    try:
        app = load()(settings)
    except SettingsError as error:
        return _refuse(error)
    from relay.http.server import serve

    serve(app, settings, sockets=[socket.socket(fileno=listener) for listener in listeners])
    return 0


def _refuse(error: SettingsError) -> int:
    print(f"session-relay: {error.message}", file=sys.stderr)
    return 2


def _serve_in_copy(settings: Settings, load: Load, listeners: Sequence[int]) -> NoReturn:
    configure_logging(settings)  # The supervisor's counts of repeated lines are not this process'.
    sys.exit(_serve(settings, load, listeners))


def _supervise(module: str, settings: Settings, load: Load) -> int:
    parent = ParentWatch()
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopping.append(received))
    try:
        listeners = asyncio.run(_bind(settings))
    except OSError as error:
        logger.error("%s", error)
        return CANNOT_LISTEN
    if FORKS:
        collect_nothing()
        load()
        collect_seldom()  # The processes share all memory in which nothing changes.
    children = []
    for count, own in enumerate(listeners, start=1):
        inherited = tuple(listener.fileno() for listener in own)
        work = partial(_serve_in_copy, settings, load, inherited) if FORKS else None
        children.append(_child(module, count, inherited, work=work))

    def is_stopping() -> bool:
        return bool(stopping) or parent.has_ended()

    def report(death: UnexpectedExit) -> None:
        logger.error("%s %s; restarting it in %.1f s.", death.child.name, death.reason, death.restart_in_seconds)
        if death.failures > 1 and not SHARED:  # It will not be back soon: the others get its new connections.
            for listener in listeners[children.index(death.child)]:
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)

    supervisor = Supervisor(on_death=report)
    # The first one shows whether it can start at all: its error is the whole server's, once and not from each process.
    first = ChildProcess(children[0])
    while not _is_listening(listeners[0]):
        if first.ended() is not None:
            code = first.exit_code or 0
            return code if code >= 0 else 128 - code
        if is_stopping():
            first.stop(hurry=lambda: len(stopping) > 1)
            return 0
        time.sleep(TEND_SECONDS)
    supervisor.start(children[0], running=first)
    for child in children[1:]:
        supervisor.start(child)
    logger.info("Serving port %d with %d processes.", listeners[0][0].getsockname()[1], len(children))
    while not is_stopping():
        supervisor.tend()
        write_counts()
        time.sleep(TEND_SECONDS)
    for own in listeners:
        for listener in own:
            listener.close()  # Otherwise connections would still arrive, and wait for nobody.
    supervisor.stop(together=True, hurry=lambda: len(stopping) > 1)
    return 0


def _child(module: str, number: int, inherited: tuple[int, ...], *, work: Callable[[], NoReturn] | None) -> Child:
    return Child(
        name=f"relay-{number}",
        work=work,
        command=python_command(module),
        environment={**os.environ, VARIABLE: ",".join(map(str, inherited))},
        inherited=inherited,
        stop_timeout_seconds=STOP_SECONDS,
    )


async def _bind(settings: Settings) -> list[list[socket.socket]]:
    """Bind the port for each process, with a socket per address. They do not listen before the process does. Raises
    OSError."""
    if SHARED:
        return [await _bind_once(settings.host, settings.port)] * settings.relay_processes
    for listener in await _bind_once(settings.host, settings.port):  # Ours would also share it with another program.
        listener.close()
    first = await _bind_once(settings.host, settings.port, reuse_port=True)
    port = first[0].getsockname()[1]
    others = range(settings.relay_processes - 1)
    return [first, *[await _bind_once(settings.host, port, reuse_port=True) for _ in others]]


async def _bind_once(host: str, port: int, *, reuse_port: bool | None = None) -> list[socket.socket]:
    """Bind as a single process does, to all addresses of the host."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, host or None, port, reuse_port=reuse_port, start_serving=False)
    try:
        return [socket.socket(fileno=os.dup(listener.fileno())) for listener in server.sockets]
    finally:
        server.close()


def _is_listening(listeners: Sequence[socket.socket]) -> bool:
    return all(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for listener in listeners)
