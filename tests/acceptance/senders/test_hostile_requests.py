"""Slow input at every URL: its processing time grows linearly with its size, and other requests are served meanwhile.

The CPU time of the app counts. Quadratic work on inputs of this size takes seconds. `TORTURE=1` sends each kind to each
URL; other runs send all to the webhook, and to each other URL a part, so that each kind meets several.
"""

from __future__ import annotations

import http.client
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple, TypeVar

import psutil
import pytest
from standardwebhooks.webhooks import Webhook

from api.openapi.document import build_document
from tests.support.clients.keys import make_key
from tests.support.clients.signing import WEBHOOK_SECRET
from tests.support.inputs.hostile import BODIES, GROWTH, MOST_GROWTH
from tests.support.processes.stack import Stack, wait_for
from tests.support.project import API_KEY, IS_LONG

LEAST_SECONDS = 0.03
"""The shortest CPU time that is measured reliably: the system counts in steps of 0.01."""
KEY = {"X-API-Key": API_KEY}
READ = (200, 201, 202, 204, 400, 404, 405, 409, 422)
"""Statuses of an app that has read the body. Others mean a refusal for its key, type, size or rate."""
TOKEN = f"srt_{'a' * 40}~hostile~t"
ADDRESSES = (f"127.1.{number // 250}.{number % 250 + 1}" for number in itertools.count())
"""Addresses of this machine. Requests without a key are limited by address."""


T = TypeVar("T")


def part_of(kinds: Mapping[str, T], place: int) -> dict[str, T]:
    """Return every third kind, other ones for the next place; all in long runs."""
    return dict(list(kinds.items()) if IS_LONG else list(kinds.items())[place % 3 :: 3])


class Target(NamedTuple):
    """The URL of a body, and its maximum size in bytes."""

    path: str
    size: int = 65_536


TARGETS = [
    *(Target(path) for path in ("/v1/webhook", "/webhook", "/mcp", "/v1/tasks/claim", "/v1/agents", "/v1/import")),
    *(Target(f"/v1/commands/{name}") for name in ("store_memory", "batch", "list_sessions", "unknown")),
    *(Target(f"/v1/claims/{TOKEN}/{act}") for act in ("start", "heartbeat", "complete", "fail", "release", "ask")),
    Target("/v1/keys", 16_384),
    Target("/oauth/register", 16_384),
]


def post(stack: Stack, path: str, body: bytes, headers: dict[str, str]) -> int:
    """Post from a client address of its own. Returns the status."""
    with closing(
        http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60, source_address=(next(ADDRESSES), 0))
    ) as c:
        c.request(
            "POST",
            path,
            body,
            {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **headers},
        )
        return c.getresponse().status


def require_linear(
    stack: Stack, send: Callable[[int], int], size: int, what: str, *, read: tuple[int, ...] = READ
) -> None:
    """Fail if the app's time for a request of `size` is much more than GROWTH times that for one GROWTH times
    smaller."""
    process = psutil.Process(stack.pid("api"))

    def seconds(size: int) -> float:
        before = process.cpu_times()
        status = send(size)
        after = process.cpu_times()
        assert status in read, (what, status)
        return after.user + after.system - before.user - before.system

    most = MOST_GROWTH * max(seconds(size // GROWTH), LEAST_SECONDS)
    taken = seconds(size)
    assert taken <= most, f"{what}: {taken:.2f} s"


@pytest.mark.parametrize("target", TARGETS, ids=[target.path.replace(TOKEN, "TOKEN") for target in TARGETS])
def test_hostile_bodies_take_linear_time(fuzzed: Stack, target: Target) -> None:
    place = TARGETS.index(target)
    for kind, make in (BODIES if place == 0 else part_of(BODIES, place)).items():
        require_linear(fuzzed, lambda size, make=make: post(fuzzed, target.path, make(size), KEY), target.size, kind)  # type: ignore[misc]


def test_hostile_bodies_at_a_hook_take_linear_time(fuzzed: Stack) -> None:
    fuzzed.send("create_session", "hostile", title="Hostile")
    hook = make_key(fuzzed, "hostile-hook", scopes=["hook"], sessions="hostile")
    wait_for(lambda: post(fuzzed, hook["url"], b"{}", {}) == 202, what="hook usable")
    for kind, make in part_of(BODIES, 1).items():
        require_linear(fuzzed, lambda size, make=make: post(fuzzed, hook["url"], make(size), {}), 65_536, kind)  # type: ignore[misc]


def test_hostile_signed_bodies_take_linear_time(fuzzed: Stack) -> None:
    numbers = itertools.count()

    def send(body: bytes) -> int:
        now, name = datetime.now(UTC), f"hostile_{next(numbers)}"
        signature = Webhook(WEBHOOK_SECRET).sign(name, now, body.decode())
        signed = {"id": name, "timestamp": str(int(now.timestamp())), "signature": signature}
        return post(fuzzed, "/v1/webhook", body, {f"webhook-{part}": value for part, value in signed.items()})

    for kind, make in part_of(BODIES, 2).items():
        require_linear(fuzzed, lambda size, make=make: send(make(size)), 65_536, kind)  # type: ignore[misc]


FORMS: dict[str, Callable[[int], bytes]] = {
    "many fields": lambda size: b"&".join(b"f%d=1" % number for number in range(size // 8)),
    "one field": lambda size: b"token=1&" * (size // 8),
    "escapes": lambda size: b"client_id=" + b"%25" * (size // 4),
    "an unknown app": lambda size: b"grant_type=authorization_code&client_id=app_" + b"e" * (size - 60),
}


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/revoke", "/oauth/sign-in"])
def test_hostile_forms_take_linear_time(fuzzed: Stack, path: str) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    def send_form(make: Callable[[int], bytes], size: int) -> int:
        return post(fuzzed, path, make(size), form)

    for kind, make in FORMS.items():
        send = partial(send_form, make)
        require_linear(fuzzed, send, 16_384, kind, read=(*READ, 401))  # These need no key, but an app.


QUERIES: dict[str, Callable[[int], str]] = {
    "many names": lambda size: "&".join(f"p{number}" for number in range(size // 7)),
    "one name": lambda size: "limit=1&" * (size // 8),
    "as many as are allowed": lambda size: "&".join(f"p{number}={'x' * (size // 250 - 6)}" for number in range(250)),
    "a long list": lambda size: "tags=" + "a," * (size // 2 - 4),
    "a long text": lambda size: "q=" + "%25" * (size // 3 - 2),
    "a long name": lambda size: "limit" * (size // 5 - 2) + "=1",
}


def addresses() -> Iterator[str]:
    for path, operations in build_document()["paths"].items():
        if "get" in operations:
            yield "/".join("x" if part.startswith("{") else part for part in path.split("/"))
    yield from ("/docs/start.js", "/oauth/authorize", "/oauth/sign-in")


ADDRESSED = list(dict.fromkeys(addresses()))


@pytest.mark.parametrize("path", ADDRESSED)
def test_hostile_urls_take_linear_time(fuzzed: Stack, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", fuzzed.port, timeout=60, source_address=(next(ADDRESSES), 0))

    def get(target: str, headers: dict[str, str]) -> int:
        connection.request("GET", target, headers={"Accept": "application/json", **headers})
        response = connection.getresponse()
        response.read()
        return response.status

    many = {size: {f"x-{number}": "," * 8 for number in range(size // 20)} for size in (56_000, 7_000)}
    kinds: dict[str, Callable[[int], int]] = {
        **{kind: lambda size, make=make: get(f"{path}?{make(size)}", KEY) for kind, make in QUERIES.items()},  # type: ignore[misc]
        "a long path": lambda size: get(f"{path}/{'%2525' * (size // 5)}", KEY),
        "many headers": lambda size: get(path, {**KEY, **many[size]}),
    }
    with closing(connection):
        for kind, send in part_of(kinds, ADDRESSED.index(path)).items():
            require_linear(fuzzed, send, 56_000, kind)


def test_too_many_parameters_are_refused_with_the_maximum(fuzzed: Stack) -> None:
    answer = fuzzed.client.get("/v1/sessions?" + "&".join(f"p{number}=1" for number in range(251)))
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["expected"]) == ("too_many_parameters", "at most 250")
    tags = "&".join(f"tags=t{number}" for number in range(100))
    assert fuzzed.client.get(f"/v1/memories?{tags}").status_code == 200
