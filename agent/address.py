"""Addresses of relays, as people write them, and keys, as they paste them."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from models.errors import SettingsError

EXPECTED = "http://host:port or https://host"


def parse_address(url: str) -> str:
    """The address in its one form, without a slash at the end. Raises SettingsError."""
    text = url.strip()
    text = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise SettingsError("The address of the relay is not valid.", field="url", expected=EXPECTED) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not text.isprintable():
        raise SettingsError("The address of the relay is not valid.", field="url", expected=EXPECTED)
    if parts.username is not None or parts.query or parts.fragment or " " in text:
        raise SettingsError(
            "The address of the relay has more in it than an address.",
            field="url",
            expected=EXPECTED,
            hint="The key does not belong into it.",
        )
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def parse_key(text: str) -> str:
    """The key without what surrounds it. Raises SettingsError, which does not show it."""
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError("This is no API key.", field="key", expected="printable ASCII without blanks")
    return key


def is_loopback(url: str) -> bool:
    """Whether the address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
