"""The error hierarchy in three families: rejected (the sender must fix the request), unavailable (retry), and bugs.

Each interface maps the families to its own form: HTTP status, worker outcome or exit code.
"""

from __future__ import annotations

from typing import Any

import msgspec

OUT_OF_TIME_CODES = frozenset({"too_slow", "reads_too_slow"})
"""Codes of reads that were cancelled, or not begun, because they would have delayed the commands behind them."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of several problems with a request."""

    code: str
    message: str
    field: str | None = None
    expected: str | None = None
    hint: str | None = None


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The error object that clients receive, the same on every interface."""

    code: str
    message: str
    retryable: bool = msgspec.field(default=False)
    field: str | None = None
    expected: str | None = None
    hint: str | None = None
    problems: list[Problem] = []
    """All problems, if there is more than one; the first repeats the fields above."""


class RelayError(Exception):
    """An internal error occurred."""

    status = 500
    code = "internal"
    retryable = False

    def __init__(
        self,
        message: str = "",
        *,
        code: str = "",
        field: str | None = None,
        expected: str | None = None,
        hint: str | None = None,
        data: dict[str, object] | None = None,
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        super().__init__(self.message)
        self.code = code or type(self).code
        self.field, self.expected, self.hint, self.data = field, expected, hint, data
        self.problems: list[dict[str, Any]] = []
        """All problems, if there is more than one."""

    def body(self) -> dict[str, object]:
        """Return the `error` object of the wire format: unset fields are omitted, `retryable` is always present."""
        problems = {"problems": self.problems} if self.problems else {}
        return {**self.problem(), "retryable": self.retryable, **problems}

    def problem(self) -> dict[str, Any]:
        """Return this error as one entry of `problems`."""
        fields = {"field": self.field, "expected": self.expected, "hint": self.hint}
        given = {name: value for name, value in fields.items() if value is not None}
        return {"code": self.code, "message": self.message, **given}


class SettingsError(RelayError):
    """The configuration is invalid."""

    code = "settings"


class Rejected(RelayError):
    """The request was rejected."""

    status = 422
    code = "rejected"


class BadRequest(Rejected):
    """The request is not valid HTTP."""

    status = 400
    code = "bad_request"


class NotJson(Rejected):
    """The body is not valid JSON."""

    status = 400
    code = "not_json"


class Undecodable(Rejected):
    """The body does not match its Content-Encoding header."""

    status = 400
    code = "undecodable"


class Unauthorized(Rejected):
    """A valid API key is required."""

    status = 401
    code = "unauthorized"


class Forbidden(Rejected):
    """The key does not permit this request."""

    status = 403
    code = "forbidden"


class NotFound(Rejected):
    """No resource has this id."""

    status = 404
    code = "not_found"


class MethodNotAllowed(Rejected):
    """This URL does not support the request's method."""

    status = 405
    code = "method_not_allowed"


class TooSlow(Rejected):
    """The request took too long to arrive."""

    status = 408
    code = "too_slow"
    retryable = True


class Conflict(Rejected):
    """The request conflicts with existing data."""

    status = 409
    code = "conflict"


class TooLarge(Rejected):
    """The body is too large."""

    status = 413
    code = "too_large"


class UnsupportedMediaType(Rejected):
    """The body must be JSON."""

    status = 415
    code = "unsupported_media_type"


class Misdirected(Rejected):
    """The request names a host that is not this relay's."""

    status = 421
    code = "wrong_host"


class Invalid(Rejected):
    """The request does not match the schema."""

    status = 422
    code = "invalid"


class TooManyRequests(Rejected):
    """The sender exceeded its limit; retry later."""

    status = 429
    code = "rate_limited"
    retryable = True

    def __init__(self, message: str = "", *, retry_after_seconds: int, code: str = "", hint: str | None = None) -> None:
        super().__init__(message, code=code, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(RelayError):
    """A required service is not responding; retry later."""

    status = 503
    code = "unavailable"
    retryable = True
    retry_after_seconds = 5
