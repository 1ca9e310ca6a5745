"""OAuth clients. Anybody may register an app (RFC 7591). Nothing is stored: the client id encodes the app's name and
redirect URIs, and proves nothing but where a code may be sent."""

from __future__ import annotations

import base64
import re
import unicodedata
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec
from mcp.server.auth.provider import RegistrationError
from mcp.shared.auth import OAuthClientInformationFull
from pydantic import AnyUrl, ValidationError

ID_PREFIX = "app_"
MAX_ID_LENGTH = 2_000
"""The client id is part of URLs."""
MAX_REDIRECTS = 5
MAX_NAME_LENGTH = 60
NO_APP_SCHEMES = frozenset({"javascript", "data", "file", "blob", "about", "vbscript", "ftp", "ws", "wss"})
"""Schemes to which no app can be called back, and which make a browser do something else."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
"""The host is shown to the user and put into a header, so it must not contain characters with a meaning there."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,63}")


class App(OAuthClientInformationFull):
    """A registered app. It has no secret, so it must use PKCE. Its permissions are those of the user's key."""

    def validate_scope(self, requested_scope: str | None) -> list[str] | None:
        """Accept any requested scope: the token gets the scopes of the key."""
        return requested_scope.split() if requested_scope else None

    def validate_redirect_uri(self, redirect_uri: AnyUrl | None) -> AnyUrl:
        """Require a registered URI. The port of a loopback URI may differ, since an app listens on any free port (RFC
        8252, 7.3). Raises InvalidRedirectUriError."""
        if redirect_uri is not None and _is_redirect(str(redirect_uri)):
            requested = _without_port(str(redirect_uri))
            if requested and requested in {_without_port(str(uri)) for uri in self.redirect_uris or ()}:
                return redirect_uri
        return super().validate_redirect_uri(redirect_uri)


class _EncodedClient(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    name: str
    redirects: list[str]


def register(app: OAuthClientInformationFull) -> None:
    """Assign an app its id, and set the only supported options. Raises RegistrationError."""
    name = clean_name(app.client_name or "")
    redirects = [str(uri) for uri in app.redirect_uris or ()]
    if not 1 <= len(redirects) <= MAX_REDIRECTS or not all(_is_redirect(uri) for uri in redirects):
        raise RegistrationError(
            "invalid_redirect_uri",
            f"Invalid redirect_uris. Send 1 to {MAX_REDIRECTS} URIs: https, http on localhost, or an app's own scheme.",
        )
    encoded = msgspec.json.encode(_EncodedClient(name, redirects))
    app.client_id = ID_PREFIX + base64.urlsafe_b64encode(encoded).decode().rstrip("=")
    if len(app.client_id) > MAX_ID_LENGTH:
        raise RegistrationError("invalid_redirect_uri", "The redirect_uris are too long. Send fewer or shorter ones.")
    for field, value in _metadata(name, redirects).items():
        setattr(app, field, value)


def find(client_id: str) -> App | None:
    """Decode the app from its id. Returns None for an invalid id."""
    text = client_id.removeprefix(ID_PREFIX)
    if text == client_id or len(client_id) > MAX_ID_LENGTH:
        return None
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=_EncodedClient)
        if found.name != clean_name(found.name) or not all(_is_redirect(uri) for uri in found.redirects):
            return None
        return App(client_id=client_id, **_metadata(found.name, found.redirects))
    except (ValueError, msgspec.MsgspecError, ValidationError):
        return None


def clean_name(name: str) -> str:
    """Reduce an app's name to printable characters, so that it cannot imitate text of the page."""
    # Normalizing many accents takes quadratic time.
    beginning = unicodedata.normalize("NFC", name[: 10 * MAX_NAME_LENGTH])
    shown = "".join(c if unicodedata.category(c)[0] in "LMNPS" else " " for c in beginning)
    return " ".join(shown.split())[:MAX_NAME_LENGTH].strip() or "Unnamed app"


def _metadata(name: str, redirects: list[str]) -> dict[str, Any]:
    return {
        "client_name": name,
        "redirect_uris": [AnyUrl(uri) for uri in redirects],
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code"],
        "response_types": ["code"],
        "client_secret": None,
        "client_secret_expires_at": None,
    }


def _without_port(uri: str) -> SplitResult | None:
    """A loopback URI without its port; None for any other URI."""
    parts = urlsplit(uri)
    if parts.scheme != "http" or parts.hostname not in _LOOPBACK or parts.port == 0:
        return None
    return parts._replace(netloc=parts.hostname)


def _is_redirect(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.fragment or parts.username is not None or not uri.isprintable() or not uri.isascii():
        return False
    if parts.scheme == "https":
        return _HOST.fullmatch(host) is not None
    if parts.scheme == "http":
        return host in _LOOPBACK
    return bool(_SCHEME.fullmatch(parts.scheme)) and parts.scheme not in NO_APP_SCHEMES
