"""Parses the signing secrets in the settings into sources, keys and session patterns."""

from __future__ import annotations

import base64
import binascii
import re

import msgspec

from models.errors import SettingsError
from models.settings import Settings

GITHUB = "github"
"""The source of requests signed with GITHUB_WEBHOOK_SECRET."""
DEFAULT_SOURCE = "default"
"""The source of requests with API_KEY. Delivery ids are unique per source, so they survive a change of the key."""
PREFIX = "whsec_"
KEY_BYTES = range(24, 65)
"""As Standard Webhooks requires; shorter ones could be guessed."""

# No colon: the keys in Redis put one between a source and a delivery id, which may have some itself.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_GLOB = re.compile(r"[A-Za-z0-9._:@*?-]{1,128}")


class SigningSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret, the source that it identifies, and the sessions that it may write to."""

    source: str
    key: bytes
    session_glob: str | None = None

    def __repr__(self) -> str:
        return f"SigningSecret(source={self.source!r})"


def webhook_secrets(settings: Settings) -> list[SigningSecret]:
    """Parses WEBHOOK_SECRETS, in order. Raises SettingsError with the invalid secret's number; it shows no secret."""
    parts = settings.webhook_secrets.split(",") if settings.webhook_secrets else []
    found = [_parse(part.strip(), number) for number, part in enumerate(parts, start=1)]
    globs: dict[str, str | None] = {}
    for number, secret in enumerate(found, start=1):
        if globs.setdefault(secret.source, secret.session_glob) != secret.session_glob:
            raise _wrong(number, "has another session pattern than an earlier one with the same name")
    return found


def github_secrets(settings: Settings) -> list[SigningSecret]:
    """Returns GITHUB_WEBHOOK_SECRET as a list of one, or an empty list."""
    secret = settings.github_webhook_secret
    return [SigningSecret(source=GITHUB, key=secret.encode())] if secret else []


def _parse(part: str, number: int) -> SigningSecret:
    head, equals, secret = part.partition("=")
    name, colon, glob = head.partition(":")
    if not equals or head.startswith(PREFIX):
        raise _wrong(number, "has no name")
    if not _NAME.fullmatch(name):
        raise _wrong(number, "has a name that is not 1 to 64 letters, digits and . _ -, the first a letter or digit")
    if name in (DEFAULT_SOURCE, GITHUB):
        raise _wrong(number, f"has a name that is taken: {DEFAULT_SOURCE} is API_KEY, {GITHUB} GITHUB_WEBHOOK_SECRET")
    if colon and not _GLOB.fullmatch(glob):
        raise _wrong(number, "has a session pattern that is not made of the letters of session ids, * and ?")
    if not secret.startswith(PREFIX):
        raise _wrong(number, f"does not begin with {PREFIX}")
    encoded = secret.removeprefix(PREFIX).rstrip("=")  # Some tools leave the padding out.
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _wrong(number, f"is not base64 after {PREFIX}") from None
    if len(key) not in KEY_BYTES:
        raise _wrong(number, f"has {len(key)} bytes, not {KEY_BYTES[0]} to {KEY_BYTES[-1]}")
    return SigningSecret(source=name, key=key, session_glob=glob if colon else None)


def _wrong(number: int, what: str) -> SettingsError:
    return SettingsError(
        f"Invalid WEBHOOK_SECRETS: secret {number} {what}. Expected name={PREFIX}BASE64, or "
        f"name:PATTERN={PREFIX}BASE64 for matching sessions, separated by commas."
    )
