"""The shape of the code: small modules, each saying what it is for."""

from __future__ import annotations

import ast
import re

import pytest

from models.tables import SCHEMA_REVISION
from tests.conftest import ROOT

ROOMS = ("models", "sessions", "relay", "worker", "api", "agent", "cli", "local", "alembic", "tests")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def test_no_module_is_longer_than_500_lines() -> None:
    assert MODULES
    long = {str(path.relative_to(ROOT)): n for path in MODULES if (n := len(path.read_text().splitlines())) > 500}
    assert long == {}


@pytest.mark.parametrize("room", ROOMS[:8])
def test_modules_and_public_functions_say_what_they_promise(room: str) -> None:
    silent = []
    for path in (ROOT / room).rglob("*.py"):
        tree = ast.parse(path.read_text())
        nodes = [tree, *(n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef))]
        silent += [
            f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'module')}"
            for node in nodes
            if not getattr(node, "name", "").startswith("_") and not ast.get_docstring(node)
        ]
    assert silent == []


def test_migrations_follow_each_other_up_to_the_schema_of_the_tables() -> None:
    sources = [path.read_text() for path in sorted((ROOT / "alembic" / "versions").glob("*.py"))]
    revisions = [re.search(r'^revision = "(\d+)"', source, re.MULTILINE)[1] for source in sources]  # type: ignore[index]
    before = [re.search(r'^down_revision = (?:"(\d+)"|None)', source, re.MULTILINE)[1] for source in sources]  # type: ignore[index]
    assert before == [None, *revisions[:-1]]
    assert revisions[-1] == SCHEMA_REVISION
