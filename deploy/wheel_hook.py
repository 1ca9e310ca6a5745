"""Builds the wheel: puts the rooms into the package session_relay, so that an installation adds no `models`, `api` or
`cli` to Python's modules. hatchling calls the hook; docs/decisions/wheel.md has the reasons.

Imports of rooms become imports of session_relay's packages, at the same line and column of their statement, and texts
that name commands of a checkout name those of an installation. All other code is what runs in a checkout.
"""

from __future__ import annotations

import ast
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "session_relay"
ROOMS = ("models", "sessions", "relay", "worker", "api", "agent", "cli", "local")
OTHERS = ("alembic", "alembic.ini", "mcp-config.json")
"""What else is read beside the rooms."""
EXAMPLES = "examples"
"""Its webhooks are sent by `session-relay trigger`."""
TEXTS = (
    (re.compile(rf"python -m (?={'|'.join(ROOMS)})(?!{PACKAGE})"), f"python -m {PACKAGE}."),
    (re.compile("`make up`"), "`session-relay up`"),
)
"""Patterns of commands in texts, with their replacements."""
_ROOM = re.compile(rf"(?:{'|'.join(ROOMS)})\b")


class NotMovable(Exception):
    """An import binds the name of a room, which exists only in a checkout: import its members instead."""


def move_imports(source: str) -> str:
    """Return the source of a module inside session_relay. Raises NotMovable."""
    places: list[tuple[int, int]] = []
    lines = source.encode().splitlines(keepends=True)  # Of bytes, it splits only where Python does.
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level and _ROOM.match(node.module or ""):
            names = lines[node.lineno - 1][node.col_offset + len("from") :]
            places.append((node.lineno, node.col_offset + len("from") + len(names) - len(names.lstrip())))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if _ROOM.match(alias.name):
                    if not alias.asname:
                        raise NotMovable(f"line {node.lineno}: import {alias.name}")
                    places.append((alias.lineno, alias.col_offset))
    for line, column in sorted(places, reverse=True):  # Columns count bytes.
        text = lines[line - 1]
        lines[line - 1] = text[:column] + f"{PACKAGE}.".encode() + text[column:]
    return b"".join(lines).decode()


def adapt(source: str) -> str:
    """Return the source with moved imports and texts that fit an installation. Raises NotMovable."""
    source = move_imports(source)
    for pattern, replacement in TEXTS:
        source = pattern.sub(replacement, source)
    return source


def lay_out(project: Path, target: Path) -> None:
    """Write the whole package, as it is installed, to a folder. Raises NotMovable with the file's name."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(project / PACKAGE, target, ignore=ignored, dirs_exist_ok=True)
    for name in (*ROOMS, *OTHERS):
        source = project / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            shutil.copy(source, target / name)
    (target / EXAMPLES).mkdir()
    for path in (project / EXAMPLES).glob("*.json"):
        shutil.copy(path, target / EXAMPLES)
    for path in target.rglob("*.py"):
        try:
            path.write_text(adapt(path.read_text(encoding="utf-8")), encoding="utf-8")
        except NotMovable as error:
            raise NotMovable(f"{path.relative_to(target)}, {error}") from error


class WheelHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the laid-out package to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Lay out the package in a temporary folder, and have hatchling include it."""
        if version == "editable":
            raise NotMovable(
                "session-relay cannot be installed as editable: run it from the checkout, with bin/session-cli."
            )
        self._folder = tempfile.mkdtemp(prefix="session-relay-wheel-")
        package = Path(self._folder) / PACKAGE
        lay_out(Path(self.root), package)
        build_data["force_include"][str(package)] = PACKAGE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
