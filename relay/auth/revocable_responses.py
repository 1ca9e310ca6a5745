"""Streaming responses that end when their reader's key is revoked."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from relay.auth.access_control import AccessControl
from relay.auth.authentication import Caller

GRACE_SECONDS = 0.5
"""Time for a stream to say why it ends, before it is cut off. One that waits for its reader cannot."""

logger = logging.getLogger(__name__)


class RevocableResponse(StreamingResponse):
    """A stream that is cut off when its reader's key is revoked, even while the reader reads nothing."""

    def __init__(self, content: AsyncIterable[bytes], *, access: AccessControl, caller: Caller, **options: Any) -> None:
        super().__init__(content, **options)
        self._access = access
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream. A stream that is cut off has no proper end, so that no client takes it for complete."""
        sending = asyncio.ensure_future(super().__call__(scope, receive, send))

        def end() -> None:
            asyncio.get_running_loop().call_later(GRACE_SECONDS, break_off)

        def break_off() -> None:
            if not sending.done():
                logger.info("Cut off a stream: its reader's key was revoked.")
                sending.cancel()

        try:
            with self._access.watch_revocation(self._caller, end):
                await asyncio.wait([sending])
        finally:
            sending.cancel()  # Effective if this task was cancelled; otherwise it has ended.
            with contextlib.suppress(asyncio.CancelledError):
                await sending
