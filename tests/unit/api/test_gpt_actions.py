"""Both OpenAPI documents are valid, and the one for a GPT is within all limits of its importer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import validate

from api.openapi.document import build_document
from api.openapi.gpt_actions import BATCH_LIMIT, MORE_OPERATIONS, build_gpt_document, is_consequential
from models.commands.definitions import COMMANDS
from models.field_types import MAX_CHARACTERS
from tests.support.inputs.openapi import operations

MOST_OPERATIONS = 30
MOST_OF_A_DESCRIPTION = 300
MOST_OF_A_PARAMETER = 700
MOST_OF_AN_ANSWER = 100_000


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(build_document()))
    return document


@pytest.fixture(scope="module")
def for_gpt(whole: dict[str, Any]) -> dict[str, Any]:
    document = build_gpt_document(whole) | {"servers": [{"url": "https://relay.example"}]}
    read: dict[str, Any] = json.loads(json.dumps(document))
    return read


def schemas_in(value: object) -> Iterator[dict[str, Any]]:
    """Yield all objects of a document that may be schemas."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from schemas_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from schemas_in(inner)


def test_both_documents_are_valid(whole: dict[str, Any], for_gpt: dict[str, Any]) -> None:
    validate(whole)
    validate(for_gpt)


def test_there_are_few_operations_with_unique_names(for_gpt: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(for_gpt)]
    assert len(names) == len(set(names)) <= MOST_OPERATIONS
    assert set(names) == {*COMMANDS, *MORE_OPERATIONS}


def test_texts_are_short(for_gpt: dict[str, Any]) -> None:
    for operation in operations(for_gpt):
        assert 0 < len(operation["summary"]) <= MOST_OF_A_DESCRIPTION
        assert "description" not in operation
        for parameter in operation["parameters"]:
            assert len(parameter.get("description", "")) <= MOST_OF_A_PARAMETER
    for schema in for_gpt["components"]["schemas"].values():
        for field in schema["properties"].values():
            assert len(field.get("description", "")) <= MOST_OF_A_PARAMETER
    assert len(for_gpt["info"]["description"]) <= MOST_OF_A_DESCRIPTION


def test_objects_have_properties_and_everything_has_one_type(for_gpt: dict[str, Any]) -> None:
    for schema in schemas_in(for_gpt):
        if schema.get("type") == "object":
            assert isinstance(schema["properties"], dict)
        assert not isinstance(schema.get("type"), list)
        assert {"type": "null"} not in schema.get("anyOf", [])
    for schema in for_gpt["components"]["schemas"].values():
        for name, field in schema["properties"].items():
            assert field.keys() & {"type", "$ref", "anyOf"}, name


def test_each_field_is_described_once_with_its_meaning(for_gpt: dict[str, Any]) -> None:
    for name in COMMANDS:
        operation = for_gpt["paths"][f"/v1/commands/{name}"]["post"]
        assert operation["parameters"] == []
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        fields = for_gpt["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
        assert all(field["description"] for field in fields.values()), name


def test_there_is_one_security_scheme_and_one_server(for_gpt: dict[str, Any]) -> None:
    assert for_gpt["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    assert for_gpt["security"] == [{"bearer": []}]
    assert len(for_gpt["servers"]) == 1
    assert not [
        parameter for op in operations(for_gpt) for parameter in op["parameters"] if parameter["in"] == "header"
    ]


def test_operations_that_delete_or_delegate_ask_a_person_first(for_gpt: dict[str, Any]) -> None:
    asked = {op["operationId"] for op in operations(for_gpt) if op["x-openai-isConsequential"] is True}
    assert asked == {"delete_session", "delete_memory", "delegate_task", "answer_task", "cancel_task", "batch"}
    assert {op["operationId"] for op in operations(for_gpt) if op["x-openai-isConsequential"] is False} | asked == {
        *COMMANDS,
        *MORE_OPERATIONS,
    }
    assert not is_consequential("read_delivery")


def test_texts_promise_no_larger_batches_than_the_document_allows(for_gpt: dict[str, Any]) -> None:
    batch = for_gpt["components"]["schemas"]["BatchRequest"]
    told = [for_gpt["paths"]["/v1/commands/batch"]["post"]["summary"], batch["description"]]
    assert batch["properties"]["commands"]["maxItems"] == BATCH_LIMIT
    assert all(f"up to {BATCH_LIMIT} commands" in text for text in told)


def test_responses_are_below_the_limit(for_gpt: dict[str, Any]) -> None:
    """With room for the parts of a response that `max_characters` does not limit."""
    limits = [
        schema["max_characters"]["maximum"]
        for schema in schemas_in(for_gpt)
        if isinstance(schema.get("max_characters"), dict) and "maximum" in schema["max_characters"]
    ]
    assert len(limits) > 10
    assert set(limits) == {MAX_CHARACTERS}
    assert MAX_CHARACTERS <= 0.9 * MOST_OF_AN_ANSWER
    assert len(json.dumps(for_gpt)) < MOST_OF_AN_ANSWER
