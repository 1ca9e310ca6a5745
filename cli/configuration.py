"""Which relay to talk to: the environment's, else that of the stored login, else a stack on this machine."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agent.address import is_loopback, parse_address
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
    """The relay to talk to. A key that was found with one address is never shown to another. Raises SettingsError."""
    url, key = environment.get("RELAY_URL", "").strip(), environment.get("API_KEY", "").strip()
    if url and key:
        return Login(url, key, "API_KEY in the environment")
    known = [login for login in (stored_login(environment), local_login(environment)) if login]
    if url:
        wanted = parse_address(url)
        for login in known:
            if login.url == wanted:
                return login
        raise SettingsError("RELAY_URL is set, but there is no key for it.", hint="Set API_KEY, too.")
    if not known:
        raise SettingsError("There is no relay to talk to.", hint=NOTHING_HINT)
    return known[0]._replace(key=key, origin="API_KEY in the environment") if key else known[0]


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
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".config-")  # with mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"url": url, "key": key}, file)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
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
    """A stack that runs on this machine, with its data here or in the project's folder."""
    folders = [Path(environment.get("DATA_DIR") or ".data"), PROJECT / ".data"]
    for folder in folders:
        stack = _read_json(folder / "stack.json")
        if not stack or not _is_alive(stack.get("pid")):
            continue
        url = str(stack.get("relay_url", ""))
        # What lies in a folder is no reason to show a key to another machine.
        if is_loopback(url):
            key = _read_text(folder / "api_key") or environment.get("API_KEY", "")
            if not key.strip():
                raise SettingsError(f"A stack runs at {url}, but its key is not in {folder}.", hint="Set API_KEY.")
            return Login(parse_address(url), key.strip(), str(folder))
    return None


def _is_alive(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # Somebody else's.
    return True


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
