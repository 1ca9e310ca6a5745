"""`/docs`: the OpenAPI document in Swagger UI, without internet access.

The files of Swagger UI come from a package for Django; serving them does not need Django. The content security policy
forbids loading anything from, or sending anything to, other origins.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from api.static_files import url_of
from models.errors import SettingsError
from relay.http.query_parameters import decode_parameters
from relay.http.routing import route

PACKAGE = "drf_spectacular_sidecar"
FOLDER = f"static/{PACKAGE}/swagger-ui-dist"
CACHE_SECONDS = 3_600
"""Cache lifetime of the files, which change only with the package."""

File = Literal["start.js", "page.css", "swagger-ui-bundle.js", "swagger-ui.css"]
OWN: tuple[File, ...] = ("start.js", "page.css")
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>The API – session-relay</title>
<link rel="icon" type="image/svg+xml" href="{url_of("icon.svg")}">
<link rel="stylesheet" href="{url_of("theme.css")}">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="stylesheet" href="/docs/page.css">
</head>
<body>
<header class="top">
<h1>The API</h1>
<nav class="wide" aria-label="Ways around">
<a class="brand" href="/"><img src="{url_of("icon.svg")}" alt="" width="24" height="24">Sessions</a>
<a href="/llm-instructions">Instructions for LLMs</a>
<a href="/openapi.json">OpenAPI</a>
<a href="/openapi.json?client=gpt">for a custom GPT</a>
</nav>
</header>
<noscript>This page needs JavaScript; the links above do not.</noscript>
<main id="api"></main>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""


class FileParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Selects one of the page's files."""

    file: File


def docs_routes() -> list[Route]:
    """The routes of the page and its files. Raises SettingsError if the package is not installed."""
    paths = {name: _locate(name) for name in get_args(File)}

    async def page(_: Request) -> Response:
        return HTMLResponse(PAGE, headers={"cache-control": "no-cache", **HEADERS})

    async def file(request: Request) -> Response:
        name = decode_parameters(request.query_params, FileParameters, file=request.path_params["file"]).file
        headers = {"cache-control": f"public, max-age={CACHE_SECONDS}", **HEADERS}
        return FileResponse(paths[name], media_type=MEDIA_TYPES[paths[name].suffix], headers=headers)

    return [route("docs", page), route("docs_file", file)]


def _locate(name: File) -> Path:
    if name in OWN:
        return Path(__file__).parent / "docs_assets" / name
    found = find_spec(PACKAGE)  # Importing it would import Django.
    folders = (found.submodule_search_locations if found else None) or []
    for folder in folders:
        if (path := Path(folder) / FOLDER / name).is_file():
            return path
    raise SettingsError(f"{name} of the package {PACKAGE.replace('_', '-')} is missing: install the dependencies.")
