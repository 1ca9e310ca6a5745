"""Apps that may ask for tokens. Anybody may register one (RFC 7591), and nothing is stored of it: what is known of an
app is written into its client id, which proves nothing but whereto a code may be sent."""

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
"""It stands in addresses."""
MAX_REDIRECTS = 5
MAX_NAME_LENGTH = 60
NO_APP_SCHEMES = frozenset({"javascript", "data", "file", "blob", "about", "vbscript", "ftp", "ws", "wss"})
"""Whereto no app is called back, and where a browser would rather do something else."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
"""It is shown, and stands in a header: nothing that means something there may be in it."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,63}")


class App(OAuthClientInformationFull):
    """A registered app. It has no secret, so it must use PKCE; what it may do is what the key of its user may."""

    def validate_scope(self, requested_scope: str | None) -> list[str] | None:
        """Whatever it asks for: the scopes are the key's."""
        return requested_scope.split() if requested_scope else None

    def validate_redirect_uri(self, redirect_uri: AnyUrl | None) -> AnyUrl:
        """As it was registered, but for the port on this machine, since an app listens on whichever is free (RFC 8252,
        7.3). Raises InvalidRedirectUriError."""
        if redirect_uri is not None and _is_redirect(str(redirect_uri)):
            asked = _without_port(str(redirect_uri))
            if asked and asked in {_without_port(str(uri)) for uri in self.redirect_uris or ()}:
                return redirect_uri
        return super().validate_redirect_uri(redirect_uri)


class _Written(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    name: str
    redirects: list[str]


def register(app: OAuthClientInformationFull) -> None:
    """Give an app its id, and note what it cannot have otherwise. Raises RegistrationError."""
    name = clean_name(app.client_name or "")
    redirects = [str(uri) for uri in app.redirect_uris or ()]
    if not 1 <= len(redirects) <= MAX_REDIRECTS or not all(_is_redirect(uri) for uri in redirects):
        raise RegistrationError(
            "invalid_redirect_uri",
            f"Expected 1 to {MAX_REDIRECTS} addresses: https, http on this machine, or a scheme of the app's own.",
        )
    written = msgspec.json.encode(_Written(name, redirects))
    app.client_id = ID_PREFIX + base64.urlsafe_b64encode(written).decode().rstrip("=")
    if len(app.client_id) > MAX_ID_LENGTH:
        raise RegistrationError("invalid_redirect_uri", "The addresses are too long.")
    for field, value in _given(name, redirects).items():
        setattr(app, field, value)


def find(client_id: str) -> App | None:
    """The app that has this id, or None."""
    text = client_id.removeprefix(ID_PREFIX)
    if text == client_id or len(client_id) > MAX_ID_LENGTH:
        return None
    try:
        written = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=_Written)
        if written.name != clean_name(written.name) or not all(_is_redirect(uri) for uri in written.redirects):
            return None
        return App(client_id=client_id, **_given(written.name, written.redirects))
    except (ValueError, msgspec.MsgspecError, ValidationError):
        return None


def clean_name(name: str) -> str:
    """What an app calls itself, in characters that can be shown, so that nothing looks like words of ours."""
    # Normalizing many accents takes quadratic time.
    beginning = unicodedata.normalize("NFC", name[: 10 * MAX_NAME_LENGTH])
    shown = "".join(c if unicodedata.category(c)[0] in "LMNPS" else " " for c in beginning)
    return " ".join(shown.split())[:MAX_NAME_LENGTH].strip() or "An app without a name"


def _given(name: str, redirects: list[str]) -> dict[str, Any]:
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
    """An address on this machine, whatever its port; None for another one."""
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
