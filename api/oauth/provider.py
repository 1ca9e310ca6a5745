"""The provider behind the SDK's OAuth endpoints: apps, codes and tokens. A token is a key derived from the user's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from urllib.parse import urlencode

from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    AuthorizeError,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    TokenError,
)
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyUrl

from api.oauth import clients
from api.oauth.codes import Codes, Grant
from models.errors import Unavailable
from models.routes import template_of
from relay.auth.api_key_cache import REFRESH_SECONDS
from sessions.api_keys import KeyRegister

SIGN_IN_PATH = template_of("show_sign_in")
KNOWN_SECONDS = REFRESH_SECONDS + 0.5
"""The time until every relay process accepts a new token: an app that is refused at once may give up."""
MAX_STATE_LENGTH = 2_000
CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
"""A SHA-256 in base64url (RFC 7636)."""

logger = logging.getLogger(__name__)


class Provider(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """The authorization server. It issues no refresh tokens: a token is valid until it or its key is revoked."""

    def __init__(self, *, codes: Codes, register: KeyRegister) -> None:
        self._codes = codes
        self._register = register

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        """Return the app with this id, or None."""
        return clients.find(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        """Assign an app its id. Raises RegistrationError."""
        clients.register(client_info)

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        """Return the URL of the sign-in page. Raises AuthorizeError."""
        if not CHALLENGE.fullmatch(params.code_challenge):
            raise AuthorizeError("invalid_request", "Invalid code_challenge: use the method S256.")
        if len(params.state or "") > MAX_STATE_LENGTH:
            raise AuthorizeError("invalid_request", f"The state has more than {MAX_STATE_LENGTH:,} characters.")
        parameters = {
            "client_id": client.client_id,
            "redirect_uri": str(params.redirect_uri) if params.redirect_uri_provided_explicitly else None,
            "code_challenge": params.code_challenge,
            "state": params.state,
            "resource": params.resource,
        }
        return f"{SIGN_IN_PATH}?{urlencode({name: value for name, value in parameters.items() if value is not None})}"

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        """Load a code, or return None. A second use of a code revokes its token: one of the two users has stolen the
        code (RFC 6749, 4.1.2)."""
        found = await self._codes.look_up(authorization_code)
        if isinstance(found, str):
            await self._revoke_token(found)
            return None
        return None if found is None else _code_of(authorization_code, found)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        """Exchange a code for a token. Raises TokenError if the code was used meanwhile, or Unavailable."""
        grant = await self._codes.use(authorization_code.code)
        if not isinstance(grant, Grant):
            raise TokenError("invalid_grant", "The code has already been used. Start again from the app.")
        try:
            new = await asyncio.to_thread(
                self._register.derive,
                parent_hash=grant.parent_hash,
                name=grant.name,
                scopes=grant.scopes,
                session_glob=grant.session_glob,
                app=client.client_name or "",
            )
        except Unavailable:
            # Without this, the app's retry would look like a stolen code.
            with contextlib.suppress(Unavailable):
                await self._codes.restore(authorization_code.code, grant)
            raise
        with contextlib.suppress(Unavailable):
            await self._codes.record_token(authorization_code.code, new.entry.key_id)
        await asyncio.sleep(KNOWN_SECONDS)
        return OAuthToken(access_token=new.secret, scope=" ".join(new.entry.scopes))

    async def load_refresh_token(self, client: OAuthClientInformationFull, refresh_token: str) -> RefreshToken | None:
        """Return None: refresh tokens are not issued."""
        return None

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        """Raise TokenError: refresh tokens are not issued."""
        raise TokenError("invalid_grant", "This server issues no refresh tokens. Tokens stay valid until revoked.")

    async def load_access_token(self, token: str) -> AccessToken | None:
        """Return None: AccessControl authenticates tokens, as it does all keys."""
        return None

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        """Do nothing: `api.oauth.endpoints` revokes tokens without a client."""

    async def _revoke_token(self, key_id: str) -> None:
        if key_id:
            logger.warning("An authorization code was used twice; its token %s is revoked.", key_id)
            await asyncio.to_thread(self._register.revoke, key_id, by="oauth")


def _code_of(code: str, grant: Grant) -> AuthorizationCode:
    return AuthorizationCode(
        code=code,
        scopes=list(grant.scopes),
        expires_at=grant.expires_at,
        client_id=grant.client_id,
        code_challenge=grant.code_challenge,
        redirect_uri=AnyUrl(grant.redirect_uri),
        redirect_uri_provided_explicitly=grant.explicit,
        resource=grant.resource,
        subject=grant.name,
    )
