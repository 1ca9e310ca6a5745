"""Commands import only what they need: imports are most of session-cli's running time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.project import ROOT

STORES = {"sqlalchemy", "psycopg2", "alembic", "redis", "httpx", "local", "api"}
HEAVY = STORES | {"rich", "urllib3", "msgspec", "sessions"}


def imported(code: str) -> set[str]:
    """Return the packages, and rooms of this project, that a new process has imported after this code."""
    command = [sys.executable, "-P", "-c", f"import sys, io\n{code}\nprint(*sys.modules)"]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["list", "--help"]])
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    modules = imported(f"sys.argv[1:] = {arguments}\nfrom cli.main import main\nassert main() == 0")
    assert modules.isdisjoint(HEAVY)


def test_the_http_backend_imports_no_store() -> None:
    modules = imported(
        "import cli.backends.http_backend, cli.backends.relay_lists, cli.backends.reassembly\n"
        "import cli.configuration, cli.output.machine_output"
    )
    assert {"urllib3", "msgspec"} <= modules
    assert modules.isdisjoint(STORES | {"rich"})
