"""All sessions of a store as JSON Lines, each document on one line, and back.

A document has line breaks, some of them within what senders gave, which must come back as it was. No text in JSON
contains the bytes of a line break or tab, they only stand between its parts: so on a line each is written with tabs
and blanks, which mean as little there, and is found again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from typing import IO

from models.errors import NotFound, Rejected, TooLarge
from sessions.backend import Backend, Imported
from sessions.documents.import_validation import MAX_DOCUMENT_BYTES

_ESCAPES = {b"\t": b"\t\t", b"\r": b"\t \t", b"\n": b"\t  "}
"""In this order: none of the later ones is part of what an earlier one makes."""
_ESCAPED = re.compile(rb"\t(\t| \t|  )")
_ORIGINALS = {escaped: original for original, escaped in _ESCAPES.items()}


def export_all(backend: Backend) -> Iterator[bytes]:
    """Every session, the oldest first, piece by piece. One that is deleted meanwhile is left out."""
    for session_id in backend.session_ids():
        try:
            yield from _line(backend.export(session_id, format="json"))
        except NotFound:
            continue


def import_all(backend: Backend, stream: IO[bytes]) -> Iterator[Imported]:
    """Take over every session of such a stream, one after the other; those before one that is refused stay. May be
    repeated. Raises what import_document does, with the number of the line."""
    number = 0
    while line := stream.readline(2 * MAX_DOCUMENT_BYTES):
        number += 1
        if not line.endswith(b"\n") and len(line) == 2 * MAX_DOCUMENT_BYTES:
            raise TooLarge(f"Line {number} is too long.")
        if not line.strip():
            continue
        document = _ESCAPED.sub(lambda match: _ORIGINALS[match[0]], line)
        try:
            yield backend.import_document(BytesIO(document))
        except Rejected as error:
            error.message = f"Line {number}: {error.message}"
            raise


def _line(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The document, whose last byte is a line break, as a line."""
    held = b""
    for piece in pieces:
        yield _escape(held)
        held = piece
    yield _escape(held.removesuffix(b"\n")) + b"\n"


def _escape(piece: bytes) -> bytes:
    for original, escaped in _ESCAPES.items():
        piece = piece.replace(original, escaped)
    return piece
