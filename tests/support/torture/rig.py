"""A stack with servers of its own, all of which a test may kill."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from local.servers.embedded import EmbeddedServer, start_valkey
from tests.support.processes.stack import Stack
from tests.support.servers import NO_SYNC, new_folder, start_migrated_postgres


class Rig:
    """Postgres, Valkey, the app and the workers of one case."""

    def __init__(self, *, postgres: EmbeddedServer, valkey: EmbeddedServer, stack: Stack) -> None:
        self.postgres = postgres
        self.valkey = valkey
        self.stack = stack

    def workers(self) -> list[psutil.Process]:
        """Return the draining processes under the supervisor."""
        return self.stack.workers()

    def children(self) -> list[psutil.Process]:
        """Return all processes under the supervisor."""
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.stack.pid("worker")).children()
        return []

    def arm(self, failpoint: str) -> Path:
        """Make the next worker that reaches the failpoint die. The file is deleted then."""
        path = self.stack.failpoints / failpoint
        path.touch()
        return path


@contextmanager
def new_rig(
    *,
    valkey_folder: Path | None = None,
    valkey_settings: Mapping[str, str] | None = None,
    postgres_settings: Mapping[str, str] = NO_SYNC,
    workers: int = 3,
    **environment: str,
) -> Iterator[Rig]:
    """Start a rig."""
    home = new_folder("rig")
    with contextlib.ExitStack() as ends:
        postgres = start_migrated_postgres(home, settings=postgres_settings)
        ends.callback(postgres.stop)
        valkey = start_valkey(valkey_folder or home, settings=valkey_settings)
        ends.callback(valkey.stop)
        stack = Stack(
            database_url=postgres.url, redis_url=valkey.url, folder=home / "stack", workers=workers, **environment
        )
        ends.callback(stack.close)
        stack.start()
        yield Rig(postgres=postgres, valkey=valkey, stack=stack)
