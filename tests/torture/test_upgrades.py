"""The long version of the migration from the previous release: with a million rows, and in either order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from local.servers.embedded import EmbeddedServer
from tests.support.torture.upgrades import upgrade_under_load

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3_600)]

ROWS = int(os.environ.get("ROWS", "1000000"))


@pytest.mark.parametrize("relays_first", [False, True], ids=["workers first", "relays first"])
def test_no_webhook_fails_while_a_large_database_is_migrated(
    postgres: EmbeddedServer, tmp_path: Path, relays_first: bool
) -> None:
    upgrade_under_load(postgres, tmp_path, rows=ROWS, relays_first=relays_first)
