"""Requests generated from the OpenAPI document, valid and invalid: each response conforms to the document.

`MAX_EXAMPLES` sets the number of requests for each operation, beyond those that cover its schemas. They then differ in
each run, and all that cover the schemas are sent, of which other runs send a part.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.transport import Response
from schemathesis.engine import Status, events, from_schema
from schemathesis.generation.meta import coverage_scenario
from schemathesis.openapi.checks import RejectedPositiveData

from api.openapi.document import build_document
from models.field_types import MAX_WAIT_SECONDS
from tests.support.inputs.loose_spellings import is_loosely_valid
from tests.support.processes.stack import Stack
from tests.support.project import API_KEY

EXAMPLES = int(os.environ.get("MAX_EXAMPLES", "2"))
IS_RANDOM = "MAX_EXAMPLES" in os.environ
WAIT_SECONDS = 0.2
"""The maximum wait for events."""
ANSWER_SECONDS = 5
"""The wait for a command's response, which comes sooner."""

STEP = 1 if IS_RANDOM else 10
"""Of the requests that cover the schemas of an operation, the first and then every so many are sent."""
OF_A_KIND = 5
"""So many of those that cover schemas in the same way are sent in any case."""

OPERATIONS = {
    f"{method.upper()} {path}" for path, operations in build_document()["paths"].items() for method in operations
}

TOLD_BY_MEANING = {
    *("since", "until", "start_time", "end_time", "not_before", "due", "due_after", "due_before", "timezone"),
    *("cursor", "after", "confirm"),
    *("scopes", "sessions"),
}
"""Fields whose values no schema can describe: times, earlier results, values that depend on another field."""
HOLDS_COMMANDS = {"webhook", "webhook_alias", "batch"}
"""Operations whose schema does not describe the data of commands."""
LISTS = {"tags", "in"}
"""Parameters that are lists."""

NUMBERS = itertools.count(1)
MADE: Counter[str] = Counter()
"""The requests made so far to cover schemas, of each kind and for each operation."""
Case = schemathesis.Case[Any]
Document = schemathesis.BaseSchema


class Records:
    """What generated ids find: `0` is a common one."""

    CREATED: Mapping[str, Mapping[str, str]] = {
        "create_session": {"title": "0"},
        "resume_session": {},
        "store_memory": {"key": "0", "content": "0"},
        "delegate_task": {"task_id": "0", "description": "0"},
        "add_artifact": {"artifact_id": "0", "name": "0", "content": "0"},
    }

    def __init__(self) -> None:
        self.stack: Stack | None = None
        self._operation = ""

    def renew_for(self, operation: str) -> None:
        """Create those that do not exist, or not any longer, unless the last call was for the same operation."""
        if self.stack is None or operation == self._operation:
            return
        self._operation = operation
        commands = [{"command": command, "data": data} for command, data in self.CREATED.items()]
        assert self.stack.try_send("batch", "0", mode="partial", commands=commands).status_code == 200
        self.stack.post("list_sessions", delivery_id="0")
        self.stack.client.post("/v1/keys", json={"name": "0", "scopes": ["read"]})


RECORDS = Records()


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: Case) -> bool:
    """Return whether to send a request."""
    if (kind := coverage_scenario(case)) is None:
        return True
    MADE.update((kind, case.operation.label))
    return MADE[kind] <= OF_A_KIND or MADE[case.operation.label] % STEP == 1 % STEP


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """Shorten waits, and give each request an id of its own. Before the first request to an operation, create what it
    may find."""
    RECORDS.renew_for(case.operation.label)
    number = next(NUMBERS)
    wait = case.query.get("wait")
    if isinstance(wait, str) and re.fullmatch(r"[0-9]{1,2}(\.[0-9]+)?", wait):
        wait = float(wait)
    if isinstance(wait, int | float) and not isinstance(wait, bool) and 0 <= wait <= MAX_WAIT_SECONDS:
        # Every other command waits, as long as responses usually take.
        case.query["wait"] = (number % 2) * ANSWER_SECONDS if case.method == "POST" else min(wait, WAIT_SECONDS)
    make_unique(case.headers, "Idempotency-Key", number)
    if isinstance(case.body, dict):
        if isinstance(wait := case.body.get("wait"), int | float) and 0 < wait <= MAX_WAIT_SECONDS:
            case.body["wait"] = WAIT_SECONDS
        make_unique(case.body, "id", number)
        if case.operation.path == "/v1/keys":
            make_unique(case.body, "name", number)


def make_unique(values: MutableMapping[str, Any], name: str, number: int) -> None:
    """Replace a valid id by a unique one."""
    if isinstance(value := values.get(name), str) and re.fullmatch("(?!key_)[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        values[name] = f"made-up-{number}"


@schemathesis.hook
def filter_failure(context: schemathesis.HookContext, failure: Exception, case: Case, response: Response) -> bool:
    """Return whether a failure counts: data that is valid by its schema may still be refused for rules that no schema
    can express."""
    if isinstance(failure, AcceptedNegativeData):
        return not (is_valid_as_sent(case) or is_loosely_spelled(case))
    if not isinstance(failure, RejectedPositiveData) or response.status_code != 422:
        return True
    error = response.json()["error"]
    field, expected = error.get("field", ""), error.get("expected", "")
    name = case.operation.definition.raw["operationId"]
    return not (
        field.rpartition(".")[2] in TOLD_BY_MEANING
        or expected == "text without U+0000"
        or (name == "delegate_task" and field == "description")
        # To JSON Schema 1.0 is an integer.
        or "got float" in error["message"]
        or (name in HOLDS_COMMANDS and field)
        # The items of a session's document are checked one by one.
        or (name == "import_session" and field)
        # The id of an artifact needs that of its session.
        or (name in ("read_artifacts", "list_artifacts") and field == "session_id")
        # Reads sent as commands are cut off after half a second, which a busy machine may take for a small one.
        or error["code"] == "too_slow"
        # A session needs an id, or a title to derive one from; a new memory needs a content.
        or (name in ("create_session", "store_memory") and error["code"] == "missing_field")
    )


def is_valid_as_sent(case: Case) -> bool:
    """Return whether all mutations become valid again in a URL: there, any text is a list of one, and an empty value is
    absent. The generator handles either case, but not both at once."""
    mutations = getattr(case.meta.phase.data, "mutations", ()) if case.meta else ()
    return bool(mutations) and all(
        mutation.parameter_location == ParameterLocation.QUERY
        and (mutation.parameter in LISTS or case.query.get(mutation.parameter) == "")
        for mutation in mutations
    )


def is_loosely_spelled(case: Case) -> bool:
    """Return whether the body is an accepted loose spelling that its schema does not have."""
    content = case.operation.definition.raw.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema")
    return schema is not None and is_loosely_valid(case.body, schema)


@pytest.fixture(scope="module", autouse=True)
def _shortcuts() -> Iterator[None]:
    """Name functions in descriptions of strategies without looking for their source, a fifth of the time here, and
    look for no proxies in the environment for each request."""
    with pytest.MonkeyPatch.context() as patch:
        lazy = "hypothesis.strategies._internal.lazy.get_pretty_function_description"
        patch.setattr(lazy, lambda function: getattr(function, "__name__", "function"))
        patch.setattr("requests.sessions.get_environ_proxies", lambda *_, **__: {})
        yield


@pytest.fixture(scope="module")
def token(fuzzed: Stack) -> str:
    """The token of a hook, which no generated request would find."""
    fuzzed.send("create_session", "hooked", title="hooked")
    made = fuzzed.client.post("/v1/keys", json={"name": "hooked", "scopes": ["hook"], "sessions": "hooked"})
    return str(made.json()["key"])


@pytest.fixture(scope="module", autouse=True)
def _faultless(fuzzed: Stack) -> Iterator[None]:
    """Check that no request caused a bug or a dead letter, including those that nobody waited for."""
    yield
    fuzzed.wait_until_drained()
    assert fuzzed.client.get("/v1/dead-letters").json()["items"] == []
    assert "Bug:" not in fuzzed.log("api")
    assert "Traceback" not in fuzzed.log("api") + fuzzed.log("worker")


def test_every_operation_responds_as_documented(fuzzed: Stack, token: str) -> None:
    MADE.clear()
    RECORDS.stack = fuzzed
    statuses, wrong = run(load_document(fuzzed, "examples", "coverage", "fuzzing", token=token))
    assert not wrong, "\n\n".join(wrong)
    assert set(statuses) == OPERATIONS
    print(f"{sum(statuses.values(), Counter()).total()} requests: {dict(statuses)}")


def test_operations_in_sequence_respond_as_documented(fuzzed: Stack, token: str) -> None:
    RECORDS.stack = fuzzed
    _, wrong = run(load_document(fuzzed, "stateful", token=token, examples=10 * EXAMPLES))
    assert not wrong, "\n\n".join(wrong)


def load_document(stack: Stack, *phases: str, token: str, examples: int = EXAMPLES) -> Document:
    """Load the document, for requests of these phases."""
    config = SchemathesisConfig.from_dict(
        {
            "base-url": stack.url,
            "headers": {"X-API-Key": API_KEY},
            "phases": {"enabled": False, **{phase: {"enabled": True} for phase in phases}},
            "generation": {"max-examples": examples, "deterministic": not IS_RANDOM, "database": "none"},
            "parameters": {"token": token},
            "continue-on-failure": True,
            **({} if IS_RANDOM else {"seed": 1}),
        }
    )
    document = stack.client.get("/openapi.json").json()
    # With so high a limit the generator finds no text for any pattern, and would send no object at all.
    del document["components"]["schemas"]["DelegateTaskRequest"]["properties"]["description"]["pattern"]
    return schemathesis.openapi.from_dict(document, config=config)


def run(document: Document) -> tuple[dict[str, Counter[int]], list[str]]:
    """Generate requests and send them. Returns the statuses of each operation's responses, and the failures."""
    wrong: list[str] = []
    statuses: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for event in from_schema(document).execute():
        if isinstance(event, events.NonFatalError):
            wrong.append(f"{event.label}: {event.value!r}")
        elif isinstance(event, events.FatalError):
            raise event.exception
        elif isinstance(event, events.ScenarioFinished):
            answers = [sent.response for sent in event.recorder.interactions.values() if sent.response]
            statuses[event.label or ""].update(response.status_code for response in answers)
            wrong += describe_failures(event)
    return dict(statuses), wrong


def describe_failures(scenario: events.ScenarioFinished) -> list[str]:
    """Return the failures, the request that shows each, and the response to it."""
    described = []
    for case_id, checks in scenario.recorder.checks.items():
        for check in checks:
            if check.status == Status.FAILURE and check.failure_info:
                response = scenario.recorder.interactions[case_id].response
                answer = "no answer" if response is None else f"{response.status_code} {response.text[:1000]}"
                described.append(f"{check.failure_info.failure}\n{check.failure_info.code_sample[:2000]}\n{answer}")
    return described
