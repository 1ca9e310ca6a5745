"""A stack with servers of its own, all of which a test may kill."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from local.servers.embedded import EmbeddedServer, start_postgres, start_valkey
from tests.support.databases import migrate
from tests.support.processes.stack import Stack, new_id

NO_SYNC = {"fsync": "off"}
"""A process that is killed loses nothing that the kernel has; syncing would only make the runs longer."""


class Rig:
    """Postgres, Valkey, the app and the workers of one case."""

    def __init__(self, *, postgres: EmbeddedServer, valkey: EmbeddedServer, stack: Stack) -> None:
        self.postgres = postgres
        self.valkey = valkey
        self.stack = stack

    def workers(self) -> list[psutil.Process]:
        """The draining processes under the supervisor."""
        return [process for process in self.children() if _runs(process, "worker.worker_process")]

    def children(self) -> list[psutil.Process]:
        """All processes under the supervisor."""
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.stack.pid("worker")).children()
        return []

    def arm(self, failpoint: str) -> Path:
        """Have the next worker die that reaches the failpoint; the file is gone then."""
        path = self.stack.failpoints / failpoint
        path.touch()
        return path


@contextmanager
def new_rig(
    folder: Path,
    *,
    valkey_folder: Path | None = None,
    valkey_settings: Mapping[str, str] | None = None,
    postgres_settings: Mapping[str, str] = NO_SYNC,
    **environment: str,
) -> Iterator[Rig]:
    """A rig, started, with its data in the folder, which Postgres' user must be able to enter."""
    home = folder / new_id("rig")
    with contextlib.ExitStack() as ends:
        postgres = start_postgres(home, settings=postgres_settings)
        ends.callback(postgres.stop)
        valkey = start_valkey(valkey_folder or home, settings=valkey_settings)
        ends.callback(valkey.stop)
        migrate(postgres.url)
        stack = Stack(database_url=postgres.url, redis_url=valkey.url, folder=home / "stack", workers=3, **environment)
        ends.callback(stack.close)
        stack.start()
        yield Rig(postgres=postgres, valkey=valkey, stack=stack)


def _runs(process: psutil.Process, module: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return module in process.cmdline()
    return False
