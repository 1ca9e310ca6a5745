"""From a relay's answer back to the error that it stands for, with all that it says of how to mend it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from models.commands.responses import shorten
from models.error_parsing import make_error
from models.errors import ErrorBody, RelayError, TooLarge, Unavailable

LONGEST_PART = 2_000
"""Of a message or a hint."""
LONGEST_WAIT_SECONDS = 86_400
"""Of what a Retry-After may ask for; more is a mistake."""
CLIENT_TROUBLE = 400
"""Below it, a status speaks of no error."""


CHECK_ADDRESS = "Check the address, and the proxy before the relay, if there is one."
"""Advice on answers that no relay gives."""


class NoRelay(Unavailable):
    """What answers at this address is no session-relay."""

    code = "no_relay"
    retryable = False


class StillPending(Unavailable):
    """The command is safely stored and will take effect, but it has not yet. It need not be sent again."""

    code = "pending"


def error_of(status: int, body: bytes, headers: Mapping[str, str]) -> RelayError:
    """The error of an answer with this status. It has `data` where the answer of a command has some."""
    retry_after_seconds = _retry_after(headers.get("retry-after"))
    if status < CLIENT_TROUBLE:
        return _of_a_stranger(status, headers, retry_after_seconds)
    try:
        content = msgspec.json.decode(body)
        told = _shortened(msgspec.convert(content["error"], ErrorBody))
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError, RecursionError):
        return _of_a_stranger(status, headers, retry_after_seconds)
    return make_error(status, told, data=content.get("data"), retry_after_seconds=retry_after_seconds)


def _shortened(told: ErrorBody) -> ErrorBody:
    """As much of it as somebody reads."""
    parts = {name: getattr(told, name) for name in ("code", "message", "field", "expected", "hint")}
    return msgspec.structs.replace(
        told, **{name: shorten(part, LONGEST_PART) for name, part in parts.items() if part is not None}
    )


def _retry_after(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 10):
        return None
    return min(int(text), LONGEST_WAIT_SECONDS)


def _of_a_stranger(status: int, headers: Mapping[str, str], retry_after_seconds: int | None) -> RelayError:
    if status in (502, 503, 504):
        error = Unavailable(f"What stands before the relay answers that it is not there (HTTP {status}).")
        error.retry_after_seconds = retry_after_seconds or error.retry_after_seconds
        return error
    if status == TooLarge.status:
        return TooLarge("What stands before the relay takes no body of this size.")
    if target := headers.get("location"):
        return NoRelay(
            f"The address leads on to {target[:200]}.", hint="Use that one, if you trust it; the key does not follow."
        )
    return NoRelay(f"What answers at this address is no session-relay (HTTP {status}).", hint=CHECK_ADDRESS)
