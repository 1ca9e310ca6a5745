"""Errors as senders see them."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from models.errors import Invalid, RelayError, Unauthorized, Unavailable
from relay.http.responses import ServerErrorMiddleware, exception_handlers


def ask(
    error: Exception, *, method: str = "GET", path: str = "/fail", noted: list[RelayError] | None = None
) -> httpx.Response:
    """Return the response of an app whose routes, GET /fail and /v1/hooks/{token}, raise the error. Collects refusals
    in `noted`."""

    async def fail(_: Request) -> Response:
        raise error

    def note(_: Scope, error: RelayError) -> None:
        if noted is not None:
            noted.append(error)

    routes = [Route("/fail", fail), Route("/v1/hooks/{token}", fail)]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(ServerErrorMiddleware, record_rejection=note)],
        exception_handlers=exception_handlers(note),
    )

    async def request() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            return await client.request(method, path)

    return asyncio.run(request())


def test_an_error_has_its_status_and_its_fields() -> None:
    answer = ask(Invalid("Too few.", field="limit", expected="int >= 1", hint="Leave it out."))
    assert answer.status_code == 422
    assert answer.json() == {
        "error": {
            "code": "invalid",
            "message": "Too few.",
            "field": "limit",
            "expected": "int >= 1",
            "hint": "Leave it out.",
            "retryable": False,
        }
    }
    assert answer.headers["cache-control"] == "no-store"


def test_unavailable_has_a_retry_time() -> None:
    answer = ask(Unavailable())
    assert answer.status_code == 503
    assert answer.json()["error"]["retryable"] is True
    assert int(answer.headers["retry-after"]) > 0


def test_unauthorized_names_the_scheme() -> None:
    assert ask(Unauthorized()).headers["www-authenticate"] == "Bearer"


def test_a_bug_reveals_nothing_and_is_logged_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        answer = ask(KeyError("a secret of the sender"))
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == RelayError.code
    assert "secret" not in answer.text
    assert "secret" not in caplog.text
    assert "KeyError" in caplog.text
    assert "in fail" in caplog.records[-1].__dict__["frames"]


def test_an_unknown_path_and_a_wrong_method_are_errors_in_the_same_form() -> None:
    assert ask(KeyError(), path="/nothing").json()["error"]["code"] == "not_found"
    wrong = ask(KeyError(), method="POST")
    assert wrong.status_code == 405
    assert wrong.json()["error"]["code"] == "method_not_allowed"
    assert wrong.headers["allow"] == "GET, HEAD"
    options = ask(KeyError(), method="OPTIONS")
    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD")


def test_a_bug_does_not_log_the_token_in_its_url(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        ask(KeyError(), path="/v1/hooks/srh_0123456789")
    assert caplog.messages == ["Bug: KeyError at GET /v1/hooks/{token}"]
    assert "0123456789" not in caplog.text


def test_errors_are_recorded_except_those_of_routing() -> None:
    noted: list[RelayError] = []
    refusal = Unauthorized()
    ask(refusal, noted=noted)
    ask(refusal, path="/nothing", noted=noted)
    ask(refusal, method="POST", noted=noted)
    ask(KeyError(), noted=noted)
    assert noted[0] is refusal
    assert [error.status for error in noted] == [401, 500]
