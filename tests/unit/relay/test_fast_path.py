"""Which requests take the fast path, and that its headers answer as Starlette's."""

from __future__ import annotations

import base64

import pytest
from starlette.datastructures import Headers
from starlette.types import Scope

from models.settings import Settings
from relay.app import create_relay
from relay.http.headers import IndexedHeaders
from relay.http.signature_headers import is_from_github, is_signed, standard_prefix

SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


def takes_fast_path(method: str, path: str, *, query: bytes = b"", **headers: str) -> bool:
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    app = create_relay(Settings(redis_url="redis://127.0.0.1:1/0", api_key="sesame", webhook_secrets=f"a={SECRET}"))
    return app.fast_path.find(scope) is not None


@pytest.mark.parametrize(
    "path", ["/webhook", "/v1/webhook", "/v1/commands/store_memory", "/v1/commands/nothing", "/v1/hooks/srh_none"]
)
def test_a_post_to_the_ingest_takes_the_fast_path(path: str) -> None:
    assert takes_fast_path("POST", path)
    assert takes_fast_path("POST", path, accept="application/json", authorization="Bearer sesame")
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "post"):
        assert not takes_fast_path(method, path)
    assert not takes_fast_path("POST", path, query=b"wait=1")
    assert not takes_fast_path("POST", path, expect="100-continue")
    assert not takes_fast_path("POST", f"{path}/")
    assert not takes_fast_path("POST", f"/{path}")
    assert not takes_fast_path("POST", path.replace("w", "W").replace("v", "V"))


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/commands", "/v1/commands/", "/v1/hooks/", "/v1/commands/a/b", "/v1/claims/x/complete"]
)
def test_all_else_is_left_to_the_app(path: str) -> None:
    assert not takes_fast_path("POST", path)


@pytest.mark.parametrize(
    "raw",
    [
        [],
        [(b"host", b"relay"), (b"x-api-key", b"sesame"), (b"content-type", b"")],
        [(b"content-type", b"text/plain"), (b"content-type", b"application/json"), (b"x-odd", b"voil\xc3\xa0")],
        [(b"webhook-id", b"a"), (b"svix-id", b"b"), (b"svix-id", b"c")],
        [(b"x-hub-signature", b"a")],
    ],
)
def test_indexed_headers_answer_as_starlettes(raw: list[tuple[bytes, bytes]]) -> None:
    indexed, plain = IndexedHeaders(raw), Headers(raw=raw)
    for name in ("Host", "x-api-key", "Content-Type", "X-Odd", "webhook-id", "svix-id", "missing"):
        assert indexed.get(name) == plain.get(name)
        assert indexed.get(name, "") == plain.get(name, "")
        assert indexed.getlist(name) == plain.getlist(name)
        assert (name in indexed) == (name in plain)
    assert indexed == plain
    assert indexed.items() == plain.items()
    for question in (is_signed, is_from_github, standard_prefix):
        assert question(indexed) == question(plain)
