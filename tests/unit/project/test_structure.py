"""The shape of the code: small modules with docstrings, and tests without duplicates."""

from __future__ import annotations

import ast
import re

import pytest

from models.tables import SCHEMA_REVISION
from tests.support.project import ROOT

ROOMS = ("models", "sessions", "relay", "worker", "api", "agent", "cli", "local", "alembic", "tests")
SHORT = 300
"""The size in characters of a syntax tree up to which repetition is allowed: about two statements."""
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


@pytest.fixture(scope="module")
def tests() -> dict[str, str]:
    """The source of all tests, by path."""
    paths = (ROOT / "tests").rglob("*.py")
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


def test_no_module_is_longer_than_500_lines() -> None:
    assert MODULES
    long = {str(path.relative_to(ROOT)): n for path in MODULES if (n := len(path.read_text().splitlines())) > 500}
    assert long == {}


@pytest.mark.parametrize("room", ROOMS[:8])
def test_modules_and_public_functions_have_docstrings(room: str) -> None:
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


def test_tests_import_from_support_and_not_from_each_other(tests: dict[str, str]) -> None:
    imports = re.compile(r"^ *+(?:from|import) ++(?=tests\b|\.)(?!tests\.support\b).*+", re.MULTILINE)
    assert {path: found for path, source in tests.items() if (found := imports.findall(source))} == {}
    assert imports.findall(
        "import tests.unit\n    from tests import unit\nfrom . import x\nfrom tests.support import y"
    ) == [*("import tests.unit", "    from tests import unit", "from . import x")]


def test_tests_have_no_duplicate_functions_or_classes(tests: dict[str, str]) -> None:
    found: dict[str, list[str]] = {}
    for path, source in tests.items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                told = ast.get_docstring(node) is not None
                body = "".join(map(ast.dump, node.body[told:]))
                if len(body) > SHORT:
                    found.setdefault(body, []).append(f"{path}: {node.name}")
    assert [names for names in found.values() if len(names) > 1] == []
