"""The migrations form one line, which ends with the schema that the program needs."""

from __future__ import annotations

import re

from alembic.config import Config
from alembic.script import ScriptDirectory

from models.tables import SCHEMA_REVISION
from tests.support.project import ROOT


def test_each_migration_has_a_unique_number_and_follows_the_previous_one() -> None:
    files = sorted((ROOT / "alembic" / "versions").glob("*.py"))
    numbers = [file.name[:4] for file in files]
    assert numbers == [f"{number:04}" for number in range(1, len(files) + 1)]
    for file, before in zip(files, [None, *numbers], strict=False):
        found = dict(re.findall(r'^(revision|down_revision) = (?:"(\w+)"|None)$', file.read_text(), re.MULTILINE))
        assert found == {"revision": file.name[:4], "down_revision": before or ""}, file.name


def test_workers_wait_for_the_latest_schema() -> None:
    heads = ScriptDirectory.from_config(Config(ROOT / "alembic.ini")).get_heads()
    assert heads == [SCHEMA_REVISION]
