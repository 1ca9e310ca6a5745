"""Finds the relay to connect to: from the environment, else the stored login, else a stack on this machine."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agent.http.relay_url import is_loopback, parse_address
from cli.backends.selection import PROFILE_VARIABLE
from models.atomic_files import PRIVATE, replacing
from models.errors import SettingsError
from models.process.program import IS_INSTALLED, PROJECT, own_data_dir

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
DEFAULT_PROFILE = "default"
PROFILE_LENGTH = 64
NOTHING_HINT = (
    "Start a local stack with `make up`, log in with `session-cli login`, set RELAY_URL and API_KEY, or work on files "
    "with `--backend json`."
)


class Profile(NamedTuple):
    """A stored login without its key."""

    name: str
    url: str
    is_current: bool


class Login(NamedTuple):
    """A relay and a key for it."""

    url: str
    key: str
    origin: str
    """The source of the key, for messages."""
    profile: str = ""
    """The name of the stored login."""

    def __repr__(self) -> str:
        return f"Login({self.url!r}, {self.origin!r})"


def find_login(environment: Mapping[str, str]) -> Login:
    """Find the relay and its key. A key is sent only to the URL that it is stored or set with: API_KEY to RELAY_URL. A
    profile that is named goes before all else. Raises SettingsError."""
    if environment.get(PROFILE_VARIABLE) and (chosen := stored_login(environment)):
        return chosen
    url, key = environment.get("RELAY_URL", "").strip(), environment.get("API_KEY", "").strip()
    if url and key:
        return Login(url, key, "API_KEY in the environment")
    if url:
        wanted = parse_address(url)
        current = stored_login(environment)
        logins = [*([current] if current else []), *_read_logins(environment)[1].values()]
        if login := next((login for login in logins if login.url == wanted), None):
            return login
        if (local := local_login(environment)) and local.url == wanted:
            return local
        raise SettingsError("RELAY_URL is set, but no key for it was found.", hint="Set API_KEY too.")
    found = stored_login(environment) or local_login(environment)
    if found is None:
        raise SettingsError("No relay is configured.", hint=_describe_stopped(environment) or NOTHING_HINT)
    if key and key != found.key:
        raise SettingsError(
            f"API_KEY is set without RELAY_URL: the key is not sent to {found.url}, which was found in {found.origin}.",
            hint="Set RELAY_URL too, or unset API_KEY.",
        )
    return found


def config_path(environment: Mapping[str, str]) -> Path:
    """The path of the stored login."""
    folder = environment.get("XDG_CONFIG_HOME", "")
    home = Path(folder) if os.path.isabs(folder) else Path("~/.config").expanduser()
    return home / "session-relay" / "config.json"


def stored_login(environment: Mapping[str, str]) -> Login | None:
    """Read the login that RELAY_PROFILE names, or the current one. Raises SettingsError for an unknown name, and if the
    file is unreadable or other users can read it."""
    current, logins = _read_logins(environment)
    name = environment.get(PROFILE_VARIABLE, "").strip()
    if name and name not in logins:
        raise _unknown_profile(name, logins)
    return logins.get(name or current)


def stored_profiles(environment: Mapping[str, str]) -> list[Profile]:
    """List the stored logins by name."""
    current, logins = _read_logins(environment)
    return [Profile(name, login.url, name == current) for name, login in sorted(logins.items())]


def choose_profile(environment: Mapping[str, str], name: str) -> Profile:
    """Make a stored login the current one. Raises SettingsError for an unknown name."""
    _, logins = _read_logins(environment)
    if name not in logins:
        raise _unknown_profile(name, logins)
    _write_logins(config_path(environment), name, logins)
    return Profile(name, logins[name].url, True)


def store_login(environment: Mapping[str, str], *, url: str, key: str) -> Path:
    """Store a login, readable by this user only, under the name in RELAY_PROFILE, or in place of the current one. It is
    the current one then. Raises SettingsError for an invalid name."""
    path = config_path(environment)
    try:
        current, logins = _read_logins(environment, must_be_private=False)
    except SettingsError:  # Damaged: it is replaced.
        current, logins = "", {}
    name = environment.get(PROFILE_VARIABLE, "").strip() or current or DEFAULT_PROFILE
    if not name.isprintable() or len(name) > PROFILE_LENGTH:
        raise SettingsError("Invalid name of a profile.", expected=f"up to {PROFILE_LENGTH} printable characters")
    _write_logins(path, name, {**logins, name: Login(url, key, str(path), name)})
    return path


def forget_login(environment: Mapping[str, str]) -> Path | None:
    """Remove the login that RELAY_PROFILE names, or the current one; the file, if it was the last. Returns the file's
    path, or None if nothing was stored. Raises SettingsError for an unknown name."""
    path = config_path(environment)
    if not path.exists():
        return None
    login = stored_login(environment)
    current, logins = _read_logins(environment)
    rest = {name: other for name, other in logins.items() if login and name != login.profile}
    if not rest:
        path.unlink()
    elif len(rest) < len(logins):
        kept = current if current in rest else next(iter(rest)) if len(rest) == 1 else ""
        _write_logins(path, kept, rest)
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


def _describe_stopped(environment: Mapping[str, str]) -> str:
    """Describe this user's stack that does not run, and how to start it, or return an empty text."""
    folder = own_data_dir(environment)
    start = "session-relay up" if IS_INSTALLED else f"make -C {shlex.quote(str(PROJECT))} up"
    return f"The stack in {folder} is stopped. Start it with `{start}`." if (folder / "api_key").is_file() else ""


def _unknown_profile(name: str, logins: Mapping[str, Login]) -> SettingsError:
    known = f"Stored: {', '.join(sorted(logins))}." if logins else ""
    return SettingsError(
        f"No login is stored as {name!r}.", hint=f"{known} Run `session-cli login URL --profile {name}`.".strip()
    )


def _read_logins(environment: Mapping[str, str], *, must_be_private: bool = True) -> tuple[str, dict[str, Login]]:
    """The name of the current login, and all logins by name. Earlier versions stored one, without a name."""
    path = config_path(environment)
    content = _read_json(path)
    if content is None:
        return "", {}
    if must_be_private and os.name == "posix" and path.stat().st_mode & 0o077:
        raise SettingsError(f"{path} contains a key, but other users can read it.", hint=f"Run: chmod 600 {path}")
    profiles = content.get("profiles", {DEFAULT_PROFILE: content})
    try:
        logins = {
            name: Login(parse_address(stored["url"]), stored["key"], str(path), name)
            for name, stored in profiles.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"{path} is not a valid login file.", hint="Run `session-cli login` to recreate it."
        ) from error
    return str(content.get("current", DEFAULT_PROFILE)), logins


def _write_logins(path: Path, current: str, logins: Mapping[str, Login]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    stored = {name: {"url": login.url, "key": login.key} for name, login in logins.items()}
    with replacing(path, mode=PRIVATE) as file:
        file.write(json.dumps({"current": current, "profiles": stored}).encode())


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
