"""The requirements files: each purpose gets only what it runs, in the versions of one lock; `make` installs by
purpose."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from local.installation import UNUSED, loaded_part
from tests.support.project import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MEGABYTES = 190
"""The limit for installed files, of which the model for search by meaning, with numpy, takes about 80. Bytecode takes
about 20 more after the first start."""
IMPORT_ALL = """
import gc, importlib, pkgutil, sys

gc.disable()  # It would take a third of the time.

class Installed:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

rooms, hidden = sys.argv[1].split(","), set(sys.argv[2].split(","))
sys.meta_path.insert(0, Installed())
for room in rooms:
    package = importlib.import_module(room)
    for module in pkgutil.walk_packages(package.__path__, f"{room}."):
        importlib.import_module(module.name)
import alembic.command, rq_dashboard.web, psycopg2, mcp.client.streamable_http
gc.freeze()
"""


def locked(name: str) -> dict[str, str]:
    """Return each package of a requirements file with its version, markers and hashes."""
    text = (ROOT / name).read_text()
    return dict(re.findall(r"^([a-z0-9][a-z0-9-]*)(==.*?)(?=^[a-z0-9]|\Z)", text, re.MULTILINE | re.DOTALL))


def asked_for(*extras: str) -> set[str]:
    """Return the packages that pyproject.toml names for those extras."""
    lines = [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return {re.split(r"[^A-Za-z0-9-]", line)[0] for line in lines} - {"session-relay"}


SERVERS, LOCAL, ALL = map(locked, ("requirements.txt", "requirements-local.txt", "requirements.lock"))
BENCH, TRACES, DIST = map(locked, ("requirements-bench.txt", "requirements-traces.txt", "requirements-dist.txt"))


def test_each_file_is_a_part_of_the_lock_with_the_same_versions_and_hashes() -> None:
    assert all("--hash=sha256:" in pin for pin in ALL.values())
    assert SERVERS.items() < LOCAL.items()
    assert LOCAL.items() < ALL.items()
    assert SERVERS.items() < TRACES.items() < ALL.items()
    assert DIST.items() < ALL.items()


def test_each_purpose_gets_its_requirements_and_no_development_tools() -> None:
    product = {re.split(r"[^A-Za-z0-9-]", line)[0] for line in PROJECT["dependencies"]}
    assert product | asked_for("server") <= SERVERS.keys()
    assert asked_for("local") <= LOCAL.keys() - SERVERS.keys()
    assert asked_for("traces") <= TRACES.keys() - LOCAL.keys()
    assert asked_for("dev") <= ALL.keys()
    assert asked_for("dev") & LOCAL.keys() == set()
    assert asked_for("dev") & DIST.keys() == {"hatchling"}


def test_only_the_benchmark_gets_its_peers_which_change_no_other_package() -> None:
    assert all("--hash=sha256:" in pin for pin in BENCH.values())
    assert asked_for("bench") <= BENCH.keys() - ALL.keys()
    assert {name for name in BENCH.keys() & ALL.keys() if BENCH[name] != ALL[name]} == set()


def test_the_packages_of_make_up_suffice_to_import_every_module() -> None:
    others = {
        name
        for name, owners in importlib.metadata.packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & LOCAL.keys()
    }
    assert "pytest" in others
    rooms = ",".join(
        path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name not in ("tests", "bench")
    )
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, rooms, ",".join(others)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_packages_of_make_up_are_small() -> None:
    sizes: dict[str, int] = {}
    for package in LOCAL:
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:  # For other platforms.
            continue
        sizes[package] = sum(
            installed_size(Path(file.locate()))
            for file in files
            if file.suffix != ".pyc" and not IS_UNUSED.search(file.as_posix()) and Path(file.locate()).exists()
        )
    assert len(sizes) > 50
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:8]
    assert sum(sizes.values()) < MEGABYTES * 1_000_000, largest


def installed_size(file: Path) -> int:
    """Return the bytes that the installation leaves of a file."""
    loaded = loaded_part(file.read_bytes()) if file.suffix == ".so" else None
    return file.stat().st_size if loaded is None else len(loaded)


IS_UNUSED = re.compile(
    "|".join("(?:^|/)" + re.escape(pattern).replace(r"\*", "[^/]*+") + "(?:/|$)" for pattern in UNUSED)
)
"""Finds a path that the installation deletes, or a folder of it."""


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed.")
def test_make_installs_tools_only_where_needed_and_again_when_a_lock_has_changed(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    stamps = [tmp_path / ".venv" / name for name in (".installed-runtime", ".installed-tools")]
    files = [tmp_path / name for name in ("requirements-local.txt", "requirements.lock")]
    for file in (*files, tmp_path / "requirements-bench.txt", tmp_path / "requirements-dist.txt"):
        file.touch()
    assert installs(tmp_path, "up") == {"requirements-local.txt"}
    assert installs(tmp_path, "dist") == {"requirements-dist.txt"}
    for target in ("test", "check", "torture", "fmt"):
        assert installs(tmp_path, target) == {"requirements-local.txt", "requirements.lock"}, target
    assert installs(tmp_path, "bench") == {"requirements-local.txt", "requirements.lock", "requirements-bench.txt"}
    stamps[0].parent.mkdir()
    for number, path in enumerate((*files, *stamps)):
        path.touch()
        os.utime(path, (number, number))
    assert installs(tmp_path, "up") == installs(tmp_path, "test") == set()
    os.utime(files[1], (10, 10))
    assert installs(tmp_path, "up") == set()
    assert installs(tmp_path, "test") == {"requirements.lock"}


def installs(folder: Path, target: str) -> set[str]:
    """Return the requirements files that `make TARGET` would install."""
    done = subprocess.run(["make", "-n", target], cwd=folder, check=True, capture_output=True, text=True)
    return set(re.findall(r"-m local\.installation .* (requirements\S+)", done.stdout))
