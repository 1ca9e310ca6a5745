"""Renders templates to responses with the headers of all pages. Whatever a template inserts is escaped."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from api.pages.texts import clean_title, day_and_time, describe, duration, marked_parts, read_progress, shown
from api.static_files import url_of
from models.routes import path_to

if TYPE_CHECKING:
    from jinja2 import Environment

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    # With no-referrer, browsers would send forms with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def new_form_id() -> str:
    """Return an id for a form. The same form sent twice, such as by a double click, is one delivery."""
    return secrets.token_urlsafe(12)


@cache
def load_templates() -> Environment:
    """Import the libraries that render pages: most processes never do."""
    from jinja2 import Environment, FileSystemLoader

    from api.pages.highlighting import highlight, language_of
    from api.pages.markdown import render_markdown, render_message

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.globals |= {
        "language_of": language_of,
        "new_form_id": new_form_id,
        "path_to": path_to,
        "static": url_of,
    }
    templates.filters |= {
        "clean_title": clean_title,
        "day_and_time": day_and_time,
        "describe": describe,
        "duration": duration,
        "highlight": highlight,
        "markdown": render_markdown,
        "marked_parts": marked_parts,
        "message": render_message,
        "read_progress": read_progress,
        "shown": shown,
    }
    return templates


class PageResponse(HTMLResponse):
    """HTML. Characters that UTF-8 lacks are replaced."""

    def render(self, content: str) -> bytes:
        """Encode the page."""
        return content.encode("utf-8", "replace")


def render(template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **context: Any) -> Response:
    """Render a template of the folder `templates`."""
    content = load_templates().get_template(template).render(context)
    return PageResponse(content, status, headers={**HEADERS, **(headers or {})})


def more_url(request: Request, cursor: str, name: str) -> str:
    """Return the URL of the next page."""
    fields = {key: value for key, value in request.query_params.items() if key != name} | {name: cursor}
    return f"{request.url.path}?{urlencode(fields)}"
