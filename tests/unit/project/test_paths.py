"""Masking of paths: no token is ever shown, however it is encoded; the rest of a path is."""

from __future__ import annotations

import re
import string
from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from starlette.routing import Route

from api.app import create_app
from models.process.log_setup import configure_logging
from models.process.url_redaction import WORDS, mask_path
from models.settings import Settings
from relay.http.access_log import AccessLog, RequestLog

TOKEN = "srh_" + "aB3" * 13 + "x"
SECRETS = st.text(st.characters(codec="utf-8", exclude_characters="?%"), min_size=8, max_size=40).filter(
    lambda text: len(text.strip("/\\")) >= 8
)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (f"/v1/hooks/{TOKEN}", "/v1/hooks/{token}"),
        (f"/v1/hooks/{TOKEN}/", "/v1/hooks/{token}/"),
        (f"//v1//hooks//{TOKEN}", "//v1//hooks//{token}"),
        (f"/V1/HOOKS/{TOKEN.upper()}", "/V1/HOOKS/{token}"),
        ("/v1/hooks/any-thing/else", "/v1/hooks/{token}/…"),
        ("/v1/h%6F%6Fks/any-thing", "/v1/hooks/{token}"),
        ("/v1/hooks%2Fany-thing", "/v1/hooks/{token}"),
        ("/v1/hooks%252Fany-thing", "/v1/hooks/{token}"),
        (r"/v1/hooks\any-thing", "/v1/hooks/{token}"),
        ("/v1/claims/5f0c/heartbeat", "/v1/claims/{claim_token}/heartbeat"),
        ("/v1/claims/5f0c/complete/", "/v1/claims/{claim_token}/complete/"),
        ("/v1/claims/complete", "/v1/claims/{claim_token}"),
        ("/v1/claims/5f0c/other", "/v1/claims/{claim_token}/…"),
        (f"/v1/sessions/{TOKEN}/events", "/v1/sessions/{session_id}/events"),
        ("/v1/SRK_abc", "/v1/…"),
        ("/x/a-whsec_AbC+/=/y", "/…/…/…/…"),
        ("/v1/sessions/solar-roof", "/v1/sessions/{session_id}"),
        ("/v1/sessions/solar-roof/tasks/compare-prices", "/v1/sessions/{session_id}/tasks/{task_id}"),
        ("/v1/sessions/tasks/tasks/tasks", "/v1/sessions/{session_id}/tasks/{task_id}"),
        ("/v1/sessions/solar/memories/roof/tasks", "/v1/sessions/{session_id}/memories/{key}/tasks"),
        ("/v1/session/solar-roof/task/compare-prices", "/v1/…/…/…/…"),
        ("/v1/tasks/claim", "/v1/tasks/claim"),
        ("/v1/dead-letters/replay", "/v1/dead-letters/replay"),
        ("/v1/dead-letters/d1/replay", "/v1/dead-letters/{delivery_id}/replay"),
        ("/v1/hooks/", "/v1/hooks/"),
        ("/v1/search?q=secret", "/v1/search"),
        ("/a b/ü\n", "/…/…"),
        ("/\ud800", "/…"),
        ("", ""),
    ],
)
def test_a_path_is_shown_without_possible_secrets(path: str, shown: str) -> None:
    assert mask_path(path) == shown


@given(SECRETS, st.sampled_from(["hooks", "claims", "HOOKS", "cLaims"]), st.integers(0, 3), st.integers(1, 3))
def test_no_token_is_shown_however_it_is_encoded(secret: str, word: str, encodings: int, slashes: int) -> None:
    assume(secret not in "{claim_token}" and secret not in "{token}")
    sent = secret
    for _ in range(encodings):
        sent = quote(sent, safe="")
    shown = unquote(mask_path(f"/v1/{word}{'/' * slashes}{sent}/heartbeat"))
    ours = "|".join(re.escape(known) for known in WORDS)
    assert re.fullmatch(rf"(?i)/v1/{word}/+{{(token|claim_token)}}(/(…|{{[a-z_]+}}|{ours})?)*", shown)
    assert secret.strip("/\\") not in shown


def test_every_word_of_every_route_is_known() -> None:
    app = create_app(Settings(api_key="k", database_url="postgresql:///x", redis_url="redis://x"))
    paths = [re.sub(r":path}", "}", route.path) for route in app.routes if isinstance(route, Route)]
    assert len(paths) > 40
    for path in paths:
        filled = re.sub(r"{\w+}", "solar-roof", path)
        assert mask_path(filled) == path, path


@given(st.text(string.printable, max_size=60))
def test_a_masked_path_has_one_line_and_no_query(path: str) -> None:
    shown = mask_path(path)
    assert shown.isprintable()
    assert "?" not in shown


def test_tokens_and_queries_stay_out_of_the_access_log(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings())
    scope = {"method": "POST", "path": f"/v1/hooks/{TOKEN}", "query_string": b"wait=5", "headers": [], "state": {}}
    RequestLog(AccessLog(), scope, peer="127.0.0.1").answered(202)
    written = capsys.readouterr().err
    assert " relay.access: POST /v1/hooks/{token} 202 client=127.0.0.1 duration_ms=" in written
    assert "aB3" not in written
    assert "wait" not in written
