"""Addresses of relays, as people write them, keys, as they paste them, and which key may be sent to which address."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from models.errors import SettingsError

EXPECTED = "https://host, or http://127.0.0.1:port"
PLAIN_HTTP_VARIABLE = "PLAIN_HTTP_HOSTS"
"""Names the hosts to which keys are sent without encryption, with commas; for networks that nobody else can read."""
_HOST = re.compile(r"[\w.-]+", re.ASCII)


def parse_address(url: str) -> str:
    """The address in its one form, without a slash at the end; https unless it says otherwise or is on this machine.
    Raises SettingsError."""
    text = url.strip()
    if "://" not in text:
        text = f"http://{text}" if is_loopback(f"http://{text}") else f"https://{text}"
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname or ""
    except ValueError as error:
        raise SettingsError("The address of the relay is not valid.", field="url", expected=EXPECTED) from error
    if parts.scheme not in ("http", "https") or not host or port == 0 or not text.isprintable():
        raise SettingsError("The address of the relay is not valid.", field="url", expected=EXPECTED)
    if parts.username is not None or parts.query or parts.fragment or " " in text:
        raise SettingsError(
            "The address of the relay has more in it than an address.",
            field="url",
            expected=EXPECTED,
            hint="The key does not belong into it.",
        )
    if not (_HOST.fullmatch(host) or _is_ip(host)):
        raise SettingsError("The address of the relay is not valid.", field="url", expected=EXPECTED)
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def parse_key(text: str) -> str:
    """The key without what surrounds it. Raises SettingsError, which does not show it."""
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError("This is no API key.", field="key", expected="printable ASCII without blanks")
    return key


def is_loopback(url: str) -> bool:
    """Whether the address is on this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def plain_http_hosts(environment: Mapping[str, str]) -> frozenset[str]:
    """The hosts to which keys may be sent without encryption, as somebody has set it."""
    names = environment.get(PLAIN_HTTP_VARIABLE, "").lower().split(",")
    return frozenset(name.strip().strip("[]") for name in names) - {""}


def may_send_secrets(url: str, plain_hosts: Container[str] = frozenset()) -> bool:
    """Whether a key may be sent to the address: it is encrypted, on this machine, or somebody insists."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and (is_loopback(url) or host in plain_hosts))


def require_encryption(url: str, plain_hosts: Container[str] = frozenset()) -> None:
    """Raise SettingsError for an address to which no key may be sent."""
    if not may_send_secrets(url, plain_hosts):
        raise SettingsError(
            f"{url} is not encrypted, so no key is sent there: whoever is on the way could read it.",
            field="url",
            hint=f"Use its https:// address. In a network that nobody else can read, set {PLAIN_HTTP_VARIABLE}="
            f"{urlsplit(url).hostname}.",
        )


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
