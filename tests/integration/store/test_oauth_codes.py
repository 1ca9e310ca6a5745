"""An authorization code for which no token can be issued."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import AnyUrl
from redis import Redis

from api.oauth.clients import App
from api.oauth.codes import Codes, Grant, expiry
from api.oauth.provider import Provider
from models.errors import Unavailable
from models.settings import read_settings
from relay.redis_client import open_redis
from sessions.api_keys import KeyRegister
from sessions.postgres.connections import create_engine
from tests.support.project import API_KEY

GRANT = Grant(
    client_id="app_x",
    redirect_uri="http://127.0.0.1/callback",
    explicit=True,
    code_challenge="x" * 43,
    resource=None,
    state=None,
    parent_hash="p",
    name="default",
    scopes=("read",),
    session_glob=None,
    expires_at=expiry(),
)


def test_a_code_can_be_used_again_after_a_failure_of_postgres(redis: Redis, redis_url: str) -> None:
    """Otherwise the second attempt would count as a theft, and the person would have to sign in again."""
    settings = read_settings(
        {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "REDIS_URL": redis_url, "API_KEY": API_KEY}
    )
    register = KeyRegister(create_engine(settings, application_name="tests", pool_size=1), redis)
    client = App(client_id="app_x", redirect_uris=[AnyUrl(GRANT.redirect_uri)])

    async def story() -> None:
        connections = open_redis(redis_url, connections=2)
        codes = Codes(connections)
        provider = Provider(codes=codes, register=register)
        code = await codes.issue(GRANT)
        for _ in range(2):
            loaded = await provider.load_authorization_code(client, code)
            assert loaded is not None
            with pytest.raises(Unavailable):
                await provider.exchange_authorization_code(client, loaded)
        assert await codes.use(code) == GRANT
        await connections.aclose()

    asyncio.run(story())
