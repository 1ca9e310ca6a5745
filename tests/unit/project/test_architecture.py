"""The documents name only files and folders that exist, and docs/ARCHITECTURE.md names all packages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from models.field_types import TaskStatus
from tests.support.project import ROOT

ARCHITECTURE = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
ROOMS = ("models", "sessions", "relay", "worker", "api", "agent", "cli", "local")
PLACE = re.compile(rf"(?<![\w./-])((?:{'|'.join((*ROOMS, 'alembic', 'docs', 'examples', 'tests'))})/[\w./-]*)")
"""A path from the root of the project."""
PAGES = [page for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md") for page in sorted(ROOT.glob(pattern))]
NAMED = re.compile(r"\b(rename_session|RenameSession)\b")
"""A mention of an ordinary command."""


def places(text: str) -> set[str]:
    """Return the files and folders that a text names."""
    return {place.rstrip(".") for place in PLACE.findall(text)}


@pytest.mark.parametrize("name", ["docs/ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_named_file_and_folder_exists(name: str) -> None:
    named = places((ROOT / name).read_text())
    assert len(named) > 15
    assert [place for place in sorted(named) if not is_there(place)] == []


def paths_in_backticks(page: Path) -> set[str]:
    """The files and folders that a page names in backticks."""
    return {place for span in re.findall(r"`([^`\n]+)`", page.read_text()) for place in places(span)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_path_in_backticks_exists(page: Path) -> None:
    assert [place for place in sorted(paths_in_backticks(page)) if not is_there(place)] == []


def test_the_pages_name_paths_in_backticks() -> None:
    assert len(set().union(*map(paths_in_backticks, PAGES))) > 100


def is_there(place: str) -> bool:
    """Return whether a folder of that name exists, if it ends with a slash, or else a file."""
    return Path(ROOT / place).is_dir() if place.endswith("/") else Path(ROOT / place).is_file()


def test_every_package_of_the_rooms_is_described() -> None:
    found = {path.parent.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("__init__.py")}
    # For a room that consists of packages, these may be described instead.
    packages = {name for name in found if "/" in name or not any(other.startswith(f"{name}/") for other in found)}
    described = set(re.findall(r"^\| `([\w/]+)/` \| \w", ARCHITECTURE.partition("## Packages")[2], re.MULTILINE))
    assert packages <= described <= found


def test_the_diagram_has_all_states_of_a_task() -> None:
    picture = ARCHITECTURE.partition("stateDiagram-v2")[2].partition("```")[0]
    steps = re.findall(r"^ +(\S+) --> (\w+): \w", picture, re.MULTILINE)
    assert {state for step in steps for state in step} - {"[*]"} == set(get_args(TaskStatus))


def test_the_steps_for_a_new_command_name_every_file_that_lists_commands() -> None:
    rows = CONTRIBUTING.partition("## How to add a command")[2].partition("HTTP, OpenAPI")[0]
    named = places(rows)
    files = [path for folder in (*ROOMS, "examples", "docs") for path in (ROOT / folder).rglob("*.*")]
    known = [path for path in files if path.suffix in (".py", ".md", ".json") and NAMED.search(path.read_text())]
    assert len(known) > 7
    missing = [path.relative_to(ROOT).as_posix() for path in known if "decisions" not in path.parts]
    assert [name for name in missing if name not in named and f"{name.partition('/')[0]}/" not in named] == []


def test_every_named_make_target_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make (\w+)", CONTRIBUTING, re.MULTILINE))
    assert len(named) > 3
    assert named <= targets
