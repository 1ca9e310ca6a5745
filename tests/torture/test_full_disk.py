"""A full disk of Valkey's append-only file: Valkey ends, webhooks get 503, and everything resumes when there is
room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.processes.stack import envelope, new_id, wait_for
from tests.support.torture.chaos import wait_at_random
from tests.support.torture.ledger import Ledger
from tests.support.torture.rig import Rig, new_rig

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3_600)]

ROUNDS = int(os.environ.get("ROUNDS", "3"))
DISK = "64m"
LEFT_BYTES = 262_144
"""The free space at the start: the disk becomes full during the traffic, not before."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of the test's own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("`mount` is not available, so no disk can be filled.")
    if done.returncode:
        pytest.skip(f"No small disk can be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def rig_on_disk(disk: Path) -> Iterator[Rig]:
    """A rig whose Valkey writes to the small disk."""
    # The file is rewritten before it fills the disk by itself.
    with new_rig(valkey_folder=disk, valkey_settings={"auto-aof-rewrite-min-size": "8mb"}) as rig:
        yield rig


def test_the_ledger_holds_when_the_disk_is_full(rig_on_disk: Rig, disk: Path) -> None:
    rig = rig_on_disk
    ledger = Ledger(rig.stack)
    with ledger.sending():
        for _ in range(ROUNDS):
            wait_at_random()
            server = psutil.Process(rig.valkey.pid)
            filler = disk / "filler"
            with filler.open("wb") as file:
                space = os.statvfs(disk)
                os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - LEFT_BYTES)
            wait_for(lambda: server.status() == psutil.STATUS_ZOMBIE, what="Valkey ended by the full disk")  # noqa: B023
            refused = rig.stack.client.post("/v1/webhook", json=envelope("create_session", new_id(), title="No room"))
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
            filler.unlink()
            rig.valkey.restart()
            ledger.wait_for_progress()
    ledger.check()
