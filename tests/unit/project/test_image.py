"""The image of the Dockerfile: exactly the copied files are sent to the builder, and they suffice for each process."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from tests.support.project import ROOT

STARTS = (
    "import alembic.config; alembic.config.main(['heads'])",
    "import api.__main__, worker.__main__, worker.dashboard, worker.health, local.keys, local.single_service",
    "import agent.execution.process_reaper, cli.main, local.operator.backups, local.operator.restore",
    "from models.version import UNKNOWN, version; assert version() != UNKNOWN",
)
"""The programs of the image, as far as they run without servers."""
HIDE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""
"""Hides the packages that the image does not install."""


def ignore_rules() -> list[tuple[bool, re.Pattern[str]]]:
    """Return the lines of .dockerignore in order: whether matching files are sent, and the pattern."""
    rules = []
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            pattern = re.escape(line.strip().removeprefix("!").strip("/"))
            for written, meant in ((r"\*\*/", "(?:.*/)?"), (r"\*\*", ".*"), (r"\*", "[^/]*"), (r"\?", "[^/]")):
                pattern = pattern.replace(written, meant)
            rules.append((line.startswith("!"), re.compile(pattern)))
    return rules


RULES = ignore_rules()


def is_sent(path: str) -> bool:
    """Return whether docker sends the file to the builder: the last line that matches it, or a parent folder,
    decides."""
    names = [path, *map(str, PurePosixPath(path).parents)][:-1]
    sent = [is_sent for is_sent, pattern in RULES if any(map(pattern.fullmatch, names))]
    return sent[-1] if sent else True


def copies() -> list[tuple[list[str], str]]:
    """Return the sources and the destination of each COPY."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    found = [shlex.split(line)[1:] for line in lines if line.startswith(("COPY ", "ADD "))]
    return [([word for word in words[:-1] if not word.startswith("--")], words[-1]) for words in found]


def files_of(source: str) -> list[str]:
    """Return the files of a source of COPY that are sent."""
    path = ROOT / source
    within = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return [name for file in within if is_sent(name := file.relative_to(ROOT).as_posix())]


def uninstalled() -> list[str]:
    """Return the modules of the packages that are installed here, but not in the image."""
    locked = re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    return [
        name
        for name, owners in importlib.metadata.packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & set(locked)
    ]


@pytest.mark.parametrize("source", [source for sources, _ in copies() for source in sources])
def test_files_copied_by_the_dockerfile_are_sent_to_the_builder(source: str) -> None:
    assert files_of(source), f".dockerignore keeps {source} back, so the image cannot be built"


@pytest.mark.parametrize(
    "path",
    [".env", ".git/config", ".data/api_key", ".venv/bin/python", "tests/conftest.py", "docs/CLI.md", "notes.txt"],
)
def test_nothing_else_is_sent(path: str) -> None:
    assert not is_sent(path)
    assert not is_sent("models/__pycache__/errors.cpython-312.pyc")


def test_the_copied_files_suffice_to_run_each_process(tmp_path: Path) -> None:
    for sources, destination in copies():
        for source in sources:
            for name in files_of(source):
                is_folder = (ROOT / source).is_dir()
                inside = PurePosixPath(name).relative_to(source) if is_folder else PurePosixPath(name).name
                target = tmp_path / destination / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, target)
    assert {"psutil", "pytest"} <= set(uninstalled())
    hide = HIDE.format(hidden=uninstalled())
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([hide, *STARTS])],
        cwd=tmp_path,
        env={},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    command = [str(tmp_path / "bin" / "session-cli"), "--version"]
    done = subprocess.run(command, cwd="/", env={"PATH": path}, check=False, capture_output=True, text=True)
    assert done.stdout.startswith("session-cli "), done.stderr
    assert "unknown" not in done.stdout
