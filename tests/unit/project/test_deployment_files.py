"""The files in deploy/ and their like: valid for the programs that read them, and true to the product."""

from __future__ import annotations

import json
import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from models.process.supervision import Child
from models.routes import path_to
from models.settings import Settings, read_settings
from relay.http.server import SHUTDOWN_SECONDS
from relay.processes import STOP_SECONDS as RELAY_STOP_SECONDS
from tests.support.deployment import (
    COMPOSE,
    INSTALLED,
    PLISTS,
    RAILWAY,
    UNITS,
    USER_UNITS,
    named_settings,
    product_commands,
    read_compose,
    sections,
)
from tests.support.project import ROOT
from worker.supervisor import STOP_SECONDS as WORKER_STOP_SECONDS

KNOWN_COMMANDS = {
    ("python", "-m", "alembic", "upgrade", "head"),
    ("python", "-m", "api"),
    ("python", "-m", "worker"),
    ("python", "-m", "worker.dashboard"),
    ("python", "-m", "local.single_service"),
    ("python", "-m", "worker.health"),
}
"""Each is started by a test: tests/acceptance/hosting/test_procfile.py, test_single_service.py, and
tests/acceptance/faults/test_worker_health.py."""
RAILWAY_KEYS: dict[str, dict[str, Any]] = {
    "build": {"builder": {"enum": ["RAILPACK", "DOCKERFILE"]}, "dockerfilePath": {"type": "string"}},
    "deploy": {
        "startCommand": {"type": "string"},
        "preDeployCommand": {"type": "array", "items": {"type": "string"}, "maxItems": 1},
        "healthcheckPath": {"type": "string", "pattern": "^/"},
        "healthcheckTimeout": {"type": "integer", "minimum": 1},
        "restartPolicyType": {"enum": ["ON_FAILURE", "ALWAYS", "NEVER"]},
        "overlapSeconds": {"type": "integer", "minimum": 0},
        "drainingSeconds": {"type": "integer", "minimum": 0},
    },
}
"""The part of https://railway.com/railway.schema.json that these files use, as it is described in
https://docs.railway.com/config-as-code/reference. The seconds are strings there, which the platform rejects:
https://github.com/railwayapp/docs/issues/1243."""


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object that has only these properties."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def test_every_command_is_one_that_a_test_starts() -> None:
    commands = list(product_commands())
    assert {command.words for command in commands} == KNOWN_COMMANDS
    files = {command.file.partition("/")[0] for command in commands}
    assert files == {"Procfile", "Dockerfile", "docker-compose.yml", "railway", "systemd"}


def test_every_variable_is_a_setting() -> None:
    named = list(named_settings())
    assert {file for file, _ in named} >= {"docker-compose.yml", "tls.yml", "session-relay.env"}
    known = {name.upper() for name in Settings.__struct_fields__}
    assert [pair for pair in named if pair[1] not in known and not pair[1].startswith("PYTHON")] == []


# Compose


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_files_match_the_specification(path: Path) -> None:
    schema = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    document = read_compose(path)
    jsonschema.validate(document, json.loads(schema.read_text()))


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed.")
def test_docker_compose_merges_the_files() -> None:
    secrets = {"POSTGRES_PASSWORD": "p", "API_KEY": "k", "DASHBOARD_PASSWORD": "d", "DOMAIN": "relay.example"}
    command = ["docker-compose", *(word for path in COMPOSE for word in ("-f", str(path))), "config", "--format=json"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **secrets}, capture_output=True, check=True)
    services = json.loads(done.stdout)["services"]
    published = {name: service["ports"][0]["published"] for name, service in services.items() if "ports" in service}
    assert published == {"caddy": "80", "dashboard": "9181"}
    relays = [services[name] for name in ("relay", "relay-2")]
    assert relays[0]["command"] == relays[1]["command"] == ["python", "-m", "api"]
    assert all(relay["environment"]["PUBLIC_URL"] == "https://relay.example" for relay in relays)


def test_what_the_second_compose_file_names_exists_in_the_first() -> None:
    first, second = map(read_compose, COMPOSE)
    services = first["services"].keys()
    own = {name for name, service in second["services"].items() if "image" in service or "extends" in service}
    assert second["services"].keys() - own <= services
    extended = second["services"]["relay-2"]["extends"]
    assert (ROOT / extended["file"]).resolve() == COMPOSE[0]
    assert extended["service"] in services
    for volume in second["services"]["caddy"]["volumes"]:
        source = volume.partition(":")[0]
        assert source in second["volumes"] or (ROOT / source).is_file()


def test_containers_have_the_time_to_stop_that_their_processes_take() -> None:
    services = read_compose(COMPOSE[0])["services"]
    graces = {name: int(services[name]["stop_grace_period"].rstrip("s")) for name in ("relay", "worker")}
    assert graces["relay"] > RELAY_STOP_SECONDS > SHUTDOWN_SECONDS
    assert graces["worker"] > WORKER_STOP_SECONDS


# Railway


@pytest.mark.parametrize("path", RAILWAY, ids=lambda path: path.stem)
def test_railway_files_have_only_documented_keys(path: Path) -> None:
    document = json.loads(path.read_text())
    schema = closed({"$schema": {"const": "https://railway.com/railway.schema.json"}} | {
        name: closed(keys) for name, keys in RAILWAY_KEYS.items()
    })  # fmt: skip
    jsonschema.validate(document, schema)
    assert (ROOT / document["build"]["dockerfilePath"]).is_file()
    deploy = document["deploy"]
    # Railway starts a Dockerfile's command without a shell.
    assert not set("$&|;<>*~`\"'") & set("".join([deploy["startCommand"], *deploy.get("preDeployCommand", [])]))
    assert deploy.get("healthcheckPath") in (None, path_to("health"), path_to("readiness"))


def test_there_is_a_railway_file_for_each_process_and_one_migrates() -> None:
    started = {path.stem: json.loads(path.read_text())["deploy"]["startCommand"] for path in RAILWAY}
    assert started == {
        "relay": "python -m api",
        "worker": "python -m worker",
        "dashboard": "python -m worker.dashboard",
        "single-service": "python -m local.single_service",
    }
    migrating = {path.stem for path in RAILWAY if "preDeployCommand" in path.read_text()}
    assert migrating == {"relay", "single-service"}


# systemd and launchd


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed.")
@pytest.mark.parametrize("is_user", [False, True], ids=["system", "user"])
def test_systemd_accepts_the_units(tmp_path: Path, is_user: bool) -> None:
    paths = []
    for unit in USER_UNITS if is_user else [*UNITS, *UNITS[0].parent.glob("*.t*")]:
        # Instances of a template are units as well.
        path = tmp_path / unit.name.replace("@.", "@8001.")
        text = unit.read_text().replace(f"{INSTALLED}/.venv/bin/python", sys.executable)
        path.write_text(text.replace(INSTALLED, str(ROOT)).replace("%h/session-relay", str(ROOT)))
        paths.append(path)
    assert paths
    environment = {"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path)}
    kind = ["--user"] if is_user else []
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *kind, *paths],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    mine = [line for line in done.stderr.splitlines() if "session-relay" in line or done.returncode]
    assert mine == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_are_confined_and_give_their_processes_time_to_stop(unit: Path) -> None:
    service = dict(sections(unit)["Service"])
    for name, value in {"DynamicUser": "yes", "ProtectSystem": "strict", "NoNewPrivileges": "yes"}.items():
        assert service[name] == value
    assert service["CapabilityBoundingSet"] == ""
    assert service["RestartPreventExitStatus"] == "2", "invalid settings are not mended by a restart"
    for program, seconds in {"-m api": RELAY_STOP_SECONDS, "-m worker": WORKER_STOP_SECONDS}.items():
        if service["ExecStart"].endswith(program):
            assert service["KillMode"] == "mixed"
            assert int(service["TimeoutStopSec"]) > seconds


def test_the_nightly_backup_gets_one_file_for_each_day_of_the_week() -> None:
    [unit] = [unit for unit in UNITS if unit.stem.endswith("backup")]
    shell, option, script = shlex.split(dict(sections(unit)["Service"])["ExecStart"].replace("%%", "%"))
    script = script.replace(f"{INSTALLED}/bin/session-cli", "echo")
    environment = {"STATE_DIRECTORY": "/var/lib/session-relay-backup", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([shell, option, script], env=environment, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"db backup /var/lib/session-relay-backup/[1-7]\.dump\n", done.stdout)


def test_the_environment_file_is_read_as_it_is(tmp_path: Path) -> None:
    lines = (UNITS[0].parent / "session-relay.env").read_text().splitlines()
    settings = read_settings(dict(line.split("=", 1) for line in lines if line and not line.startswith("#")))
    assert settings.require_durable_redis
    assert settings.public_url == "https://relay.example"


def test_launchd_files_can_be_read_and_start_the_cli() -> None:
    for path in PLISTS:
        agent = plistlib.loads(path.read_bytes())
        assert agent["Label"] == path.stem
        program, *arguments = agent["ProgramArguments"]
        assert (ROOT / "bin" / Path(program).name).is_file()
        assert arguments[:2] == ["agent", "run"]
        assert agent["RunAtLoad"] is agent["KeepAlive"] is True
        assert agent["ExitTimeOut"] > Child.stop_timeout_seconds
    assert PLISTS
