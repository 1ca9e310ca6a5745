"""The project's documents for tests: their blocks, links, headings, and examples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from models.commands.strict_payloads import ENVELOPE_TYPE as ENVELOPE
from tests.support.project import ROOT

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md", "api/*.md")
    for path in ROOT.glob(pattern)
    if path.is_file()
)
PASSING = ("now", "delivery_id", "created", "created_at", "updated_at", "last_activity", "at", "rank", "status_url")
"""Fields of responses that differ each time; `created` only where it is a time."""

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block and its position."""

    language: str
    text: str
    line: int
    follows: bool
    """Whether it comes right after another block, with at most a sentence in between."""


def name_of(path: Path) -> str:
    """Return a document's name in test ids."""
    return str(path.relative_to(ROOT))


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks, in order."""
    end = -1
    for match in _BLOCK.finditer(text):
        between = text[end : match.start()] if end >= 0 else "#"
        follows = "\n\n" not in between.strip() and not between.strip().startswith("#")
        yield Block(match[1], match[2], text.count("\n", 0, match.start()) + 1, follows)
        end = match.end()


def commands_of(block: Block) -> list[str]:
    """Return the command lines of a block that begin with curl, each with its continuation lines."""
    return [line.strip() for line in re.findall(r"^curl (?:[^\n]*\\\n)*[^\n]*", block.text, re.MULTILINE)]


def links(text: str) -> list[str]:
    """Return the link targets of a document, except those in blocks."""
    return _LINK.findall(_BLOCK.sub("", text))


def anchors(text: str) -> set[str]:
    """Return the link anchors of the headings in GitHub's form, and explicit anchors."""
    found: set[str] = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in _HEADING.findall(_BLOCK.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower().strip()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = next(number for number in range(1000) if _numbered(slug, number) not in found)
        found.add(_numbered(slug, number))
    return found


def is_webhook(value: Any) -> bool:
    """Return whether a value is a command in its envelope, and not a response."""
    is_object = isinstance(value, dict)
    return is_object and "command" in value and "status" not in value and value.get("type", ENVELOPE) == ENVELOPE


def timeless(value: Any) -> Any:
    """Return a value without the fields that differ each time."""
    if isinstance(value, dict):
        return {
            name: timeless(item)
            for name, item in value.items()
            if name not in PASSING or (name == "created" and isinstance(item, bool))
        }
    return [timeless(item) for item in value] if isinstance(value, list) else value


def differences(shown: Any, got: Any, path: str = "answer") -> Iterator[str]:
    """Yield the differences between a response and its example. An object shown with "..." may have more fields."""
    if isinstance(shown, dict) and isinstance(got, dict):
        names = shown.keys() - {"..."} if "..." in shown else shown.keys() | got.keys()
        for name in sorted(names):
            yield from differences(shown.get(name), got.get(name), f"{path}.{name}")
    elif isinstance(shown, list) and isinstance(got, list) and len(shown) == len(got):
        for number, item in enumerate(shown):
            yield from differences(item, got[number], f"{path}[{number}]")
    elif shown != got:
        yield f"{path}: the document shows {shown!r}, the relay answers {got!r}"


def _numbered(slug: str, number: int) -> str:
    return f"{slug}-{number}" if number else slug
