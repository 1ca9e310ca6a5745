"""Converts error responses to exceptions, with their hints."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from models.commands.responses import shorten
from models.error_parsing import make_error
from models.errors import ErrorBody, RelayError, TooLarge, TooManyRequests, Unavailable

LONGEST_PART = 2_000
"""Maximum length of a message or hint."""
LONGEST_WAIT_SECONDS = 86_400
"""Maximum Retry-After; a larger value is taken for a mistake."""
FIRST_ERROR_STATUS = 400
"""The lowest status of an error."""


CHECK_ADDRESS = "Check the URL, and the reverse proxy, if there is one."
"""Hint for responses that no relay sends."""


class NoRelay(Unavailable):
    """The server at this URL is not a session-relay."""

    code = "no_relay"
    retryable = False


class StillPending(Unavailable):
    """The command is stored but not applied yet. Do not send it again."""

    code = "pending"


def error_of(status: int, body: bytes, headers: Mapping[str, str]) -> RelayError:
    """Convert an error response to an exception, with the `data` of a command's response, if any."""
    retry_after_seconds = _retry_after(headers.get("retry-after"))
    if status < FIRST_ERROR_STATUS:
        return _foreign_error(status, headers, retry_after_seconds)
    try:
        content = msgspec.json.decode(body)
        error_body = _shortened(msgspec.convert(content["error"], ErrorBody))
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError, RecursionError):
        return _foreign_error(status, headers, retry_after_seconds)
    return make_error(status, error_body, data=content.get("data"), retry_after_seconds=retry_after_seconds)


def _shortened(error_body: ErrorBody) -> ErrorBody:
    """Limit the length of each text."""
    parts = {name: getattr(error_body, name) for name in ("code", "message", "field", "expected", "hint")}
    return msgspec.structs.replace(
        error_body, **{name: shorten(part, LONGEST_PART) for name, part in parts.items() if part is not None}
    )


def _retry_after(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 10):
        return None
    return min(int(text), LONGEST_WAIT_SECONDS)


def _foreign_error(status: int, headers: Mapping[str, str], retry_after_seconds: int | None) -> RelayError:
    if status in (502, 503, 504):
        error = Unavailable(f"The reverse proxy reports that the relay is unavailable (HTTP {status}).")
        error.retry_after_seconds = retry_after_seconds or error.retry_after_seconds
        return error
    if status == TooManyRequests.status:
        return TooManyRequests(
            "The reverse proxy limits the requests to the relay.", retry_after_seconds=retry_after_seconds or 1
        )
    if status == TooLarge.status:
        return TooLarge("The reverse proxy does not accept a body of this size.")
    if target := headers.get("location"):
        return NoRelay(
            f"The URL redirects to {target[:200]}.",
            hint="Use that URL if you trust it. The client does not follow redirects, to protect the key.",
        )
    return NoRelay(f"The server at this URL is not a session-relay (HTTP {status}).", hint=CHECK_ADDRESS)
