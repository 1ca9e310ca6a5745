"""Rebuilds the error that a relay returned or recorded, from its JSON form and its HTTP status or code."""

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
"""The lowest status of a server error."""
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
"""Codes whose name does not imply their status."""
SUFFIXES: dict[str, type[RelayError]] = {"_not_found": NotFound, "_exists": Conflict, "_conflict": Conflict}


def make_error(
    status: int, body: ErrorBody, *, data: object = None, retry_after_seconds: int | None = None
) -> RelayError:
    """Return an error of the class with this status; the code decides among several such classes."""
    kind = _kind_with(status, body.code)
    if issubclass(kind, TooManyRequests):
        error: RelayError = kind(body.message, retry_after_seconds=retry_after_seconds or 1)
    else:
        error = kind(body.message)
    error.code, error.field, error.expected, error.hint = body.code, body.field, body.expected, body.hint
    error.problems = [problem for problem in msgspec.to_builtins(body.problems) if isinstance(problem, dict)]
    error.data = data if isinstance(data, dict) and data else None
    error.retryable = body.retryable
    if isinstance(error, Unavailable) and retry_after_seconds is not None:
        error.retry_after_seconds = retry_after_seconds
    return error


def parse_error(answer: dict[str, Any], *, status: int | None = None) -> RelayError:
    """Parse the error of a response, which may have `data`, or of a delivery that was not applied.

    The status defaults to that of the code. Raises ValidationError if the content is not an error.
    """
    body = msgspec.convert(answer.get("error", answer), ErrorBody)
    return make_error(status_of(body.code) if status is None else status, body, data=answer.get("data"))


def status_of(code: str) -> int:
    """Return the HTTP status for an error code; 422 for a code that this version does not know."""
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
