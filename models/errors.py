"""The error hierarchy. Three families: rejected (the sender can mend it), unavailable (retry), and bugs (all else).

How a family is shown belongs to each edge: HTTP status, worker outcome, exit code.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of several things that are wrong with a request."""

    code: str
    message: str
    field: str | None = None
    expected: str | None = None
    hint: str | None = None


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as senders see it, everywhere the same."""

    code: str
    message: str
    retryable: bool = msgspec.field(default=False)
    field: str | None = None
    expected: str | None = None
    hint: str | None = None
    problems: list[Problem] = []
    """All that is wrong, if it is more than one field; the first is the one above."""


class RelayError(Exception):
    """Something went wrong."""

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
        """All that is wrong, if it is more than one field."""

    def body(self) -> dict[str, object]:
        """The `error` object of the wire format; absent fields are left out, `retryable` is always there."""
        problems = {"problems": self.problems} if self.problems else {}
        return {**self.problem(), "retryable": self.retryable, **problems}

    def problem(self) -> dict[str, Any]:
        """This error as one of several."""
        fields = {"field": self.field, "expected": self.expected, "hint": self.hint}
        given = {name: value for name, value in fields.items() if value is not None}
        return {"code": self.code, "message": self.message, **given}


class SettingsError(RelayError):
    """The configuration cannot be used."""

    code = "settings"


class Rejected(RelayError):
    """The request was understood and refused."""

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
    """The body is not compressed in the way that its header says."""

    status = 400
    code = "undecodable"


class Unauthorized(Rejected):
    """A valid API key is needed."""

    status = 401
    code = "unauthorized"


class Forbidden(Rejected):
    """The key does not allow this."""

    status = 403
    code = "forbidden"


class NotFound(Rejected):
    """There is nothing under this id."""

    status = 404
    code = "not_found"


class MethodNotAllowed(Rejected):
    """This address does not take that method."""

    status = 405
    code = "method_not_allowed"


class TooSlow(Rejected):
    """The request took too long to arrive."""

    status = 408
    code = "too_slow"
    retryable = True


class Conflict(Rejected):
    """It contradicts what is already there."""

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
    """This relay is not known under the host that the request names."""

    status = 421
    code = "wrong_host"


class Invalid(Rejected):
    """The request does not match the schema."""

    status = 422
    code = "invalid"


class TooManyRequests(Rejected):
    """More than its share; the sender is to come back later."""

    status = 429
    code = "rate_limited"
    retryable = True

    def __init__(self, message: str = "", *, retry_after_seconds: int, code: str = "", hint: str | None = None) -> None:
        super().__init__(message, code=code, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(RelayError):
    """A service that is needed does not answer; try again later."""

    status = 503
    code = "unavailable"
    retryable = True
    retry_after_seconds = 5
