"""README.md and the pages it leads to are complete: settings with defaults, rooms, make targets, processes."""

from __future__ import annotations

import re

from local.stack.console import closing_block
from models.settings import PER_CORE, Settings
from models.version import version
from tests.support.project import ROOT

README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs" / "CONFIGURATION.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
INDEX = (ROOT / "docs" / "README.md").read_text()
SCREEN = 60
"""Lines of a screen."""


def test_every_setting_is_listed_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (?:`(\S*)`)? ?\|", CONFIGURATION, re.MULTILINE))
    defaults = Settings()
    fixed = {name: getattr(defaults, name) for name in Settings.__struct_fields__} | dict.fromkeys(PER_CORE, "")
    assert rows == {name.upper(): _written(value) for name, value in fixed.items()}


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_every_room_is_listed_with_its_allowed_imports() -> None:
    rooms = re.findall(r"^\| `(\w+)/` \|", ARCHITECTURE, re.MULTILINE)
    assert [room for room in rooms if not (ROOT / room).is_dir()] == []
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= set(rooms)


def test_every_named_make_target_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake (up|test|check|help)\b", README)) <= targets


def test_the_processes_are_those_of_the_procfile() -> None:
    procfile = dict(re.findall(r"^(\w+): (?:HOST= )?(.+)$", (ROOT / "Procfile").read_text(), re.MULTILINE))
    assert dict(re.findall(r"^\| (\w+) \| `(python -m [^`]+)` \|", CONFIGURATION, re.MULTILINE)) == procfile


def test_the_first_commands_are_those_printed_by_make_up() -> None:
    printed = closing_block(
        relay_url="http://127.0.0.1:8000",
        dashboard_url="",
        dashboard_password="",
        api_key="your-api-key-here",
        data_dir=ROOT,
    )
    assert "Page       http://127.0.0.1:8000 " in printed
    assert "\n  Terminal   session-cli search " in printed
    assert (ROOT / "docs" / "MCP.md").read_text().count(re.search("claude mcp add .+", printed)[0]) == 1  # type: ignore[index]
    commands = re.findall(r"^```sh\n(curl -s .*?)^```", README, re.DOTALL | re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert command in printed


def test_the_wheel_that_it_installs_is_the_one_that_make_dist_builds() -> None:
    named = re.findall(r"(\S*)session_relay-(\S+)-py3-none-any\.whl\[(\w+)\]", README)
    assert set(named) == {("'./dist/", version(), "local")}


def test_the_readme_has_two_screens() -> None:
    assert len(README.splitlines()) <= 2 * SCREEN


def test_the_index_lists_every_page() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\((\w+\.md)\)", INDEX))
