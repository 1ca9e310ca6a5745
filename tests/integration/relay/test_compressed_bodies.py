"""Compressed bodies are accepted by their content, and use no more memory than others."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec
import psutil
import pytest
from redis import Redis
from standardwebhooks.webhooks import Webhook

from tests.support.processes.serving import Serving, entries
from tests.support.project import API_KEY

MIB = 1_048_576
BODY = b'{"command":"store_memory","session_id":"s","data":{"content":"%b"}}'
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture(autouse=True)
def _empty(redis: Redis) -> None:
    """Empty the inbox before each test."""


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def bomb(size: int) -> bytes:
    """Return a JSON text of so many bytes, as gzip. Equal blocks follow each other, because to compress them takes
    seconds; the checksum behind them, which would not match, is not read by anyone who refuses the body."""
    compressor = zlib.compressobj(wbits=31)
    start = compressor.compress(b'{"command":"store_memory","session_id":"s","data":{"content":"')
    start += compressor.flush(zlib.Z_FULL_FLUSH)
    blanks = b" " * min(size, 16 * MIB)
    block = compressor.compress(blanks) + compressor.flush(zlib.Z_FULL_FLUSH)
    return start + block * (size // len(blanks)) + compressor.compress(b'"}}') + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress)],
)
def test_a_compressed_body_is_accepted_by_its_content(
    relay: Serving, redis: Redis, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    answer = relay.post(compress(BODY % b"hello"), **{"Content-Encoding": encoding})
    assert answer.status_code == 202, answer.text
    plain = relay.post(BODY % b"hello", **{"Idempotency-Key": answer.json()["delivery_id"]})
    assert plain.json()["duplicate"] is True
    (entry,) = entries(redis)
    assert msgspec.json.decode(entry.data)["content"] == "hello"


def test_a_body_of_exactly_the_limit_may_come_in_small_parts(relay: Serving, redis: Redis) -> None:
    fits = BODY % (b"x" * (MIB - len(BODY) + 2))
    assert len(fits) == MIB

    def in_parts(data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), 100):
            yield data[start : start + 100]

    headers = {"Content-Encoding": "gzip"}
    answer = relay.client.post("/v1/webhook", content=in_parts(gzip.compress(fits)), headers=headers)
    assert answer.status_code == 202, answer.text
    assert relay.client.post("/v1/webhook", content=gzip.compress(fits + b" "), headers=headers).status_code == 413
    assert len(entries(redis)) == 1


@pytest.mark.parametrize("size", [2 * MIB, 1024 * MIB], ids=["2 MiB", "1 GiB"])
def test_a_decompression_bomb_is_refused_without_using_memory(relay: Serving, redis: Redis, size: int) -> None:
    process = psutil.Process(relay.running.pid)
    memory, cpu = process.memory_info().rss, process.cpu_times().user
    sent = bomb(size)
    assert len(sent) < MIB
    answer = relay.client.post("/v1/webhook", content=sent, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"
    assert process.memory_info().rss - memory < 16 * MIB
    assert process.cpu_times().user - cpu < 2
    assert entries(redis) == []


SOUND = gzip.compress(BODY % b"hello")
UNDECODABLE = {
    "plain": ("gzip", BODY % b"hello"),
    "empty": ("gzip", b""),
    "cut off": ("gzip", SOUND[:-9]),
    "without its checksum": ("gzip", SOUND[:-8]),
    "wrong checksum": ("gzip", SOUND[:-8] + bytes(8)),
    "flipped": ("gzip", SOUND[:15] + bytes([SOUND[15] ^ 255]) + SOUND[16:]),
    "more behind it": ("gzip", SOUND + b"x"),
    "twice": ("gzip", SOUND + SOUND),
    "gzip as deflate": ("deflate", SOUND),
    "deflate as gzip": ("gzip", zlib.compress(BODY % b"hello")),
    "deflate without its head": ("deflate", raw_deflate(BODY % b"hello")),
}


@pytest.mark.parametrize(("encoding", "sent"), UNDECODABLE.values(), ids=UNDECODABLE.keys())
def test_an_invalid_compressed_body_is_refused(relay: Serving, redis: Redis, encoding: str, sent: bytes) -> None:
    answer = relay.post(sent, **{"Content-Encoding": encoding})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (400, "undecodable", "Content-Encoding")
    assert error["message"].startswith(f"The body is not valid {encoding}: ")
    assert entries(redis) == []


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "identity, gzip", "compress", "x" * 5000])
def test_other_encodings_are_refused_with_the_remedy(relay: Serving, redis: Redis, encoding: str) -> None:
    answer = relay.post(SOUND, **{"Content-Encoding": encoding})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (415, "unsupported_media_type")
    assert error["expected"] == "gzip, deflate, or none"
    assert len(answer.content) < 1000
    assert entries(redis) == []


def test_two_encoding_headers_count_as_several_encodings(relay: Serving) -> None:
    head = f"POST /v1/webhook HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nConnection: close\r\n"
    lines = f"{head}Content-Length: {len(SOUND)}\r\n" + "Content-Encoding: gzip\r\n" * 2
    assert relay.exchange(f"{lines}\r\n".encode() + SOUND).startswith(b"HTTP/1.1 415")


def test_a_signed_body_must_not_be_compressed(
    redis_url: str, redis: Redis, tmp_path_factory: pytest.TempPathFactory
) -> None:
    serving = Serving(
        "relay", tmp_path_factory.mktemp("signed"), REDIS_URL=redis_url, WEBHOOK_SECRETS=f"railway={SECRET}"
    )
    try:
        text = '{"command":"store_memory","session_id":"s","data":{"content":"hello"}}'
        now = datetime.now(UTC)
        signature = Webhook(SECRET).sign("msg_1", now, text)
        headers = {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature,
        }
        answer = serving.post(gzip.compress(text.encode()), **headers, **{"Content-Encoding": "gzip"})
        assert answer.status_code == 415
        assert answer.json()["error"]["hint"] == "Send the JSON uncompressed, exactly as it was signed."
        assert serving.post(text.encode(), **headers).status_code == 202
        assert len(entries(redis)) == 1
    finally:
        serving.close()
