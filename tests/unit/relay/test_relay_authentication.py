"""Authentication and permissions of keys."""

from __future__ import annotations

import msgspec
import pytest
from starlette.datastructures import Headers

from models.commands.definitions import Batch, BatchItem, DelegateTask, DeleteSession, GetTask, StoreMemory
from models.errors import Forbidden, SettingsError, Unauthorized
from models.field_types import Scope
from models.settings import Settings
from relay.auth.authentication import Caller, require_permission
from tests.support.clients.credentials import make_authenticator

MEMORY = StoreMemory(content=msgspec.Raw(b'"x"'))


def caller(*scopes: Scope, session_glob: str | None = None) -> Caller:
    return Caller(source="test", scopes=scopes, session_glob=session_glob)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "sesame"},
        {"x-api-key": "sesame"},
        {"Authorization": "Bearer sesame"},
        {"Authorization": "bearer  sesame"},
        {"X-API-Key": " \tsesame \r\n"},
        {"Authorization": " Bearer sesame "},
    ],
)
def test_the_key_is_accepted_in_either_header(headers: dict[str, str]) -> None:
    found = make_authenticator(Settings(api_key="sesame")).authenticate(Headers(headers))
    assert found.source == "default"
    assert all(found.has(scope) for scope in ("read", "write", "delegate", "agent", "admin"))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "sesam"},
        {"X-API-Key": "ses ame"},
        {"X-API-Key": "séame"},
        {"Authorization": "Basic sesame"},
        {"Authorization": "sesame"},
        {"Authorization": "Bearer"},
    ],
)
def test_other_headers_do_not_authenticate(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized) as caught:
        make_authenticator(Settings(api_key="sesame")).authenticate(Headers(headers))
    assert "X-API-Key" in str(caught.value.hint)


def test_a_key_may_end_in_a_letter_whose_last_byte_is_a_blank_in_latin1() -> None:
    sent = "voilà".encode().decode("latin-1")
    for headers in ({"X-API-Key": sent}, {"Authorization": f"Bearer {sent}"}):
        assert make_authenticator(Settings(api_key="voilà")).authenticate(Headers(headers)).source == "default"


def test_a_key_with_non_ascii_letters_works() -> None:
    sent = "schlüssel".encode().decode("latin-1")
    assert (
        make_authenticator(Settings(api_key="schlüssel")).authenticate(Headers({"X-API-Key": sent})).source == "default"
    )


def test_a_key_is_required_to_start() -> None:
    with pytest.raises(SettingsError, match="API_KEY"):
        make_authenticator(Settings())


def test_write_includes_read_and_admin_includes_everything() -> None:
    require_permission(caller("write"), GetTask(task_id="t"), "s")
    require_permission(caller("admin"), DeleteSession(confirm="s"), "s")
    require_permission(caller("delegate"), DelegateTask(description="x"), "s")


@pytest.mark.parametrize(
    ("scopes", "command", "missing"),
    [
        (("read",), MEMORY, "write"),
        (("write",), DelegateTask(description="x"), "delegate"),
        (("write", "delegate", "agent"), DeleteSession(confirm="s"), "admin"),
        (("delegate",), GetTask(task_id="t"), "read"),
    ],
)
def test_a_missing_scope_is_named(scopes: tuple[Scope, ...], command: GetTask, missing: str) -> None:
    with pytest.raises(Forbidden, match=f"'{missing}'"):
        require_permission(caller(*scopes), command, "s")


def test_a_batch_needs_the_scopes_of_all_its_commands() -> None:
    batch = Batch(commands=[BatchItem(command="store_memory"), BatchItem(command="delegate_task")])
    require_permission(caller("write", "delegate"), batch, "s")
    with pytest.raises(Forbidden, match="'delegate'"):
        require_permission(caller("write"), batch, "s")


@pytest.mark.parametrize(
    ("glob", "session_id", "seen"),
    [
        (None, "anything", True),
        ("solar-*", "solar-roof", True),
        ("solar-*", "lunar-roof", False),
        ("solar-?", "solar-ab", False),
        ("solar-[ab]", "solar-a", False),
        ("solar-*", None, True),
    ],
)
def test_a_key_sees_the_sessions_of_its_pattern(glob: str | None, session_id: str | None, seen: bool) -> None:
    assert caller("read", session_glob=glob).sees(session_id) is seen


def test_another_session_is_refused_with_the_pattern() -> None:
    with pytest.raises(Forbidden) as caught:
        require_permission(caller("write", session_glob="solar-*"), MEMORY, "lunar")
    assert "solar-*" in str(caught.value.expected)
