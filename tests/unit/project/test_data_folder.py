"""The data folder of an installed program: in the user's home, wherever that is."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from models.process import program
from models.process.program import own_data_dir
from models.settings import read_settings


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "IS_INSTALLED", True)
    monkeypatch.setattr("models.settings.IS_INSTALLED", True)


def test_a_home_behind_a_symbolic_link_is_the_users_own(tmp_path: Path) -> None:
    home, link = tmp_path / "home", tmp_path / "link"
    home.mkdir()
    link.symlink_to(home)
    environment = {"XDG_DATA_HOME": str(link)}
    # Commands compare their folder, without links, with this one before they start its Postgres.
    assert own_data_dir(environment) == Path(read_settings(environment).data_dir).resolve() == home / "session-relay"


def test_an_account_without_a_home_has_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> pwd.struct_passwd:
        raise KeyError(number)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert read_settings({}).data_dir == "/var/lib/session-relay"
    assert read_settings({"DATA_DIR": os.devnull}).data_dir == os.devnull
