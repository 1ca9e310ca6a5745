"""Vectors: near for the same meaning, the same in batches, from this machine's model or an endpoint that may fail."""

from __future__ import annotations

import json
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from models.settings import read_settings
from sessions.embeddings.configured import configured_encoder
from sessions.embeddings.encoder import Encoder, ModelFailed, TextRefused
from sessions.embeddings.endpoint import Endpoint
from sessions.embeddings.local_model import LocalModel
from sessions.embeddings.vector_cache import VectorCache
from tests.support.ports import free_port


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    found = configured_encoder(read_settings({}))
    assert found is not None
    found.texts(["."])  # On a busy machine, a question would not wait until the model is loaded.
    return found


def are_close(one: Any, other: Any, *, most: float = 1e-3) -> bool:
    """Return whether all numbers of two arrays differ by less. Without importing numpy, which takes time of workers
    that run no such test."""
    return one.shape == other.shape and bool(abs(one - other).max() < most)


@pytest.mark.parametrize(
    ("question", "answer", "other"),
    [
        ("Where do we keep the data?", "We use Postgres as data store", "The dog needs a vaccination"),
        ("Wann ist die Besprechung?", "The meeting is on Thursday", "The roof gets solar panels"),
        ("¿Quién paga la cena?", "Le dîner est payé par Anna", "The train was cancelled"),
    ],
)
def test_an_answer_is_nearer_than_another_text(encoder: Encoder, question: str, answer: str, other: str) -> None:
    asked = encoder.question(question)
    near, far = encoder.texts([answer, other]) @ asked
    assert near > far + 0.1


def test_vectors_have_unit_length_and_do_not_depend_on_the_batch(encoder: Encoder) -> None:
    texts = ["a", "The meeting is on Thursday", "x" * 20_000, "狗需要什么", "\U0001f600", " "]
    together = encoder.texts(texts)
    assert abs((together**2).sum(1) - 1).max() < 1e-3
    for number, text in enumerate(texts):
        assert are_close(together[number], encoder.texts([text])[0])


def test_a_question_of_ligatures_costs_no_more_than_one_of_letters(encoder: Encoder) -> None:
    spelled = unicodedata.normalize("NFKC", "\ufdfa" * 1_000)
    assert len(spelled) > 10_000
    assert are_close(encoder.question("\ufdfa" * 1_000), encoder.question(spelled[:1_000]), most=1e-6)


def test_threads_share_an_encoder(encoder: Encoder) -> None:
    expected = encoder.question("When is the meeting?")
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(encoder.question("When is the meeting?"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(are_close(vector, expected, most=1e-6) for vector in found)


def test_a_question_does_not_wait_for_a_model_that_is_slow_to_load() -> None:
    class Slow(LocalModel):
        is_waiting = threading.Event()

        def encode(self, texts: Sequence[str], *, seconds: float) -> Any:
            self.is_waiting.wait(20)
            return super().encode(texts, seconds=seconds)

    encoder = Encoder(Slow())
    assert not encoder.is_loading
    encoder.begin_loading()
    encoder.begin_loading()
    assert encoder.is_loading
    with pytest.raises(ModelFailed, match="being loaded"):
        encoder.question("When?", seconds=0.01)
    Slow.is_waiting.set()
    assert len(encoder.question("When?", seconds=30)) == 512
    assert not encoder.is_loading
    encoder.begin_loading()
    assert not encoder.is_loading, "It is loaded once."


def test_a_model_that_failed_is_left_alone_for_a_while() -> None:
    class Failing(LocalModel):
        asked = 0

        def encode(self, texts: Sequence[str], *, seconds: float) -> Any:
            self.asked += 1
            raise ModelFailed("It is away.")

    model = Failing()
    encoder = Encoder(model)
    for _ in range(3):
        with pytest.raises(ModelFailed):
            encoder.question("When?", seconds=5)
    assert model.asked == 1


def test_settings_choose_the_model() -> None:
    assert configured_encoder(read_settings({"EMBEDDINGS": "off"})) is None
    local = configured_encoder(read_settings({}))
    assert local is configured_encoder(read_settings({})), "A process has one copy of the model."
    other = configured_encoder(read_settings({"EMBEDDINGS_URL": "http://127.0.0.1:9/v1", "EMBEDDINGS_MODEL": "small"}))
    assert other is not None
    assert other.name == "small"


def test_a_cache_spends_no_more_time_than_allowed_and_continues_later(encoder: Encoder) -> None:
    cache = VectorCache(encoder)
    texts = [f"Note number {number} about the garden" for number in range(100)]
    first = cache.cosines("garden", texts, seconds=0)
    assert first == [None] * 100
    second = cache.cosines("garden", texts, seconds=60)
    assert None not in second
    assert cache.cosines("garden", texts, seconds=0) == second


class _Server(ThreadingHTTPServer):
    """An endpoint with the model of this machine. `failure` is the status of the next answers."""

    failure: int | None = None
    body: bytes | None = None
    seen: list[dict[str, Any]]
    authorization: str | None = None


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    model = LocalModel()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append({"path": self.path, **asked})
        self.server.authorization = self.headers.get("Authorization")
        body = self.server.body or self._embed(asked["input"])
        self.send_response(self.server.failure or 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _embed(self, texts: Sequence[str]) -> bytes:
        vectors = self.model.encode(texts, seconds=60)
        data = [{"index": number, "embedding": vector.tolist()} for number, vector in enumerate(vectors)]
        return json.dumps({"object": "list", "data": data[::-1], "model": "m"}).encode()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def endpoint(server: _Server, path: str = "/v1") -> Endpoint:
    return Endpoint(f"http://127.0.0.1:{server.server_address[1]}{path}", model="small", key="secret")


def test_an_endpoint_answers_like_the_model_behind_it(server: _Server, encoder: Encoder) -> None:
    remote = Encoder(endpoint(server))
    remote.texts(["."])
    assert are_close(
        remote.question("When is the meeting?", seconds=60), encoder.question("When is the meeting?", seconds=60)
    )
    texts = [f"Note {number}" for number in range(70)]
    assert are_close(remote.texts(texts), encoder.texts(texts))
    assert {request["path"] for request in server.seen} == {"/v1/embeddings"}
    assert {request["model"] for request in server.seen} == {"small"}
    assert max(len(request["input"]) for request in server.seen) == 64
    assert server.authorization == "Bearer secret"


def test_the_whole_url_of_an_endpoint_may_be_given(server: _Server) -> None:
    endpoint(server, "/v1/embeddings/").encode(["a"], seconds=60)
    assert server.seen[0]["path"] == "/v1/embeddings"


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (400, b"{}", TextRefused, "HTTP status 400"),
        (413, b"{}", TextRefused, "HTTP status 413"),
        (401, b"{}", ModelFailed, "HTTP status 401"),
        (500, b"{}", ModelFailed, "HTTP status 500"),
        (302, b"{}", ModelFailed, "HTTP status 302"),
        (200, b"not json", ModelFailed, "no `data`"),
        (200, b'{"data": []}', ModelFailed, "0 vectors for 1 texts"),
        (200, b'{"data": [{"index": 0, "embedding": []}, {"index": 0, "embedding": []}]}', ModelFailed, "2 vectors"),
        (200, b'{"data": [{"index": 0, "embedding": [1e999]}]}', ModelFailed, "no `data`"),
    ],
)
def test_an_endpoint_that_fails_says_why(
    server: _Server, status: int, body: bytes, error: type[Exception], message: str
) -> None:
    server.failure, server.body = status, body
    with pytest.raises(ModelFailed, match=message) as caught:
        endpoint(server).encode(["secret text"], seconds=60)
    assert type(caught.value) is error
    assert "secret" not in str(caught.value)


def test_an_endpoint_that_is_away_says_so() -> None:
    with pytest.raises(ModelFailed, match="did not answer"):
        Endpoint(f"http://127.0.0.1:{free_port()}", model="", key="").encode(["a"], seconds=60)
