"""The OpenAPI document describes everything that exists, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.routing import Route

from api.app import create_app
from api.openapi.document import build_document
from api.openapi.responses import RATE_HEADERS
from models.commands.definitions import COMMANDS
from models.field_types import NAME_PATTERN
from models.settings import Settings
from tests.support.inputs.openapi import operations

SETTINGS = Settings(api_key="k", redis_url="redis://127.0.0.1:1/0", database_url="postgresql://127.0.0.1:1/none")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build_document()


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(target := value.get("$ref"), str):
            yield target
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def texts_under(value: object, name: str) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(text := value.get(name), str):
            yield text
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from texts_under(inner, name)


OF_OTHER_PROTOCOLS = ("/mcp", "/oauth/", "/.well-known/")
"""Routes of protocols with descriptions of their own."""
OF_PAGES = (
    *("/sessions", "/deliveries", "/dead-letters", "/keys", "/hooks", "/refusals", "/agents", "/status"),
    *("/static/", "/sign-"),
)
"""Routes for browsers."""


def test_every_route_is_described(document: dict[str, Any]) -> None:
    routes = {
        (route.path.replace(":path}", "}"), method.lower())
        for route in create_app(SETTINGS).routes
        if isinstance(route, Route) and not route.path.startswith(OF_OTHER_PROTOCOLS + OF_PAGES)
        for method in (route.methods or set()) - {"HEAD"}
    }
    flat = {(f"/v1/commands/{name}", "post") for name in COMMANDS}
    expected = routes - {("/v1/commands/{command}", "post")} | flat
    assert {(path, method) for path, methods in document["paths"].items() for method in methods} == expected


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in operations(document)]
    assert len(ids) == len(set(ids))
    assert set(COMMANDS) <= set(ids)


def test_all_references_resolve(document: dict[str, Any]) -> None:
    for target in references(document):
        place: Any = document
        for part in target.removeprefix("#/").split("/"):
            place = place[part]
        assert place


def test_texts_are_short_enough_for_gpt_actions(document: dict[str, Any]) -> None:
    for operation in operations(document):
        assert 0 < len(operation["summary"]) <= 300
        assert all(len(str(parameter.get("description", ""))) <= 700 for parameter in operation["parameters"])


def test_a_command_lists_its_fields_beside_the_session(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["StoreMemoryRequest"]
    assert schema["required"] == ["session_id"]
    assert {"session_id", "id", "content", "type", "tags", "key"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    artifact = document["components"]["schemas"]["AddArtifactRequest"]
    assert artifact["properties"]["metadata"]["default"] == {}


def test_parameters_come_from_the_command(document: dict[str, Any]) -> None:
    parameters = {p["name"]: p for p in document["paths"]["/v1/sessions/{session_id}/memories"]["get"]["parameters"]}
    assert parameters["session_id"]["in"] == "path"
    assert parameters["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 500, "default": 10}
    assert parameters["tags"]["explode"] is False


def test_only_public_routes_need_no_key(document: dict[str, Any]) -> None:
    free = {path for path, methods in document["paths"].items() for op in methods.values() if op.get("security") == []}
    assert free == {
        "/",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/llm-instructions",
        "/docs",
        "/docs/{file}",
        "/v1/hooks/{token}",
    }


def test_each_status_is_documented_with_its_meaning_and_headers(document: dict[str, Any]) -> None:
    responses = document["paths"]["/v1/commands/store_memory"]["post"]["responses"]
    refused = {400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503}
    assert set(responses) == {"200", "202", *map(str, refused)}
    components = document["components"]["responses"]
    assert responses["429"] == {"$ref": "#/components/responses/Error429"}
    assert components["Error429"]["headers"]["Retry-After"]["required"] is True
    assert set(components["Error429"]["headers"]) == {"Retry-After", *RATE_HEADERS}
    assert components["Error401"]["headers"]["WWW-Authenticate"]["required"] is True
    assert components["Error409"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}
    assert set(responses["202"]["headers"]) == set(RATE_HEADERS)


def test_only_possible_statuses_are_documented(document: dict[str, Any]) -> None:
    def told(path: str, method: str = "get") -> set[str]:
        return set(document["paths"][path][method]["responses"])

    reads = {"200", "400", "401", "403", "408", "422", "429", "503"}
    assert told("/v1/sessions") == reads
    assert told("/v1/tasks") == reads | {"404"}
    assert told("/v1/deliveries") == reads
    assert told("/v1/deliveries/{delivery_id}") == reads | {"404"}
    assert told("/v1/keys", "post") == reads - {"200"} | {"201", "404", "409", "413", "415"}
    assert told("/healthz") == {"200", "400", "408", "503"}
    assert all("default" not in operation["responses"] for operation in operations(document))


def test_patterns_use_the_syntax_of_json_schema(document: dict[str, Any]) -> None:
    assert not [pattern for pattern in texts_under(document, "pattern") if r"(?!\n)" in pattern]
    name = re.compile(document["components"]["schemas"]["RenameSessionRequest"]["properties"]["title"]["pattern"])
    for text in ("a", " a ", "Wärmepumpe", "", " ", "a\nb", "a\u2028b", "\t"):
        assert bool(name.search(text)) == bool(re.search(NAME_PATTERN, text)), text
