"""HTTP/1.1 with a limit on heads: uvicorn's fast parser has none, and would gather headers until memory ends."""

from __future__ import annotations

from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from models.errors import Rejected

MAX_HEAD_BYTES = 65_536
"""Request line and headers, or trailers, beside what one read brings; common servers allow 8 to 64 kB."""


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol; what is no HTTP, or has too long a head, gets an error in the usual form."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._progress = False
        self._bytes_without_progress = 0

    def data_received(self, data: bytes) -> None:
        self._progress = False
        super().data_received(data)
        self._bytes_without_progress = 0 if self._progress else self._bytes_without_progress + len(data)
        if self._bytes_without_progress > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The head of the request has more than {MAX_HEAD_BYTES:,} bytes.")

    def on_headers_complete(self) -> None:
        self._progress = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._progress = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer and close; also called by uvicorn for what it cannot parse."""
        body = msgspec.json.encode({"error": Rejected(msg, code="bad_request").body()})
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[400] + head + body)
        self.transport.close()
