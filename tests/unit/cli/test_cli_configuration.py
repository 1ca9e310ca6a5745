"""The choice of the relay, and the storage of a key."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.configuration import config_path, find_login, forget_login, store_login, stored_login
from local.data_dir import Lock
from models.errors import SettingsError

URL = "https://relay.example"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An empty environment, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("models.process.program.PROJECT", tmp_path)
    return {"XDG_CONFIG_HOME": str(tmp_path / "config")}


@contextmanager
def running_stack(folder: Path, *, url: str = "http://127.0.0.1:8123", key: str = "of-stack") -> Iterator[None]:
    """A folder like that of a running stack, with its lock held."""
    folder.mkdir(exist_ok=True)
    (folder / "stack.json").write_text(json.dumps({"pid": os.getpid(), "relay_url": url}))
    (folder / "api_key").write_text(key)
    lock = Lock(folder / "stack.lock", subject="It")
    try:
        yield
    finally:
        lock.release()


def test_without_settings_it_says_how_to_start(environment: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as raised:
        find_login(environment)
    assert all(way in str(raised.value.hint) for way in ("make up", "session-cli login", "RELAY_URL", "--backend json"))
    with running_stack(Path(".data")):
        pass
    with pytest.raises(SettingsError, match="No relay") as raised:
        find_login(environment)
    assert re.search(r"stack in .+/\.data is stopped. Start it with `make -C .+ up`", str(raised.value.hint))


def test_the_environment_takes_precedence_over_the_login_and_that_over_the_stack(environment: dict[str, str]) -> None:
    with running_stack(Path(".data")):
        assert find_login(environment)[:2] == ("http://127.0.0.1:8123", "of-stack")
        store_login(environment, url=URL, key="stored")
        assert find_login(environment)[:2] == (URL, "stored")
        assert find_login({**environment, "RELAY_URL": "http://x:1", "API_KEY": "mine"})[:2] == ("http://x:1", "mine")


def test_a_key_of_the_environment_is_not_sent_to_the_url_of_a_login(environment: dict[str, str]) -> None:
    store_login(environment, url=URL, key="stored")
    with pytest.raises(SettingsError, match=f"not sent to {URL}") as raised:
        find_login({**environment, "API_KEY": "mine"})
    assert "RELAY_URL" in str(raised.value.hint)
    assert find_login({**environment, "API_KEY": "stored"})[:2] == (URL, "stored")
    assert find_login({**environment, "API_KEY": "mine", "RELAY_PROFILE": "default"})[:2] == (URL, "stored")


def test_a_key_of_the_environment_is_not_sent_to_the_stack_of_a_folder(environment: dict[str, str]) -> None:
    with running_stack(Path(".data")):
        with pytest.raises(SettingsError, match="not sent to http://127") as raised:
            find_login({**environment, "API_KEY": "mine"})
        assert "RELAY_URL" in str(raised.value.hint)
        assert find_login({**environment, "API_KEY": "of-stack"}).url == "http://127.0.0.1:8123"
        assert find_login({**environment, "RELAY_URL": "http://127.0.0.1:8123"}).key == "of-stack"


def test_a_stored_key_is_not_sent_to_another_url(environment: dict[str, str]) -> None:
    store_login(environment, url=URL, key="stored")
    assert find_login({**environment, "RELAY_URL": f"{URL}/"}).key == "stored"
    with pytest.raises(SettingsError, match="no key for it"):
        find_login({**environment, "RELAY_URL": "https://other.example"})


def test_a_stack_that_has_ended_or_is_elsewhere_is_ignored(environment: dict[str, str]) -> None:
    with running_stack(Path(".data")):
        pass
    with pytest.raises(SettingsError, match="No relay"):
        find_login(environment)
    with (
        running_stack(Path(".data"), url="http://relay.example:8000"),
        pytest.raises(SettingsError, match="No relay"),
    ):
        find_login({**environment, "API_KEY": "mine"})


def test_a_stack_is_found_in_its_data_dir(environment: dict[str, str], tmp_path: Path) -> None:
    with running_stack(tmp_path / "elsewhere", key="there"):
        assert find_login({**environment, "DATA_DIR": str(tmp_path / "elsewhere")}).key == "there"


def test_the_login_file_is_private(environment: dict[str, str]) -> None:
    path = store_login(environment, url=URL, key="stored")
    assert path == config_path(environment)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert "stored" not in repr(stored_login(environment))
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="other users can read"):
        stored_login(environment)
    assert store_login(environment, url=URL, key="other") == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["config.json"]


def test_a_login_can_be_deleted(environment: dict[str, str]) -> None:
    path = store_login(environment, url=URL, key="stored")
    assert (forget_login(environment), forget_login(environment)) == (path, None)
    assert stored_login(environment) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"url": 1, "key": "k"}'])
def test_a_damaged_login_is_named(environment: dict[str, str], text: str) -> None:
    path = store_login(environment, url=URL, key="stored")
    path.write_text(text)
    if text == "[]":
        assert stored_login(environment) is None
        return
    with pytest.raises(SettingsError, match=r"is not valid JSON|is not a valid login file"):
        stored_login(environment)
