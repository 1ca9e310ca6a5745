"""Which relay to talk to: the environment's, else that of the stored login, else a stack on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agent.http.relay_url import is_loopback, parse_address
from models.atomic_files import PRIVATE, replacing
from models.errors import SettingsError

PROJECT = Path(__file__).resolve().parent.parent
NOTHING_HINT = (
    "Start a stack on this machine with `make up`, or `session-cli login` to a relay, or set RELAY_URL and API_KEY, or "
    "work on files with `--backend json`."
)


class Login(NamedTuple):
    """A relay and a key for it."""

    url: str
    key: str
    origin: str
    """Where the key was found."""

    def __repr__(self) -> str:
        return f"Login({self.url!r}, {self.origin!r})"


def find_login(environment: Mapping[str, str]) -> Login:
    """The relay to talk to. A key that was found with one address is never shown to another, and one that was not found
    in a folder never to an address that a folder names. Raises SettingsError."""
    url, key = environment.get("RELAY_URL", "").strip(), environment.get("API_KEY", "").strip()
    if url and key:
        return Login(url, key, "API_KEY in the environment")
    if url:
        wanted = parse_address(url)
        for find in (stored_login, local_login):
            if (login := find(environment)) and login.url == wanted:
                return login
        raise SettingsError("RELAY_URL is set, but there is no key for it.", hint="Set API_KEY, too.")
    if stored := stored_login(environment):
        return stored._replace(key=key, origin="API_KEY in the environment") if key else stored
    local = local_login(environment)
    if local is None:
        raise SettingsError("There is no relay to talk to.", hint=NOTHING_HINT)
    if key and key != local.key:
        raise SettingsError(
            f"API_KEY is set, but not for which relay: it is not shown to {local.url}, which {local.origin} names.",
            hint="Set RELAY_URL, too, or unset API_KEY.",
        )
    return local


def config_path(environment: Mapping[str, str]) -> Path:
    """Where the login is stored."""
    folder = environment.get("XDG_CONFIG_HOME", "")
    home = Path(folder) if os.path.isabs(folder) else Path("~/.config").expanduser()
    return home / "session-relay" / "config.json"


def stored_login(environment: Mapping[str, str]) -> Login | None:
    """What `login` has stored. Raises SettingsError if others can read it, or it cannot be read."""
    path = config_path(environment)
    content = _read_json(path)
    if content is None:
        return None
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise SettingsError(f"Others can read {path}, which has a key in it.", hint=f"chmod 600 {path}")
    try:
        return Login(parse_address(content["url"]), content["key"], str(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{path} is damaged.", hint="`session-cli login` writes it anew.") from error


def store_login(environment: Mapping[str, str], *, url: str, key: str) -> Path:
    """Keep a login for this user alone, replacing the one before."""
    path = config_path(environment)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with replacing(path, mode=PRIVATE) as file:
        file.write(json.dumps({"url": url, "key": key}).encode())
    return path


def forget_login(environment: Mapping[str, str]) -> Path | None:
    """Remove what was stored; where it was, if there was any."""
    path = config_path(environment)
    try:
        path.unlink()
    except FileNotFoundError:
        return None
    return path


def local_login(environment: Mapping[str, str]) -> Login | None:
    """A stack of this user that runs on this machine, with its data here or in the project's folder, and the key that
    lies there. Raises SettingsError for one that has none, or is another user's, if there is no other."""
    from local.stack.running_stack import read_own, running_stack

    trouble: SettingsError | None = None
    for folder in (Path(environment.get("DATA_DIR") or ".data"), PROJECT / ".data"):
        try:
            url = str((running_stack(folder) or {}).get("relay_url", ""))
            # What lies in a folder is no reason to show a key to another machine.
            if not is_loopback(url):
                continue
            address, key = parse_address(url), (read_own(folder / "api_key") or "").strip()
        except SettingsError as error:
            trouble = trouble or error
            continue
        if key:
            return Login(address, key, str(folder))
        hint = "Set RELAY_URL and API_KEY."
        trouble = trouble or SettingsError(f"A stack runs at {address}, but its key is not in {folder}.", hint=hint)
    if trouble:
        raise trouble
    return None


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read.", hint=str(error)) from error


def _read_json(path: Path) -> dict[str, Any] | None:
    text = _read_text(path)
    try:
        content = None if text is None else json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{path} is damaged.") from error
    return content if isinstance(content, dict) else None
