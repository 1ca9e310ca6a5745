"""Webhook signatures: Standard Webhooks (also under Svix' header names) and GitHub's. Parses and verifies them; what
their sender may do is decided elsewhere."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import ClassVar

import msgspec
from starlette.datastructures import Headers

from models.errors import Unauthorized
from relay.auth.signing_secrets import SigningSecret
from relay.delivery_ids import ID_DIGITS, as_delivery_id
from relay.http.signature_headers import (
    GITHUB_EVENT,
    GITHUB_SIGNATURE,
    STANDARD_PARTS,
    is_from_github,
    is_signed,
    standard_prefix,
)

TOLERANCE_SECONDS = 300
"""Largest difference from the relay's clock, as in Standard Webhooks; later a captured request is worthless."""

_MESSAGE_ID = re.compile(r"[!-\-/-~]{1,256}")
"""Printable, without a dot, which separates the parts of the signed text."""
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
# Other signatures are of other versions. They are compared as text, so each has exactly one spelling.
_VERSION_1 = re.compile(rb"v1,[A-Za-z0-9+/]{43}=")
_GITHUB_DIGEST = re.compile(r"sha256=[0-9a-f]{64}")
_EVENT = re.compile(r"[a-z_]{1,64}")


class StandardSignature(msgspec.Struct, frozen=True, kw_only=True):
    """Well-formed Standard Webhooks headers within the time tolerance."""

    message_id: str
    timestamp: str
    signatures: tuple[bytes, ...]
    """Version 1 signatures; several while a secret is rotated."""
    event: ClassVar[str] = ""

    def signer(self, secrets: Sequence[SigningSecret], body: bytes) -> SigningSecret | None:
        """The secret that made one of the signatures over this body."""
        content = b"%b.%b.%b" % (self.message_id.encode(), self.timestamp.encode(), body)
        made = [(secret, b"v1," + base64.b64encode(hmac.digest(secret.key, content, "sha256"))) for secret in secrets]
        return next((secret for secret, expected in made if self._has(expected)), None)

    def _has(self, expected: bytes) -> bool:
        return any(hmac.compare_digest(expected, signature) for signature in self.signatures)

    def delivery_id_of(self, body: bytes) -> str:
        """Returns the sender's message id, which the signature covers."""
        return as_delivery_id(self.message_id)


class GithubSignature(msgspec.Struct, frozen=True, kw_only=True):
    """Well-formed GitHub headers."""

    signature: bytes
    event: str

    def signer(self, secrets: Sequence[SigningSecret], body: bytes) -> SigningSecret | None:
        """The secret that made the signature over this body."""
        made = [(secret, b"sha256=" + hmac.digest(secret.key, body, "sha256").hex().encode()) for secret in secrets]
        return next((secret for secret, expected in made if hmac.compare_digest(expected, self.signature)), None)

    def delivery_id_of(self, body: bytes) -> str:
        """Returns an id made from the body: X-GitHub-Delivery is not signed, so an attacker could replay a captured
        request under another one."""
        return f"body-{hashlib.sha256(body).hexdigest()[:ID_DIGITS]}"


Signature = StandardSignature | GithubSignature


def read_signature(headers: Headers, *, now: float) -> Signature | None:
    """Parses a request's signature, to be verified against its body; None if it has no signature header.

    Raises Unauthorized if a part is missing or malformed, or its time is out of tolerance of `now`.
    """
    if not is_signed(headers):
        return None
    standard, github = standard_prefix(headers), is_from_github(headers)
    if standard and github:
        raise _invalid("The request has headers of two kinds of signatures.", field=GITHUB_SIGNATURE)
    if standard:
        return _read_standard(headers, standard, now=now)
    return _read_github(headers)


def not_signed_by_us() -> Unauthorized:
    """Returns the error for a signature that none of the secrets made."""
    return _invalid("The signature does not match the body.")


def _read_standard(headers: Headers, prefix: str, *, now: float) -> StandardSignature:
    message_id, timestamp, signature = (_only(headers, prefix + part) for part in STANDARD_PARTS)
    if not _MESSAGE_ID.fullmatch(message_id):
        raise _invalid("Invalid id of the signed message.", field=f"{prefix}id")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise _invalid("Invalid timestamp of the signature.", field=f"{prefix}timestamp")
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise Unauthorized(
            "The timestamp of the signature is too far from the relay's clock.",
            code="clock_skew",
            field=f"{prefix}timestamp",
            expected=f"seconds since 1970, at most {TOLERANCE_SECONDS} from {int(now)}",
            hint="Correct the sender's clock, and sign each attempt anew.",
        )
    signatures = tuple(part for part in signature.encode("latin-1").split(b" ") if _VERSION_1.fullmatch(part))
    return StandardSignature(message_id=message_id, timestamp=timestamp, signatures=signatures)


def _read_github(headers: Headers) -> GithubSignature:
    signature = _only(headers, GITHUB_SIGNATURE)
    if not _GITHUB_DIGEST.fullmatch(signature):
        raise _invalid("Invalid signature.", field=GITHUB_SIGNATURE)
    event = _only(headers, GITHUB_EVENT) if GITHUB_EVENT in headers else ""
    if event and not _EVENT.fullmatch(event):
        raise _invalid("Invalid event name.", field=GITHUB_EVENT)
    return GithubSignature(signature=signature.encode(), event=event)


def _only(headers: Headers, name: str) -> str:
    values = headers.getlist(name)
    if len(values) > 1:
        raise _invalid(f"The header {name} occurs {len(values)} times.", field=name)
    if not values or not values[0]:
        raise Unauthorized(
            f"The header {name} is missing.",
            code="signature_missing",
            field=name,
            hint="A request with signature headers must be signed; an API key does not replace the signature. "
            "Configure the sender with the relay's secret.",
        )
    return values[0]


def _invalid(message: str, *, field: str | None = None) -> Unauthorized:
    return Unauthorized(
        message,
        code="signature_invalid",
        field=field,
        hint="Sign the exact bytes of the body with the secret that the relay has.",
    )
