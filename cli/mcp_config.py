"""The MCP servers of a configuration file in the form of Claude Code, with the variables in it put in."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from cli.configuration import PROJECT
from models.errors import SettingsError

FILES = (".mcp.json", "mcp-config.json")
"""Where to look in the current folder."""
LARGEST_FILE_BYTES = 1_000_000
MOST_SERVERS = 50
SHORTEST_SECRET = 6
"""Shorter values are words such as `on`, which would be taken out of everything that is told."""
HIDDEN = "[hidden]"
SCHEMES = {"Bearer", "Basic"}
"""Of the header Authorization: no secrets."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?(\}?)")


class McpServer(NamedTuple):
    """One entry, ready to be used if it lacks nothing."""

    name: str
    kind: Literal["http", "stdio"]
    url: str
    headers: dict[str, str]
    command: str
    arguments: list[str]
    variables: dict[str, str]
    folder: Path
    """Where a program is started."""
    lacks: tuple[str, ...]
    """Variables that are not set."""
    fault: str
    """Why the entry cannot be used, whatever is set."""
    secrets: tuple[str, ...]
    """What no output may show, the longest first."""

    def __repr__(self) -> str:
        return f"McpServer({self.name!r}, {self.kind!r})"

    def told(self, text: str, *, most: int) -> str:
        """A text of strangers on one line, without anything secret, cut to that many characters."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        text = " ".join(text[: most * 4].split())
        return text if len(text) <= most else f"{text[: most - 1]}…"


def find_config(path: Path | None) -> Path:
    """The file that is meant: the one given, else that of the current folder, else the project's own. Raises
    SettingsError."""
    candidates = [path] if path else [*map(Path, FILES), PROJECT / "mcp-config.json"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise SettingsError(f"There is no {candidates[0]}.", hint="Name the file with --config.")


def read_config(path: Path, environment: Mapping[str, str]) -> list[McpServer]:
    """Its servers, in order. Raises SettingsError for a file that is none."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(LARGEST_FILE_BYTES))
        entries = content["mcpServers"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SettingsError(f"{path} is no configuration of MCP servers.", expected='{"mcpServers": {...}}') from error
    if not isinstance(entries, dict) or len(entries) > MOST_SERVERS:
        raise SettingsError(f"{path}: mcpServers is not valid.", expected=f"at most {MOST_SERVERS} servers by name")
    return [_read(name, entry, environment, folder=path.resolve().parent) for name, entry in entries.items()]


def _read(name: str, entry: Any, environment: Mapping[str, str], *, folder: Path) -> McpServer:
    entry = entry if isinstance(entry, dict) else {}
    expansion = _Expansion(environment)
    url, headers = expansion.text(entry.get("url")), expansion.texts(entry.get("headers"))
    command, given = expansion.text(entry.get("command")), entry.get("args")
    arguments = [expansion.text(argument) for argument in given] if isinstance(given, list) else []
    variables = expansion.texts(entry.get("env"))
    kind = str(entry.get("type") or ("http" if url and not command else "stdio"))
    fault = ""
    if kind not in ("http", "streamable-http", "stdio"):
        fault = f"Its type is {kind!r}: expected http or stdio."
    elif kind == "stdio" and not command:
        fault = "It has no command."
    elif kind != "stdio" and split_address(url) is None and not expansion.lacks:
        fault = "It has no address that begins with http:// or https://."
    return McpServer(
        name=name[:64],
        kind="stdio" if kind == "stdio" else "http",
        url=url,
        headers=headers,
        command=command,
        arguments=arguments,
        variables=variables,
        folder=folder,
        lacks=tuple(dict.fromkeys(expansion.lacks)),
        fault=fault,
        secrets=_secrets([*expansion.values, *headers.values(), *variables.values(), _password(url)]),
    )


class _Expansion:
    """Puts variables in, and remembers which were not set, and the values of those that were."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.lacks: list[str] = []
        self.values: list[str] = []

    def text(self, text: Any) -> str:
        """A text with its variables put in; nothing for what is none."""
        return _VARIABLE.sub(self._value, text) if isinstance(text, str) else ""

    def texts(self, texts: Any) -> dict[str, str]:
        """The same for texts by name."""
        items = texts.items() if isinstance(texts, dict) else ()
        return {str(name): self.text(text) for name, text in items}

    def _value(self, match: re.Match[str]) -> str:
        name, default, end = match.groups()
        if not end:
            return match[0]
        value = self._environment.get(name, "")
        if value:
            self.values.append(value)
        elif default is None:
            self.lacks.append(name)
        return value or default or ""


def split_address(url: str) -> SplitResult | None:
    """The parts of a web address; None for what is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # It is read only now, and may be none.
    except ValueError:
        return None
    return parts if parts.scheme in ("http", "https") and parts.hostname else None


def _secrets(values: list[str]) -> tuple[str, ...]:
    """The values, their words, and the passwords in addresses; not folders, words that all headers have, and addresses
    without anything secret, which are worth telling."""
    found: set[str] = set()
    for value in values:
        parts = split_address(value)
        if os.path.exists(value) or (parts and not (parts.password or parts.query)):
            continue
        found |= {value, *value.split()} - SCHEMES
        if password := _password(value):
            found |= {password, unquote(password)}
    return tuple(sorted((value for value in found if len(value) >= SHORTEST_SECRET), key=len, reverse=True))


def _password(text: str) -> str:
    try:
        return urlsplit(text).password or ""
    except ValueError:
        return ""
