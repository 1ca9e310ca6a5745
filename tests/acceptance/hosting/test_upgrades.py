"""The migration from the previous release while its relays and workers run."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.servers.embedded import EmbeddedServer
from tests.support.torture.upgrades import upgrade_under_load, upgrade_worker_under_load

ROWS = 10_000


def test_no_webhook_fails_while_the_previous_release_is_migrated_and_its_worker_replaced(
    postgres: EmbeddedServer, folder: Path
) -> None:
    folder.mkdir()
    upgrade_worker_under_load(postgres, folder, rows=ROWS)


@pytest.mark.torture
def test_no_webhook_fails_while_the_previous_release_is_migrated_and_replaced(
    postgres: EmbeddedServer, folder: Path
) -> None:
    folder.mkdir()
    upgrade_under_load(postgres, folder, rows=ROWS, relays_first=False)
