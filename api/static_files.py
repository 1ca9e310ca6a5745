"""Style sheets, script and icon of the pages for people. Their URLs contain a hash, so that browsers keep them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.routes import path_to
from relay.http.query_parameters import decode_parameters
from relay.http.routing import route

File = Literal["theme.css", "page.css", "page.js", "icon.svg"]
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
HASH_LENGTH = 12


class FileParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Selects a file; `v` is the hash of its content."""

    file: File
    v: str = ""


class StaticFile(NamedTuple):
    """A file in memory."""

    content: bytes
    media_type: str
    url: str


def _read(name: str) -> StaticFile:
    path = Path(__file__).parent / "pages" / "static" / name
    content = path.read_bytes()
    version = hashlib.sha256(content).hexdigest()[:HASH_LENGTH]
    return StaticFile(content, MEDIA_TYPES[path.suffix], f"{path_to('page_file', file=name)}?v={version}")


_FILES = {name: _read(name) for name in get_args(File)}


def url_of(name: File) -> str:
    """Return the URL of a file."""
    return _FILES[name].url


def static_route() -> Route:
    """The route of the files."""

    async def answer(request: Request) -> Response:
        name = decode_parameters(request.query_params, FileParameters, **request.path_params).file
        return Response(_FILES[name].content, media_type=_FILES[name].media_type, headers=HEADERS)

    return route("page_file", answer)
