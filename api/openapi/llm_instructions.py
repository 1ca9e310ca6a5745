"""Instructions for LLMs: a full guide with this relay's URL, and a version short enough for an assistant's custom
instructions."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from api.public_url import public_url_of
from relay.http.query_parameters import decode_parameters
from relay.http.routing import route

Tier = Literal["full", "short"]
FILES: dict[Tier, str] = {"full": "llm_instructions.md", "short": "llm_instructions_short.md"}
MOST_CHARACTERS: dict[Tier, int] = {"full": 8_000, "short": 1_500}
"""Maximum sizes: what a model follows reliably, and what fits into the field for custom instructions."""


class InstructionsParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Selects the full or the short text."""

    tier: Tier = "full"


def instructions_route(*, public_url: str) -> Route:
    """The route of `/llm-instructions`. The texts are read once."""
    texts = {tier: _read(tier) for tier in FILES}

    async def instructions(request: Request) -> Response:
        tier = decode_parameters(request.query_params, InstructionsParameters).tier
        text = texts[tier].replace("{relay}", public_url_of(request, public_url=public_url))
        return PlainTextResponse(text, headers={"cache-control": "no-store", "x-content-type-options": "nosniff"})

    return route("instructions", instructions)


def _read(tier: Tier) -> str:
    return (Path(__file__).parent / FILES[tier]).read_text(encoding="utf-8")
