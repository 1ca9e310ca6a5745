"""The deployment files: the commands that they start, and the settings that they give them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.support.project import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = (ROOT / "docker-compose.yml", DEPLOY / "compose" / "tls.yml")
RAILWAY = sorted((DEPLOY / "railway").glob("*.json"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
USER_UNITS = sorted((DEPLOY / "systemd" / "user").glob("*.service"))
PLISTS = sorted((DEPLOY / "launchd").glob("*.plist"))
INSTALLED = "/opt/session-relay"
"""The project's folder in the units."""


class Command(NamedTuple):
    """A command, and the file that has it."""

    file: str
    words: tuple[str, ...]


def _construct_reset(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node)


class _Loader(yaml.SafeLoader):
    """Reads compose files. An empty list with the tag !reset removes the one of the file before."""


_Loader.add_constructor("!reset", _construct_reset)


def read_compose(path: Path) -> dict[str, Any]:
    """Return a compose file as it is written: without the files before it, and with unset variables."""
    document: dict[str, Any] = yaml.load(path.read_text(), Loader=_Loader)
    return document


def sections(unit: Path) -> dict[str, list[tuple[str, str]]]:
    """Return the settings of a unit by section, in order."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            current = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            current.append((name, value))
    return found


def product_commands() -> Iterator[Command]:
    """Yield the commands of the product's own processes in all deployment files."""
    for line in (ROOT / "Procfile").read_text().splitlines():
        yield Command("Procfile", tuple(word for word in shlex.split(line)[1:] if word != "HOST="))
    [last] = re.findall(r"^CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    yield Command("Dockerfile", tuple(json.loads(last)))
    for path in COMPOSE:
        for service in read_compose(path)["services"].values():
            test = service.get("healthcheck", {}).get("test", [])
            for words in (service.get("command", []), test[1:]):
                if words[:1] == ["python"] and "-m" in words:
                    yield Command(path.name, tuple(words))
    for path in RAILWAY:
        deploy = json.loads(path.read_text())["deploy"]
        for text in (*deploy.get("preDeployCommand", []), deploy["startCommand"]):
            yield Command(f"railway/{path.name}", tuple(shlex.split(text)))
    for path in UNITS:
        for name, value in sections(path)["Service"]:
            program, *arguments = shlex.split(value) or [""]
            if name.startswith("Exec") and program.endswith("/python"):
                yield Command(f"systemd/{path.name}", (Path(program).name, *arguments))


def named_settings() -> Iterator[tuple[str, str]]:
    """Yield each environment variable of a process of the product in these files, with the file."""
    for path in COMPOSE:
        for service in read_compose(path)["services"].values():
            if service.get("image") == "session-relay" or "extends" in service or "PUBLIC_URL" in str(service):
                yield from ((path.name, name) for name in service.get("environment", {}))
    for path in UNITS:
        for name, value in sections(path)["Service"]:
            if name == "Environment":
                yield from ((path.name, assignment.partition("=")[0]) for assignment in shlex.split(value))
    for line in (DEPLOY / "systemd" / "session-relay.env").read_text().splitlines():
        if line and not line.startswith("#"):
            yield "session-relay.env", line.partition("=")[0]
