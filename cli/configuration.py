"""Finds the relay to connect to: from the environment, else the stored login, else a stack on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agent.http.relay_url import is_loopback, parse_address
from models.atomic_files import PRIVATE, replacing
from models.errors import SettingsError
from models.process.program import own_data_dir

NOTHING_HINT = (
    "Start a local stack with `make up`, log in with `session-cli login`, set RELAY_URL and API_KEY, or work on files "
    "with `--backend json`."
)


class Login(NamedTuple):
    """A relay and a key for it."""

    url: str
    key: str
    origin: str
    """The source of the key, for messages."""

    def __repr__(self) -> str:
        return f"Login({self.url!r}, {self.origin!r})"


def find_login(environment: Mapping[str, str]) -> Login:
    """Find the relay and its key. A key stored with one URL is never sent to another, and a key from elsewhere is never
    sent to a URL that a directory's files name. Raises SettingsError."""
    url, key = environment.get("RELAY_URL", "").strip(), environment.get("API_KEY", "").strip()
    if url and key:
        return Login(url, key, "API_KEY in the environment")
    if url:
        wanted = parse_address(url)
        for find in (stored_login, local_login):
            if (login := find(environment)) and login.url == wanted:
                return login
        raise SettingsError("RELAY_URL is set, but no key for it was found.", hint="Set API_KEY too.")
    if stored := stored_login(environment):
        return stored._replace(key=key, origin="API_KEY in the environment") if key else stored
    local = local_login(environment)
    if local is None:
        raise SettingsError("No relay is configured.", hint=NOTHING_HINT)
    if key and key != local.key:
        raise SettingsError(
            f"API_KEY is set without RELAY_URL: the key is not sent to {local.url}, which was found in {local.origin}.",
            hint="Set RELAY_URL too, or unset API_KEY.",
        )
    return local


def config_path(environment: Mapping[str, str]) -> Path:
    """The path of the stored login."""
    folder = environment.get("XDG_CONFIG_HOME", "")
    home = Path(folder) if os.path.isabs(folder) else Path("~/.config").expanduser()
    return home / "session-relay" / "config.json"


def stored_login(environment: Mapping[str, str]) -> Login | None:
    """Read the login that `login` stored. Raises SettingsError if the file is unreadable or other users can read it."""
    path = config_path(environment)
    content = _read_json(path)
    if content is None:
        return None
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise SettingsError(f"{path} contains a key, but other users can read it.", hint=f"Run: chmod 600 {path}")
    try:
        return Login(parse_address(content["url"]), content["key"], str(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"{path} is not a valid login file.", hint="Run `session-cli login` to recreate it."
        ) from error


def store_login(environment: Mapping[str, str], *, url: str, key: str) -> Path:
    """Store a login, readable by this user only, in place of the previous one."""
    path = config_path(environment)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with replacing(path, mode=PRIVATE) as file:
        file.write(json.dumps({"url": url, "key": key}).encode())
    return path


def forget_login(environment: Mapping[str, str]) -> Path | None:
    """Remove the stored login. Returns its path, or None if nothing was stored."""
    path = config_path(environment)
    try:
        path.unlink()
    except FileNotFoundError:
        return None
    return path


def local_login(environment: Mapping[str, str]) -> Login | None:
    """Find this user's running stack, with its data in DATA_DIR or this program's folder, and the key stored there.
    Raises SettingsError if the only stack found lacks a key or belongs to another user."""
    from local.stack.running_stack import read_own, running_stack

    trouble: SettingsError | None = None
    for folder in (Path(environment.get("DATA_DIR") or ".data"), own_data_dir(environment)):
        try:
            url = str((running_stack(folder) or {}).get("relay_url", ""))
            # A file in a directory may be anybody's: it must not cause a key to be sent to another machine.
            if not is_loopback(url):
                continue
            address, key = parse_address(url), (read_own(folder / "api_key") or "").strip()
        except SettingsError as error:
            trouble = trouble or error
            continue
        if key:
            return Login(address, key, str(folder))
        hint = "Set RELAY_URL and API_KEY."
        trouble = trouble or SettingsError(f"A stack runs at {address}, but {folder} contains no key.", hint=hint)
    if trouble:
        raise trouble
    return None


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"Cannot read {path}.", hint=str(error)) from error


def _read_json(path: Path) -> dict[str, Any] | None:
    text = _read_text(path)
    try:
        content = None if text is None else json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{path} is not valid JSON.") from error
    return content if isinstance(content, dict) else None
