"""The generated commands of the Python client are those of the definitions."""

from __future__ import annotations

import pytest

from docs.make_client import FOLDER, formatted


@pytest.mark.parametrize("is_async", [False, True], ids=["methods", "coroutines"])
def test_the_commands_of_the_client_are_up_to_date(is_async: bool) -> None:
    name = "async_commands.py" if is_async else "commands.py"
    assert (FOLDER / name).read_text() == formatted(is_async=is_async), "Stale: run `python -m docs.make_client`."
