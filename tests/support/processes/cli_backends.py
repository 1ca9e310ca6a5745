"""session-cli on each of its backends: a relay, Postgres directly, and the JSON store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes.command_line import CommandLine
from tests.support.processes.stack import Stack
from tests.support.project import API_KEY
from tests.support.servers import new_database

BACKENDS = ("http", "postgres", "json")


def on_relay(folder: Path, stack: Stack) -> CommandLine:
    """session-cli on a relay."""
    return CommandLine(folder, RELAY_URL=stack.url, API_KEY=API_KEY)


def on_store(folder: Path, *, backend: str, database_url: str = "") -> CommandLine:
    """session-cli directly on a store."""
    return CommandLine(
        folder,
        STORAGE_BACKEND=backend,
        DATA_DIR=str(folder / "data"),
        **({"DATABASE_URL": database_url} if database_url else {}),
    )


@contextmanager
def cli_on(request: pytest.FixtureRequest, folder: Path) -> Iterator[CommandLine]:
    """session-cli on the backend that is the parameter of a fixture."""
    match request.param:
        case "http":
            yield on_relay(folder, request.getfixturevalue("stack"))
        case "postgres":
            with new_database(request.getfixturevalue("postgres")) as url:
                yield on_store(folder, backend="postgres", database_url=url)
        case _:
            yield on_store(folder, backend="json")
