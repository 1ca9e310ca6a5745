"""Redirect addresses of apps: exactly as registered, except for the port on this machine."""

from __future__ import annotations

import pytest
from mcp.shared.auth import InvalidRedirectUriError, OAuthClientInformationFull
from pydantic import AnyUrl

from api.oauth import clients


def registered(*addresses: str) -> clients.App:
    """Return an app as the relay restores it from its id alone."""
    redirects = [AnyUrl(address) for address in addresses]
    given = OAuthClientInformationFull(client_id="x", client_name="App", redirect_uris=redirects)
    clients.register(given)
    app = clients.find(str(given.client_id))
    assert app is not None
    return app


@pytest.mark.parametrize(
    ("written", "asked", "is_the_same"),
    [
        ("http://127.0.0.1:7999/callback", "http://127.0.0.1:53211/callback", True),
        ("http://127.0.0.1/callback", "http://127.0.0.1:53211/callback", True),
        ("http://127.0.0.1:7999/callback", "http://127.0.0.1/callback", True),
        ("http://localhost:7999/callback", "http://localhost:1/callback", True),
        ("http://[::1]:7999/callback", "http://[::1]:53211/callback", True),
        ("http://127.0.0.1:7999/callback?a=b", "http://127.0.0.1:53211/callback?a=b", True),
        ("http://127.0.0.1:7999/callback", "http://localhost:7999/callback", False),
        ("http://127.0.0.1:7999/callback", "http://127.0.0.1:53211/other", False),
        ("http://127.0.0.1:7999/callback", "http://127.0.0.1:53211/callback/", False),
        ("http://127.0.0.1:7999/callback", "http://127.0.0.1:53211/callback?a=b", False),
        ("http://127.0.0.1:7999/callback", "http://127.0.0.1:53211/callback#a", False),
        ("http://127.0.0.1:7999/callback", "http://a@127.0.0.1:53211/callback", False),
        ("http://127.0.0.1:7999/callback", "https://127.0.0.1:53211/callback", False),
        ("http://127.0.0.1:7999/callback", "http://127.0.0.1.example:53211/callback", False),
        ("http://127.0.0.1:7999/callback", "http://127.0.0.1:0/callback", False),
        ("https://app.example/callback", "https://app.example:444/callback", False),
        ("https://localhost:7999/callback", "https://localhost:53211/callback", False),
        ("com.example.app://localhost:1/x", "com.example.app://localhost:2/x", False),
    ],
)
def test_only_the_port_on_this_machine_may_differ(written: str, asked: str, is_the_same: bool) -> None:
    app = registered("https://other.example/", written)
    if is_the_same:
        assert str(app.validate_redirect_uri(AnyUrl(asked))) == str(AnyUrl(asked))
    else:
        with pytest.raises(InvalidRedirectUriError):
            app.validate_redirect_uri(AnyUrl(asked))
    assert str(app.validate_redirect_uri(AnyUrl(written))) == str(AnyUrl(written))


def test_a_single_registered_address_may_be_omitted() -> None:
    app = registered("http://127.0.0.1:7999/callback")
    assert str(app.validate_redirect_uri(None)) == "http://127.0.0.1:7999/callback"
