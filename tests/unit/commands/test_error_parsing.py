"""Errors restored from a relay's responses or records."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from docs.error_codes import served_codes
from models import errors
from models.error_parsing import make_error, parse_error, status_of
from models.errors import (
    Conflict,
    ErrorBody,
    Invalid,
    NotFound,
    RelayError,
    SettingsError,
    TooManyRequests,
    Unavailable,
)

KINDS: list[type[RelayError]] = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RelayError)
]


def test_the_code_of_a_recorded_error_determines_its_status() -> None:
    codes = {code: {found.status for found in served} for code, served in served_codes().items()}
    assert len(codes) > 60
    assert {code: status_of(code) for code, statuses in codes.items() if status_of(code) not in statuses} == {}


@pytest.mark.parametrize("code", ["session_completed", "open_tasks", "dependency_failed", "task_not_asking"])
def test_a_recorded_state_rejection_is_a_conflict(code: str) -> None:
    recorded = {"status": "error", "error": {"code": code, "message": "No.", "retryable": False}, "data": {"open": 2}}
    error = parse_error(recorded)
    assert (type(error), error.status, error.code, error.data) == (Conflict, 409, code, {"open": 2})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (RelayError, SettingsError)])
def test_an_error_is_restored_unchanged(kind: type[RelayError]) -> None:
    waits: dict[str, Any] = {"retry_after_seconds": 7} if issubclass(kind, TooManyRequests) else {}
    error = kind("So it is.", hint="Try 7.", **waits)
    error.field, error.expected, error.problems = "data.x", "a number", [{"code": "invalid", "message": "No number."}]
    found = parse_error({"error": error.body(), "data": {"n": 1}}, status=kind.status)
    assert (type(found), found.status, found.body(), found.data) == (kind, kind.status, error.body(), {"n": 1})


def test_an_unknown_code_is_classified_by_its_form_or_as_a_rejection() -> None:
    assert isinstance(parse_error({"code": "dream_not_found", "message": "No."}), NotFound)
    assert isinstance(parse_error({"code": "dream_exists", "message": "No."}), Conflict)
    assert status_of("dream_over") == 422


def test_an_invalid_error_raises() -> None:
    for odd in ({}, {"error": None}, {"error": {"code": 1, "message": "No."}}, {"error": {"message": "No."}}):
        with pytest.raises(msgspec.ValidationError):
            parse_error(odd)


def test_the_retry_delay_is_kept() -> None:
    told = ErrorBody(code="x", message="Later.", retryable=True)
    limited, away = (make_error(status, told, retry_after_seconds=9) for status in (429, 502))
    assert isinstance(limited, TooManyRequests)
    assert isinstance(away, Unavailable)
    assert (limited.retry_after_seconds, away.retry_after_seconds) == (9, 9)
    assert type(make_error(422, told)) is Invalid
