"""Verification of signatures: the published vector, malformed and altered ones, and those of other libraries."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from models.commands.definitions import AnswerTask, Batch, BatchItem, DeleteMemory, DeleteSession, GetTask, StoreMemory
from models.errors import Forbidden, SettingsError, Unauthorized
from models.settings import Settings, read_settings
from relay.auth.authentication import Caller, require_permission
from relay.auth.signatures import read_signature
from relay.auth.signing_secrets import webhook_secrets
from tests.support.clients import credentials
from tests.support.clients.credentials import make_authenticator
from tests.support.clients.signing import sign
from tests.support.project import IS_LONG

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
SIGNED_AT = 1614265330
BODY = b'{"test": 2432232314}'
VECTOR = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": str(SIGNED_AT),
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
SIGNATURE = VECTOR["webhook-signature"]
GITHUB_SECRET = "It's a Secret to Everybody"
GITHUB_BODY = b"Hello, World!"
GITHUB_SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

SETTINGS = Settings(api_key="sesame", webhook_secrets=f"vector={SECRET}", github_webhook_secret=GITHUB_SECRET)
AUTHENTICATOR = make_authenticator(SETTINGS)


def signer_of(headers: dict[str, str], body: bytes = BODY, *, now: float = SIGNED_AT, secrets: str = "") -> str | None:
    """Return the name of the signer, as of `now`."""
    signature = read_signature(Headers(headers), now=now)
    assert signature is not None
    found = signature.signer(webhook_secrets(Settings(webhook_secrets=secrets or f"vector={SECRET}")), body)
    return found.source if found else None


def authenticate(headers: Any, body: bytes) -> Caller:
    """Authenticate as the relay does, now."""
    return credentials.authenticate(AUTHENTICATOR, headers, body)


def refused(headers: Any, body: bytes = BODY) -> Unauthorized:
    """Return the relay's error."""
    with pytest.raises(Unauthorized) as caught:
        authenticate(headers, body)
    return caught.value


# Standard Webhooks


def test_the_published_vector_is_valid_for_its_secret() -> None:
    assert signer_of(VECTOR) == "vector"
    assert signer_of(VECTOR, secrets=f"vector={OTHER_SECRET}") is None


@pytest.mark.parametrize("prefix", ["webhook-", "svix-", "Webhook-", "SVIX-"])
def test_either_header_name_is_accepted_in_any_case(prefix: str) -> None:
    assert signer_of({name.replace("webhook-", prefix): value for name, value in VECTOR.items()}) == "vector"


def test_svix_headers_take_precedence() -> None:
    svix_headers = {name.replace("webhook", "svix"): value for name, value in VECTOR.items()}
    assert signer_of(svix_headers | {"webhook-id": "other"}) == "vector"
    assert signer_of(VECTOR | svix_headers | {"svix-id": "other"}) is None


@pytest.mark.parametrize(
    "signatures",
    [
        f"v1,{'A' * 43}= {SIGNATURE}",
        f"{SIGNATURE} v1,{'A' * 43}=",
        f"v1a,other {SIGNATURE}",
        f"v2,{'A' * 43}= {SIGNATURE}",
        f"v1 {SIGNATURE}",
        f"v1,a,b  {SIGNATURE} ",
    ],
)
def test_one_valid_signature_among_several_suffices(signatures: str) -> None:
    assert signer_of(VECTOR | {"webhook-signature": signatures}) == "vector"


@pytest.mark.parametrize(
    "signature",
    [
        "v1",
        "v1,",
        ",",
        " ",
        SIGNATURE + ",",
        SIGNATURE + ",v1",
        "v1," + SIGNATURE,
        SIGNATURE.removeprefix("v1,"),
        SIGNATURE.replace("v1", "v2"),
        SIGNATURE.replace("v1", "V1"),
        SIGNATURE.replace("v1,", "v1, "),
        SIGNATURE.replace("=", ""),
        SIGNATURE.replace("=", "=="),
        SIGNATURE.replace("OE=", "OF="),  # The same bytes to a lax decoder.
        SIGNATURE.replace("+", "-").replace("/", "_"),
        SIGNATURE.replace("+", "\t"),
        "v1,!!!not base64!!!",
        "v1,é" + SIGNATURE[4:],
        "v1,\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
    ],
)
def test_a_malformed_signature_is_invalid(signature: str) -> None:
    assert signer_of(VECTOR | {"webhook-signature": signature}) is None


@pytest.mark.parametrize(
    "timestamp", ["123.9", " 123", "123 ", "+123", "-1", "1e9", "0x10", "nan", "1" * 13, "١٢٣", "123\n"]
)
def test_a_malformed_timestamp_is_refused(timestamp: str) -> None:
    latin = timestamp.encode().decode("latin-1")
    error = refused(VECTOR | {"webhook-timestamp": latin})
    assert (error.code, error.field) == ("signature_invalid", "webhook-timestamp")


def test_signed_arabic_digits_are_refused() -> None:
    error = refused(
        Headers(raw=[(b"webhook-id", b"a"), (b"webhook-timestamp", "١٢٣".encode()), (b"webhook-signature", b"v1,x")])
    )
    assert error.field == "webhook-timestamp"


@pytest.mark.parametrize("seconds", [-300, -299, 0, 300])
def test_timestamps_within_five_minutes_are_accepted(seconds: int) -> None:
    assert signer_of(VECTOR, now=SIGNED_AT + seconds) == "vector"


@pytest.mark.parametrize("seconds", [-301, 301, 86_400])
def test_an_old_or_future_timestamp_is_distinguished_from_an_invalid_signature(seconds: int) -> None:
    with pytest.raises(Unauthorized) as caught:
        read_signature(Headers(VECTOR), now=SIGNED_AT + seconds)
    assert (caught.value.code, caught.value.field) == ("clock_skew", "webhook-timestamp")
    assert refused(sign(BODY, at=time.time() + seconds * 2)).code == "clock_skew"


@pytest.mark.parametrize("id", ["a.b", "a b", "é", ".", "x" * 257, "a\x7f", "a\n"])
def test_a_signed_but_ambiguous_id_is_refused(id: str) -> None:
    headers = sign(BODY, id=id)
    assert refused({name: value.encode().decode("latin-1") for name, value in headers.items()}).field == "webhook-id"


@pytest.mark.parametrize("id", ["a/b", "msg=", "a@b", "<1@mail>", "a+b~c", "x" * 200, 'q"'])
def test_a_signed_id_with_unusual_characters_is_replaced_by_a_plain_one(id: str) -> None:
    signed = authenticate(sign(BODY, id=id), BODY).signed
    again = authenticate(sign(BODY, id=id, at=time.time() - 60), BODY).signed
    assert signed is not None
    assert again is not None
    assert re.fullmatch(r"id-[0-9a-f]{40}", signed.id)
    assert signed.id == again.id
    other = authenticate(sign(BODY, id=id + "="), BODY).signed
    assert other is not None
    assert other.id != signed.id


@pytest.mark.parametrize("missing", VECTOR)
@pytest.mark.parametrize("how", ["left out", "empty"])
def test_each_part_of_a_signature_is_required(missing: str, how: str) -> None:
    headers = sign(BODY) | {missing: ""}
    if how == "left out":
        del headers[missing]
    error = refused(headers | {"X-API-Key": "sesame"})
    assert (error.code, error.field) == ("signature_missing", missing)


@pytest.mark.parametrize("name", VECTOR)
def test_a_repeated_header_is_refused(name: str) -> None:
    headers = [(key.encode(), value.encode()) for key, value in sign(BODY).items()]
    again = next(pair for pair in headers if pair[0] == name.encode())
    error = refused(Headers(raw=[*headers, again]))
    assert (error.code, error.field) == ("signature_invalid", name)


@given(where=st.integers(0, len(BODY) * 8 - 1))
def test_one_flipped_bit_in_the_body_invalidates_the_signature(where: int) -> None:
    body = bytearray(BODY)
    body[where // 8] ^= 1 << where % 8
    assert signer_of(VECTOR, bytes(body)) is None


@given(where=st.integers(3 * 8, len(SIGNATURE) * 8 - 1))
def test_one_flipped_bit_in_the_signature_invalidates_it(where: int) -> None:
    signature = bytearray(SIGNATURE.encode())
    signature[where // 8] ^= 1 << where % 8
    assert signer_of(VECTOR | {"webhook-signature": signature.decode("latin-1")}) is None


@pytest.mark.parametrize("changed", [{"webhook-id": "msg_other"}, {"webhook-timestamp": str(SIGNED_AT + 1)}])
def test_id_and_timestamp_are_signed(changed: dict[str, str]) -> None:
    assert signer_of(VECTOR | changed) is None


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", BODY + b" ", b"\0"])
def test_any_bytes_can_be_signed(body: bytes) -> None:
    assert authenticate(sign(body), body).source == "vector"
    assert refused(sign(body), body + b"x").code == "signature_invalid"


def test_several_secrets_of_one_name_are_all_tried() -> None:
    both = f"walker={OTHER_SECRET},walker={SECRET},runner={'whsec_' + 'A' * 32}"
    for secret in (SECRET, OTHER_SECRET):
        assert signer_of(sign(BODY, at=SIGNED_AT, secret=secret), secrets=both) == "walker"
    assert signer_of(sign(BODY, at=SIGNED_AT, secret="whsec_" + "A" * 32), secrets=both) == "runner"


@pytest.mark.parametrize("library", ["standardwebhooks", "svix"])
@pytest.mark.parametrize("prefix", ["webhook", "svix"])
def test_signatures_of_other_libraries_are_accepted(library: str, prefix: str) -> None:
    webhook = import_module(library).Webhook  # Importing one of them takes two seconds.
    body = '{"type":"user.created","name":"Zoë"}'
    now = datetime.now(UTC)
    headers = {
        f"{prefix}-id": "msg_2",
        f"{prefix}-timestamp": str(int(now.timestamp())),
        f"{prefix}-signature": webhook(SECRET).sign("msg_2", now, body),
    }
    caller = authenticate(headers, body.encode())
    assert (caller.source, caller.signed and caller.signed.id) == ("vector", "msg_2")
    assert refused(headers, body.encode() + b"\n").code == "signature_invalid"
    assert refused(headers | {f"{prefix}-signature": webhook(OTHER_SECRET).sign("msg_2", now, body)}, body.encode())


# GitHub


def test_the_example_of_githubs_documentation_is_accepted() -> None:
    headers = {"X-Hub-Signature-256": GITHUB_SIGNATURE, "X-GitHub-Event": "push", "X-GitHub-Delivery": "72d3162e"}
    caller = authenticate(headers, GITHUB_BODY)
    assert caller.source == "github"
    assert caller.signed is not None
    assert caller.signed.event == "push"
    assert authenticate(headers | {"X-GitHub-Delivery": "another"}, GITHUB_BODY) == caller


@pytest.mark.parametrize(
    "signature",
    [
        GITHUB_SIGNATURE.upper(),
        GITHUB_SIGNATURE.removeprefix("sha256="),
        GITHUB_SIGNATURE.replace("sha256", "sha1"),
        GITHUB_SIGNATURE[:-1],
        GITHUB_SIGNATURE + "0",
        GITHUB_SIGNATURE + ",",
        GITHUB_SIGNATURE[:-1] + "6",
        "sha256=" + "é" * 64,
        "sha256=" + "g" * 64,
        "sha256=",
        "=",
    ],
)
def test_an_invalid_github_signature_is_refused_with_any_key(signature: str) -> None:
    error = refused({"X-Hub-Signature-256": signature, "X-API-Key": "sesame"}, GITHUB_BODY)
    assert error.code == "signature_invalid"
    assert error.hint


@pytest.mark.parametrize("name", ["X-GitHub-Event", "X-GitHub-Delivery", "X-Hub-Signature"])
def test_an_unsigned_github_event_is_refused_with_any_key(name: str) -> None:
    error = refused({name: "push", "X-API-Key": "sesame"}, GITHUB_BODY)
    assert (error.code, error.field) == ("signature_missing", "x-hub-signature-256")


def test_without_a_secret_no_github_signature_is_valid() -> None:
    digest = hmac.digest(b"", GITHUB_BODY, "sha256").hex()
    with pytest.raises(Unauthorized):
        credentials.authenticate(
            make_authenticator(Settings(api_key="k")), {"X-Hub-Signature-256": f"sha256={digest}"}, GITHUB_BODY
        )


def test_a_secret_of_one_kind_is_not_valid_for_the_other() -> None:
    digest = hmac.digest(base64.b64decode(SECRET.removeprefix("whsec_")), BODY, "sha256").hex()
    assert refused({"X-Hub-Signature-256": f"sha256={digest}"}).code == "signature_invalid"
    as_github = "whsec_" + base64.b64encode(GITHUB_SECRET.encode()).decode()
    assert refused(sign(BODY, secret=as_github)).code == "signature_invalid"


def test_two_kinds_of_signatures_are_refused() -> None:
    digest = hmac.digest(GITHUB_SECRET.encode(), BODY, hashlib.sha256).hex()
    assert refused(sign(BODY) | {"X-Hub-Signature-256": f"sha256={digest}"}).code == "signature_invalid"


# Permissions


def test_a_signature_allows_only_changing_commands() -> None:
    caller = authenticate(sign(BODY), BODY)
    memory = StoreMemory(content=msgspec.Raw(b"1"))
    require_permission(caller, memory, "s")
    require_permission(caller, AnswerTask(task_id="t", answer="x"), "s")
    require_permission(caller, Batch(commands=[BatchItem(command="store_memory")]), "s")
    for command in (
        GetTask(task_id="t"),
        DeleteMemory(key="k"),
        DeleteSession(confirm="s"),
        Batch(commands=[BatchItem(command="store_memory"), BatchItem(command="delete_memory")]),
        Batch(commands=[BatchItem(command="get_session_summary")]),
    ):
        with pytest.raises(Forbidden):
            require_permission(caller, command, "s")


def test_a_secret_can_be_limited_to_some_sessions() -> None:
    authenticator = make_authenticator(Settings(webhook_secrets=f"chat:chat-*={SECRET}"))
    caller = credentials.authenticate(authenticator, sign(BODY), BODY)
    assert (caller.source, caller.session_glob) == ("chat", "chat-*")
    with pytest.raises(Forbidden):
        require_permission(caller, Batch(commands=[]), "other")


@pytest.mark.parametrize("headers", [sign(BODY), {"X-GitHub-Event": "push"}])
def test_a_signed_request_cannot_read_even_with_a_key(headers: dict[str, str]) -> None:
    with pytest.raises((Forbidden, Unauthorized)):
        AUTHENTICATOR.authenticate(Headers(headers | {"X-API-Key": "sesame"}))


# Any headers

NAMES = (*VECTOR, *(name.replace("webhook", "svix") for name in VECTOR), "x-hub-signature-256", "x-github-event")
VALUES = st.one_of(
    st.binary(max_size=80),
    st.sampled_from(
        [value.encode() for value in VECTOR.values()] + [GITHUB_SIGNATURE.encode(), b"v1", b"v1,", b"v1,,"]
    ),
    st.integers(int(time.time()) - 200, int(time.time()) + 200).map(lambda number: str(number).encode()),
    st.from_regex(rb"(v1,[A-Za-z0-9+/=,]{0,50} ?){0,3}", fullmatch=True),
)


@hypothesis_settings(max_examples=200 if IS_LONG else 80, deadline=None)
@given(
    headers=st.lists(st.tuples(st.sampled_from([name.encode() for name in NAMES]), VALUES), min_size=1, max_size=6),
    body=st.binary(max_size=50),
)
def test_any_invalid_signature_headers_are_refused_with_401(headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    error = refused(Headers(raw=[*headers, (b"x-api-key", b"sesame")]), body)
    assert error.status == 401
    assert error.code in ("signature_missing", "signature_invalid", "clock_skew")


# Settings


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (SECRET, "secret 1 has no name"),
        (SECRET + "==", "secret 1 has no name"),
        (f"a={SECRET},", "secret 2 has no name"),
        (f"={SECRET}", "secret 1 has a name that is not"),
        (f"a b={SECRET}", "secret 1 has a name that is not"),
        (f"default={SECRET}", "secret 1 has a name that is taken"),
        (f"a={SECRET},github={SECRET}", "secret 2 has a name that is taken"),
        (f"a:={SECRET}", "secret 1 has a session pattern"),
        (f"a:x y={SECRET}", "secret 1 has a session pattern"),
        (f"a:x*={SECRET},a={OTHER_SECRET}", "secret 2 has another session pattern"),
        ("a=MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "secret 1 does not begin with whsec_"),
        ("a=whsec_MfKQ9r8GKYqr!!!jUPD8ILPZIo2LaLaSw", "secret 1 is not base64"),
        ("a=whsec_MfKQ9r8GKYqré", "secret 1 is not base64"),
        ("a=whsec_MfKQ9", "secret 1 is not base64"),
        ("a=whsec_", "secret 1 has 0 bytes"),
        ("a=whsec_MfKQ9r8GKYqr", "secret 1 has 9 bytes"),
    ],
)
def test_an_invalid_secret_prevents_the_start_and_is_not_shown(value: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make_authenticator(read_settings({"API_KEY": "k", "WEBHOOK_SECRETS": value}))
    assert says in caught.value.message
    assert "WEBHOOK_SECRETS" in caught.value.message
    assert "MfKQ9" not in caught.value.message


def test_padding_and_blanks_in_secrets_are_ignored() -> None:
    text = f" a={OTHER_SECRET.rstrip('=')} , a={OTHER_SECRET} "
    one, other = webhook_secrets(read_settings({"WEBHOOK_SECRETS": text}))
    assert one.key == other.key == bytes(range(32))
    assert "key" not in repr(one)


@pytest.mark.parametrize("variable", ["WEBHOOK_SECRETS", "GITHUB_WEBHOOK_SECRET"])
def test_a_secret_suffices_to_start(variable: str) -> None:
    authenticator = make_authenticator(read_settings({variable: f"a={SECRET}"}))
    for key in ("", "sesame"):
        with pytest.raises(Unauthorized):
            authenticator.authenticate(Headers({"X-API-Key": key}))
