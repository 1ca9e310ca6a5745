"""The list of routes: the apps serve exactly these, the document describes them, and clients use them."""

from __future__ import annotations

import re

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from api.app import create_app
from api.openapi.document import build_document
from models.commands.definitions import COMMANDS
from models.routes import ADDRESSES, path_to, request_to, template_of
from models.settings import Settings
from relay.app import create_relay
from tests.support.project import ROOT

SETTINGS = Settings(api_key="k", database_url="postgresql:///x", redis_url="redis://x")
SHORT_OF_POSTGRES = {"index", "health", "readiness", "webhook", "webhook_alias", "hook", "command", "read_refusals"}


def served(app: Starlette) -> dict[str, tuple[str, set[str]]]:
    """Return path and methods of all routes by name."""
    routes = [route for route in app.routes if isinstance(route, Route)]
    assert len(routes) == len(app.routes) == len({route.name for route in routes})
    return {route.name: (route.path, set(route.methods or ())) for route in routes}


def test_the_public_app_serves_exactly_the_listed_routes() -> None:
    expected = {
        name: (address.path, {address.method, *address.more_methods} | ({"HEAD"} if address.method == "GET" else set()))
        for name, address in ADDRESSES.items()
    }
    assert served(create_app(SETTINGS)) == expected


def test_the_relay_alone_serves_the_routes_that_need_no_postgres() -> None:
    whole = served(create_app(SETTINGS))
    assert served(create_relay(SETTINGS)) == {name: whole[name] for name in SHORT_OF_POSTGRES}


def test_the_document_describes_every_route_with_its_name_and_tag() -> None:
    described = {
        operation["operationId"]: (method, path, operation["tags"])
        for path, operations in build_document()["paths"].items()
        for method, operation in operations.items()
    }
    expected = {
        name: (address.method.lower(), address.template, [address.tag])
        for name, address in ADDRESSES.items()
        if address.tag and name != "command"
    }
    commands = {name: ("post", template_of("command").format(command=name), ["commands"]) for name in COMMANDS}
    assert described == expected | commands


def test_parameters_are_quoted_as_one_path_segment() -> None:
    odd = "a/b?c#d%2F é"
    assert path_to("read_memory", session_id="s", key=odd) == "/v1/sessions/s/memories/a%2Fb%3Fc%23d%252F%20%C3%A9"
    assert request_to("revoke_key", name_or_id="..") == ("DELETE", "/v1/keys/..")
    with pytest.raises(KeyError):
        path_to("read_session")


@pytest.mark.parametrize("room", ["agent", "cli", "local", "relay", "api"])
def test_no_route_is_repeated_in_the_code(room: str) -> None:
    """Except in HTML pages for browsers, and for a comparison in OAuth."""
    allowed = {"api/openapi/docs_page.py", "api/openapi/gpt_actions.py", "api/oauth/sign_in_page.py"}
    allowed.add("api/oauth/resource_indicators.py")
    written = re.compile(
        r"""["'](/v1/|/webhook|/healthz|/readyz|/metrics|/mcp|/oauth/|/docs|/openapi|/llm-|/\.well-known)"""
    )
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / room).rglob("*.py"))
        if str(path.relative_to(ROOT)) not in allowed
        for line in path.read_text().splitlines()
        if written.search(line)
    ]
    assert found == []
