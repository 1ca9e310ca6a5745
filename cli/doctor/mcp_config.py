"""Reads MCP servers from a configuration file in Claude Code's format, and expands its variables."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from cli.output.escaping import visible
from models.errors import SettingsError
from models.process.program import PROJECT

FILES = (".mcp.json", "mcp-config.json")
"""Configuration files, searched for in the current directory."""
LARGEST_FILE_BYTES = 1_000_000
MOST_SERVERS = 50
LONGEST_SHOWN = 1_500
"""Entries longer than this cannot be reviewed before approval."""
SHORTEST_SECRET = 6
"""Shorter values are words such as `on`, which are not redacted: they occur in ordinary output."""
HIDDEN = "[hidden]"
SCHEMES = {"Bearer", "Basic"}
"""Schemes of the Authorization header, which are not secret."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?(\}?)")


class McpServer(NamedTuple):
    """One entry of the file. It can be used if `lacks` and `fault` are empty."""

    name: str
    kind: Literal["http", "stdio"]
    url: str
    headers: dict[str, str]
    command: str
    arguments: list[str]
    variables: dict[str, str]
    folder: Path
    """The working directory of a program."""
    shown: str
    """The command or URL as the file has it, on one line, for approval."""
    sends: tuple[str, ...]
    """Environment variables whose values would be sent to a URL of the file."""
    lacks: tuple[str, ...]
    """Variables that are not set."""
    fault: str
    """The reason why the entry is unusable, regardless of variables."""
    secrets: tuple[str, ...]
    """Values to redact from all output, longest first."""

    @property
    def is_secret(self) -> bool:
        """True if requests may contain a key."""
        parts = split_address(self.url)
        return bool(self.headers) or (parts is not None and bool(parts.query or parts.username or parts.password))

    def __repr__(self) -> str:
        return f"McpServer({self.name!r}, {self.kind!r})"

    def redact(self, text: str, *, most: int) -> str:
        """Redact secrets from untrusted text, and cut it to one line of at most `most` characters."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        text = " ".join(text[: most * 4].split())
        return text if len(text) <= most else f"{text[: most - 1]}…"


def find_config(path: Path | None) -> Path:
    """Find the configuration file: the given one, else one in the current directory, else session-relay's own. Raises
    SettingsError."""
    candidates = [path] if path else [*map(Path, FILES), PROJECT / "mcp-config.json"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise SettingsError(f"{candidates[0]} was not found.", hint="Pass the file with --config.")


def is_own(path: Path) -> bool:
    """True for the file that ships with session-relay, which is trusted like the program itself."""
    try:
        return path.samefile(PROJECT / "mcp-config.json")
    except OSError:
        return False


def read_config(path: Path, environment: Mapping[str, str]) -> list[McpServer]:
    """Read the servers of a file, in order. Raises SettingsError for an invalid file."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(LARGEST_FILE_BYTES))
        entries = content["mcpServers"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SettingsError(
            f"{path} is not a valid MCP configuration file.", expected='{"mcpServers": {...}}'
        ) from error
    if not isinstance(entries, dict) or len(entries) > MOST_SERVERS:
        raise SettingsError(f"{path}: invalid mcpServers.", expected=f"at most {MOST_SERVERS} servers by name")
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
    shown = visible(_show(entry, kind=kind, url=url, folder=folder))
    if kind not in ("http", "streamable-http", "stdio"):
        fault = f"Invalid type {kind!r}: expected http or stdio."
    elif kind == "stdio" and not command:
        fault = "No command is configured."
    elif kind != "stdio" and split_address(url) is None and not expansion.lacks:
        fault = "Invalid URL: expected http:// or https://."
    elif len(shown) > LONGEST_SHOWN:
        fault = f"The entry is longer than {LONGEST_SHOWN:,} characters, too long to review."
    return McpServer(
        name=name[:64],
        kind="stdio" if kind == "stdio" else "http",
        url=url,
        headers=headers,
        command=command,
        arguments=arguments,
        variables=variables,
        folder=folder,
        shown=shown,
        sends=()
        if kind == "stdio"
        else tuple(sorted(expansion.used - _own_variables(environment, entry.get("url"), url))),
        lacks=tuple(dict.fromkeys(expansion.lacks)),
        fault=fault,
        secrets=_secrets([*expansion.values, *headers.values(), *variables.values(), _password(url)]),
    )


class _Expansion:
    """Expands variables, and collects the names of unset ones and the values of the others."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.lacks: list[str] = []
        self.values: list[str] = []
        self.used: set[str] = set()

    def text(self, text: Any) -> str:
        """Expand the variables of a text. Returns an empty text for other types."""
        return _VARIABLE.sub(self._value, text) if isinstance(text, str) else ""

    def texts(self, texts: Any) -> dict[str, str]:
        """Expand the variables of texts by name."""
        items = texts.items() if isinstance(texts, dict) else ()
        return {str(name): self.text(text) for name, text in items}

    def _value(self, match: re.Match[str]) -> str:
        name, default, end = match.groups()
        if not end:
            return match[0]
        value = self._environment.get(name, "")
        if value:
            self.values.append(value)
            self.used.add(name)
        elif default is None:
            self.lacks.append(name)
        return value or default or ""


def _own_variables(environment: Mapping[str, str], raw: Any, url: str) -> set[str]:
    """Find variables that belong to the URL: the one that it begins with, and API_KEY for the relay's URL."""
    own: set[str] = set()
    found = _VARIABLE.match(raw) if isinstance(raw, str) else None
    if found and _are_of_one_origin(url, environment.get(found[1], "")):
        own.add(found[1])
    if _are_of_one_origin(url, environment.get("RELAY_URL", "")):
        own.add("API_KEY")
    return own


def _are_of_one_origin(url: str, other: str) -> bool:
    here, there = _origin(url), _origin(other)
    return here is not None and here == there


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    parts = split_address(url)
    if parts is None or parts.username is not None:
        return None
    return parts.scheme, parts.hostname, parts.port


def _show(entry: Mapping[str, Any], *, kind: str, url: str, folder: Path) -> str:
    if kind == "stdio":
        arguments = entry.get("args")
        words = [entry.get("command"), *(arguments if isinstance(arguments, list) else [])]
        return f"run {shlex.join(map(str, words))}{_pairs(entry.get('env'), 'with the variables')}, in {folder}"
    raw = str(entry.get("url"))
    return f"call {raw}{'' if raw == url else f', now {_bare(url)},'}{_pairs(entry.get('headers'), 'with the headers')}"


def _pairs(texts: Any, title: str) -> str:
    items = texts.items() if isinstance(texts, dict) else ()
    return f" {title} " + ", ".join(f"{name}={shlex.quote(str(value))}" for name, value in items) if items else ""


def _bare(url: str) -> str:
    """Strip credentials and query from a URL."""
    parts = split_address(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts else "none"


def split_address(url: str) -> SplitResult | None:
    """Split an HTTP URL. Returns None for an invalid one."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # Parsed on access; raises ValueError for an invalid port.
    except ValueError:
        return None
    return parts if parts.scheme in ("http", "https") and parts.hostname else None


def _secrets(values: list[str]) -> tuple[str, ...]:
    """Collect the values to redact: the values, their words, and passwords in URLs. Excludes paths, authorization
    schemes and URLs without credentials, which are useful in messages."""
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
