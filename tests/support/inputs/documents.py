"""The project's documents as the tests read them: their blocks, links and headings, and what is shown in them."""

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
"""Fields of answers that are different each time; `created` only where it is a time."""

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block, and where it is."""

    language: str
    text: str
    line: int
    follows: bool
    """Whether it comes right after another, with at most a sentence between."""


def name_of(path: Path) -> str:
    """A document as tests name it."""
    return str(path.relative_to(ROOT))


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks, in order."""
    end = -1
    for match in _BLOCK.finditer(text):
        between = text[end : match.start()] if end >= 0 else "#"
        follows = "\n\n" not in between.strip() and not between.strip().startswith("#")
        yield Block(match[1], match[2], text.count("\n", 0, match.start()) + 1, follows)
        end = match.end()


def commands_of(block: Block) -> list[str]:
    """The command lines of a block that begin with curl, each with the lines that it goes on in."""
    return [line.strip() for line in re.findall(r"^curl (?:[^\n]*\\\n)*[^\n]*", block.text, re.MULTILINE)]


def links(text: str) -> list[str]:
    """Where a document leads to, but for what is in its blocks."""
    return _LINK.findall(_BLOCK.sub("", text))


def anchors(text: str) -> set[str]:
    """What the headings are called in links, as GitHub has it, and what has a name of its own."""
    found: set[str] = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in _HEADING.findall(_BLOCK.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower().strip()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = next(number for number in range(1000) if _numbered(slug, number) not in found)
        found.add(_numbered(slug, number))
    return found


def is_webhook(value: Any) -> bool:
    """Whether it is a command in its envelope, and no answer."""
    is_object = isinstance(value, dict)
    return is_object and "command" in value and "status" not in value and value.get("type", ENVELOPE) == ENVELOPE


def timeless(value: Any) -> Any:
    """A value without what is different every time."""
    if isinstance(value, dict):
        return {
            name: timeless(item)
            for name, item in value.items()
            if name not in PASSING or (name == "created" and isinstance(item, bool))
        }
    return [timeless(item) for item in value] if isinstance(value, list) else value


def differences(shown: Any, got: Any, path: str = "answer") -> Iterator[str]:
    """Where an answer is not as it is shown. An object that is shown with "..." has more fields than these."""
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
