"""Client addresses: which one counts, and the allowlist."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from models.errors import RelayError, SettingsError
from models.settings import parse_networks, read_settings
from relay.http.client_addresses import IpAllowlist, IpAllowlistMiddleware, find_address

ALLOWED = "203.0.113.0/24, 198.51.100.7, 2001:db8::/32"


def find(*lines: str, header: str = "X-Real-IP", peer: tuple[str, int] | None = ("192.0.2.1", 5000)) -> str | None:
    """Return the address that counts for a request with these lines of a proxy's header."""
    headers = [(header.lower().encode(), line.encode("latin-1")) for line in lines]
    scope = {"type": "http", "headers": [(b"x-other", b"203.0.113.5"), *headers], "client": peer}
    found = find_address(scope, proxy_header=header)
    return None if found is None else str(found)


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("203.0.113.5", "203.0.113.5"),
        (" 203.0.113.5 ", "203.0.113.5"),
        ("203.0.113.5:49152", "203.0.113.5"),
        ("2001:db8::5", "2001:db8::5"),
        ("[2001:db8::5]", "2001:db8::5"),
        ("[2001:db8::5]:49152", "2001:db8::5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("[::ffff:203.0.113.5]:1", "203.0.113.5"),
        ("198.51.100.1, 203.0.113.5", "203.0.113.5"),
        ("fe80::1%eth0", "fe80::1"),
        ("", None),
        ("unknown", None),
        ("203.0.113.5, ", None),
        ("203.0.113.5, unknown", None),
        ("203.0.113.005", None),
        ("203.0.113.5:port", None),
        ("203.0.113.5:1:2", None),
        ("203.0.113.5 198.51.100.1", None),
        ("[203.0.113.5", None),
        ("3405803781", None),
        ("\xb2\xb3", None),
    ],
)
def test_the_last_address_that_the_proxy_names_counts(said: str, address: str | None) -> None:
    assert find(said) == address


def test_several_header_lines_form_a_list_only_for_list_headers() -> None:
    assert find("198.51.100.1", "203.0.113.5", header="X-Forwarded-For") == "203.0.113.5"
    assert find("198.51.100.1", "203.0.113.5") is None
    assert find("203.0.113.5", "203.0.113.5") == "203.0.113.5"


def test_with_a_configured_header_the_connection_is_ignored() -> None:
    assert find() is None
    assert find("unknown") is None


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("192.0.2.1", 5000), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5000), "192.0.2.1"),
        (("fe80::1%2", 5000), "fe80::1"),
        (("", 0), None),
        (None, None),
    ],
)
def test_without_a_proxy_the_address_of_the_connection_counts(
    peer: tuple[str, int] | None, address: str | None
) -> None:
    assert find("203.0.113.5", header="", peer=peer) == address


def ask(
    path: str = "/v1/sessions", *, allowed: str = ALLOWED, header: str = "", peer: Any, **headers: str
) -> tuple[httpx.Response, list[RelayError]]:
    """Return the response of an app behind the allowlist, which shows the address; and the recorded rejections."""
    noted: list[RelayError] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response: Response = JSONResponse({"address": Request(scope).state.address})
        await response(scope, receive, send)

    def note(_: Scope, error: RelayError) -> None:
        noted.append(error)

    allowlist = IpAllowlist(parse_networks(allowed), proxy_header=header)
    barrier = IpAllowlistMiddleware(app, allowlist=allowlist, record_rejection=note)

    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(barrier, client=peer)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(request()), noted


@pytest.mark.parametrize("address", ["203.0.113.200", "198.51.100.7", "2001:db8:1::9", "::ffff:203.0.113.200"])
def test_requests_from_an_allowed_network_are_accepted(address: str) -> None:
    answer, noted = ask(peer=(address, 1))
    assert answer.status_code == 200
    assert answer.json() == {"address": address.removeprefix("::ffff:")}
    assert noted == []


@pytest.mark.parametrize("peer", [("203.0.114.1", 1), ("198.51.100.8", 1), ("2001:db9::1", 1), ("::1", 1), None])
def test_requests_from_other_networks_are_refused_without_details(peer: Any) -> None:
    answer, noted = ask(peer=peer)
    assert answer.status_code == 403
    assert answer.json()["error"] == {
        "code": "address_not_allowed",
        "message": "Requests from this address are not allowed.",
        "retryable": False,
    }
    assert [error.code for error in noted] == ["address_not_allowed"]


def test_only_the_trusted_header_decides() -> None:
    inside, outside = ("203.0.113.1", 1), ("192.0.2.1", 1)
    assert ask(header="X-Real-IP", peer=outside, **{"x-real-ip": "203.0.113.9"})[0].status_code == 200
    assert ask(header="X-Real-IP", peer=inside, **{"x-real-ip": "192.0.2.9"})[0].status_code == 403
    assert ask(header="X-Real-IP", peer=inside, **{"x-forwarded-for": "203.0.113.9"})[0].status_code == 403
    assert ask(peer=outside, **{"x-real-ip": "203.0.113.9"})[0].status_code == 403
    spoofed = ask(header="X-Forwarded-For", peer=inside, **{"x-forwarded-for": "203.0.113.9, 192.0.2.9"})[0]
    assert spoofed.status_code == 403


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_checks_are_always_allowed(path: str) -> None:
    assert ask(path, peer=("192.0.2.1", 1))[0].status_code == 200


def test_without_an_allowlist_all_are_accepted_and_the_address_is_known() -> None:
    assert ask(allowed="", peer=("192.0.2.1", 1))[0].json() == {"address": "192.0.2.1"}
    assert ask(allowed="", header="X-Real-IP", peer=("192.0.2.1", 1))[0].json() == {"address": None}


def test_an_ipv4_network_may_be_written_as_ipv6() -> None:
    assert [str(network) for network in parse_networks("::ffff:203.0.113.0/120,::/0,")] == ["203.0.113.0/24", "::/0"]


@pytest.mark.parametrize("bad", ["203.0.113.300", "203.0.113.1/24", "example.org", "2001:db8::/200", "1.2.3.4-9"])
def test_an_invalid_entry_is_named(bad: str) -> None:
    with pytest.raises(SettingsError, match="ALLOWED_IPS") as raised:
        read_settings({"ALLOWED_IPS": f"198.51.100.7, {bad}"})
    assert repr(bad) in raised.value.message


@pytest.mark.parametrize("bad", ["X-Real-IP, X-Forwarded-For", "X Real", "Forwarded", "X-Real-IP:"])
def test_an_invalid_header_name_is_refused(bad: str) -> None:
    with pytest.raises(SettingsError, match="TRUSTED_PROXY_HEADER"):
        read_settings({"TRUSTED_PROXY_HEADER": bad})
