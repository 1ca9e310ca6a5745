"""Makes the error again that a relay has answered or recorded, from its JSON form and its HTTP status or its code."""

from __future__ import annotations

from typing import Any

import msgspec

from models.errors import (
    BadRequest,
    Conflict,
    ErrorBody,
    Forbidden,
    NotFound,
    Rejected,
    RelayError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)

SERVER_ERRORS = 500
"""From here on a status speaks of the server."""
REJECTED: tuple[type[RelayError], ...] = (
    *(kind for kind in Rejected.__subclasses__() if kind.__module__ == Rejected.__module__),
    Rejected,
)
SPECIAL_CODES: dict[type[RelayError], tuple[str, ...]] = {
    BadRequest: ("not_an_object",),
    Unauthorized: ("key_missing", "unknown_key", "clock_skew", "signature_invalid", "signature_missing"),
    Forbidden: ("address_not_allowed", "wrong_origin"),
    NotFound: ("unknown_claim", "unknown_hook"),
    Conflict: (
        "claim_lost",
        "dependency_failed",
        "name_known",
        "name_taken",
        "open_tasks",
        "pattern_differs",
        "session_completed",
        "session_paused",
        "task_asking",
        "task_cancelled",
        "task_finished",
        "task_not_asking",
    ),
    TooManyRequests: ("answer_share", "backlog_share", "reads_too_slow", "too_many_bodies"),
    RelayError: ("dead_letter",),
}
"""Codes whose status their own name does not show."""
SUFFIXES: dict[str, type[RelayError]] = {"_not_found": NotFound, "_exists": Conflict, "_conflict": Conflict}


def make_error(
    status: int, told: ErrorBody, *, data: object = None, retry_after_seconds: int | None = None
) -> RelayError:
    """The error of the hierarchy that has this status, and the code if several have."""
    kind = _kind_with(status, told.code)
    if issubclass(kind, TooManyRequests):
        error: RelayError = kind(told.message, retry_after_seconds=retry_after_seconds or 1)
    else:
        error = kind(told.message)
    error.code, error.field, error.expected, error.hint = told.code, told.field, told.expected, told.hint
    error.problems = [problem for problem in msgspec.to_builtins(told.problems) if isinstance(problem, dict)]
    error.data = data if isinstance(data, dict) and data else None
    error.retryable = told.retryable
    if isinstance(error, Unavailable) and retry_after_seconds is not None:
        error.retry_after_seconds = retry_after_seconds
    return error


def parse_error(answer: dict[str, Any], *, status: int | None = None) -> RelayError:
    """The error in an answer, which may have `data`, or of a delivery that was not applied. Without a status it is that
    of the code. Raises ValidationError for what is none."""
    told = msgspec.convert(answer.get("error", answer), ErrorBody)
    return make_error(status_of(told.code) if status is None else status, told, data=answer.get("data"))


def status_of(code: str) -> int:
    """The HTTP status of an error with this code; that of a plain rejection for a code of another version."""
    kinds: tuple[type[RelayError], ...] = (*REJECTED, Unavailable, RelayError)
    named = [kind for kind, codes in SPECIAL_CODES.items() if code in codes]
    named += [kind for kind in kinds if kind.code == code]
    named += [kind for suffix, kind in SUFFIXES.items() if code.endswith(suffix)]
    return named[0].status if named else Rejected.status


def _kind_with(status: int, code: str) -> type[RelayError]:
    if status >= SERVER_ERRORS:
        return Unavailable
    kinds = [kind for kind in REJECTED if kind.status == status]
    return next((kind for kind in kinds if kind.code == code), next(iter(kinds), Rejected))
