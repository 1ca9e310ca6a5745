"""Parses relay URLs and keys, and decides whether a key may be sent to a URL."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from models.errors import SettingsError

EXPECTED = "https://host, or http://127.0.0.1:port"
PLAIN_HTTP_VARIABLE = "PLAIN_HTTP_HOSTS"
"""Lists the hosts, separated by commas, to which keys are sent unencrypted; for private networks only."""
_HOST = re.compile(r"[\w.-]+", re.ASCII)


def parse_address(url: str) -> str:
    """Normalize a URL, without a trailing slash. The default scheme is https, and http on this machine. Raises
    SettingsError."""
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
            "The relay's URL must not contain a user, a query, a fragment or spaces.",
            field="url",
            expected=EXPECTED,
            hint="Pass the key separately, not in the URL.",
        )
    if not (_HOST.fullmatch(host) or _is_ip(host)):
        raise SettingsError("The address of the relay is not valid.", field="url", expected=EXPECTED)
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def parse_key(text: str) -> str:
    """Strip the key. Raises SettingsError for an invalid one, without showing it."""
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError("Invalid API key.", field="key", expected="printable ASCII without spaces")
    return key


def is_loopback(url: str) -> bool:
    """Return whether the URL's host is this machine."""
    try:
        host = urlsplit(url).hostname or ""
        if host == "localhost":
            return True
        address = ip_address(host)
        # Python judges mapped addresses by the IPv4 address from version 3.13 on.
        return ((address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address).is_loopback
    except ValueError:
        return False


def plain_http_hosts(environment: Mapping[str, str]) -> frozenset[str]:
    """Read the hosts to which keys may be sent unencrypted."""
    names = environment.get(PLAIN_HTTP_VARIABLE, "").lower().split(",")
    return frozenset(name.strip().strip("[]") for name in names) - {""}


def may_send_secrets(url: str, plain_hosts: Container[str] = frozenset()) -> bool:
    """Return whether a key may be sent to the URL: it is https, on this machine, or its host is in `plain_hosts`."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and (is_loopback(url) or host in plain_hosts))


def require_encryption(url: str, plain_hosts: Container[str] = frozenset()) -> None:
    """Raise SettingsError for a URL to which a key must not be sent."""
    if not may_send_secrets(url, plain_hosts):
        raise SettingsError(
            f"{url} is not encrypted: anybody on the network could read the key, so it is not sent.",
            field="url",
            hint=f"Use the https:// URL. In a private network, set {PLAIN_HTTP_VARIABLE}={urlsplit(url).hostname}.",
        )


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
