"""The wheel's build hook: it moves the imports of rooms and changes nothing else, and leaves out no file."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from deploy.wheel_hook import OTHERS, ROOMS, NotMovable, adapt, lay_out, move_imports
from tests.support.project import ROOT


@pytest.mark.parametrize(
    ("written", "moved"),
    [
        ("from models import settings", "from session_relay.models import settings"),
        ("from  api.app import (\n    a,\n    b,\n)", "from  session_relay.api.app import (\n    a,\n    b,\n)"),
        ("if True:\n    from local.keys import x as y", "if True:\n    from session_relay.local.keys import x as y"),
        ("é = 'ß'; from cli import main", "é = 'ß'; from session_relay.cli import main"),
        ("import api.app as app, os, relay as r", "import session_relay.api.app as app, os, session_relay.relay as r"),
        ("import os, apix", "import os, apix"),
        ("from models_of_others import x", "from models_of_others import x"),
        ("from .models import x\nfrom . import api", "from .models import x\nfrom . import api"),
        ("text = 'from models import settings'", "text = 'from models import settings'"),
        ("models = 1  # import api", "models = 1  # import api"),
        ('x = "\u2028\x0c"\nfrom api import app', 'x = "\u2028\x0c"\nfrom session_relay.api import app'),
    ],
)
def test_imports_of_rooms_are_moved_and_nothing_else(written: str, moved: str) -> None:
    assert move_imports(written) == moved


@pytest.mark.parametrize("written", ["import models", "def f():\n    import os, api.app"])
def test_an_import_that_binds_a_room_stops_the_build(written: str) -> None:
    with pytest.raises(NotMovable, match="line"):
        move_imports(written)


def test_texts_name_the_commands_of_an_installation() -> None:
    assert adapt('"Run `make up`, or python -m worker.health, or python -m alembic."') == (
        '"Run `session-relay up`, or python -m session_relay.worker.health, or python -m alembic."'
    )


def test_the_package_has_every_file_and_imports_no_room_from_outside(tmp_path: Path) -> None:
    lay_out(ROOT, tmp_path)
    listed = subprocess.run(
        [
            "git",
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            *ROOMS,
            *OTHERS,
            "examples/*.json",
            "session_relay",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    expected = {name.removeprefix("session_relay/") for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == expected
    assert len(expected) > 400
    suspects = re.compile(rf"\b(?:from|import)\b[^\n]*\b(?:{'|'.join(ROOMS)})\b")  # Parsing all takes a second.
    for path in tmp_path.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)) if suspects.search(source.replace("\\\n", "")) else ():
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not [name for name in names if name.partition(".")[0] in ROOMS], path
