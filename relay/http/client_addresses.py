"""Client addresses: which one counts behind a proxy, and the ALLOWED_IPS check."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send

from models.errors import Forbidden
from models.routes import template_of
from models.settings import Network
from relay.http.responses import RecordRejection, error_response

EXEMPT_PATHS = frozenset({template_of("health"), template_of("readiness")})
"""Platforms probe them from any address, and they reveal nothing."""
LIST_HEADER = "x-forwarded-for"
"""May be repeated; its lines form one list. Other headers must occur once, or nobody knows which is true."""

KEPT_LENGTH = 64
"""Longer than any address with a port. Longer texts are parsed each time, so that those that are kept stay small."""
KEPT_ADDRESSES = 4_096

Address = IPv4Address | IPv6Address

_WITH_PORT = re.compile(r"\[(?P<bracketed>[^\]]*)\](?::[0-9]{1,5})?|(?P<plain>[0-9.]+):[0-9]{1,5}")


class IpAllowlist:
    """The networks from whose addresses requests are accepted; all, if there are none."""

    def __init__(self, networks: Sequence[Network], *, proxy_header: str) -> None:
        self._networks = networks
        self._proxy_header = proxy_header

    def admit(self, scope: Scope) -> None:
        """Put the client's address into `scope["state"]["address"]`, as text or None if unknown. Raises Forbidden
        unless an allowed network contains it."""
        address = find_address(scope, proxy_header=self._proxy_header)
        scope.setdefault("state", {})["address"] = None if address is None else _text_of(address)
        if self._networks and scope["path"] not in EXEMPT_PATHS and not self._allows(address):
            raise Forbidden("Requests from this address are not allowed.", code="address_not_allowed")

    def _allows(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


class IpAllowlistMiddleware:
    """Middleware: puts the client's address into the request's state, and rejects it unless it is allowed."""

    def __init__(self, app: ASGIApp, *, allowlist: IpAllowlist, record_rejection: RecordRejection) -> None:
        self._app = app
        self._allowlist = allowlist
        self._record_rejection = record_rejection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._allowlist.admit(scope)
            except Forbidden as error:
                self._record_rejection(scope, error)
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def find_address(scope: Scope, *, proxy_header: str) -> Address | None:
    """Returns the client's address: from the proxy's header if one is configured, else that of the connection's peer.

    In a list the last address counts, which the proxy has added; the others may be forged. With a header configured,
    nothing else counts: None if it is missing, invalid, or contradictory.
    """
    if not proxy_header:
        client = scope.get("client")
        return _parse(client[0]) if client else None
    wanted = proxy_header.lower()
    name = wanted.encode("latin-1")
    lines = [value.decode("latin-1") for header, value in scope["headers"] if header.lower() == name]
    said = [line.rpartition(",")[2].strip() for line in lines]
    if wanted == LIST_HEADER:
        said = said[-1:]
    found = {_parse(text) for text in said}
    return found.pop() if len(found) == 1 else None


def network_of(address: str | None) -> str:
    """Returns the network that identifies a sender without a key: its IPv4 address, or its IPv6 /64, as a customer
    usually has all addresses of one."""
    if address is None:
        return "unknown"
    parsed = ip_address(address)
    return address if parsed.version == 4 else str(ip_network((parsed.packed[:8] + bytes(8), 64)))


def _parse(text: str) -> Address | None:
    """Parses an address with or without port or brackets; IPv4-mapped IPv6 becomes IPv4."""
    return _parse_once(text) if len(text) <= KEPT_LENGTH else _parse_now(text)


def _parse_now(text: str) -> Address | None:
    with_port = _WITH_PORT.fullmatch(text)
    plain = (with_port["bracketed"] or with_port["plain"] or "") if with_port else text
    try:
        address = ip_address(plain.partition("%")[0])  # After a `%` comes the name of a local interface.
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


_parse_once = lru_cache(KEPT_ADDRESSES)(_parse_now)
_text_of = lru_cache(KEPT_ADDRESSES)(str)
