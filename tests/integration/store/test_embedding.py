"""The embedding of stored texts: in batches, resumed after a kill, anew for another model, and never in the way."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from sqlalchemy import Engine

from api.database import READ_SECONDS
from local.servers.embedded import EmbeddedServer
from models.commands.definitions import Search
from models.settings import read_settings
from sessions.embeddings.encoder import Encoder, ModelFailed, TextRefused
from sessions.embeddings.local_model import LocalModel
from sessions.postgres.backend import PostgresBackend
from sessions.postgres.connections import ENCODER, create_engine
from sessions.postgres.embeddings import embedding as embeddings
from sessions.postgres.embeddings.embedding import Embedding
from sessions.postgres.embeddings.nearest import LONGEST_SECONDS
from sessions.postgres.embeddings.search_health import check_search
from sessions.postgres.embeddings.vector_table import index_of
from sessions.postgres.reads.read_timeout import time_limit
from sessions.postgres.reads.search import search
from sessions.reads.read_scope import ReadScope
from tests.support.servers import new_database
from tests.support.stores.embedding import embed_all
from tests.support.stores.sending import send

pytestmark = pytest.mark.usefixtures("loaded_model")

AT_ONCE = 16
"""Passages of a batch in these tests: more than those of a transaction."""
WITHOUT_VECTORS = (
    "SELECT count(*) FROM passages p WHERE NOT EXISTS (SELECT FROM passage_vectors v WHERE v.passage_id = p.passage_id)"
)


class Model(LocalModel):
    """The model of this machine, perhaps under another name. It refuses some texts, fails with some, or for a while."""

    def __init__(self, name: str = LocalModel.name) -> None:
        super().__init__()
        self.name = name
        self.refused = self.broken = "\0"
        self.is_away = False

    def encode(self, texts: Sequence[str], *, seconds: float) -> Any:
        if self.is_away:
            raise ModelFailed("It is away.")
        if any(self.broken in text for text in texts):
            raise ModelFailed("HTTP status 500.")
        if any(self.refused in text for text in texts):
            raise TextRefused("Too long.")
        return _vectors(tuple(texts))


@cache
def _vectors(texts: tuple[str, ...]) -> Any:
    """Return the vectors of texts, computed once: each encoder begins with the same ordinary texts."""
    return LocalModel().encode(texts, seconds=30)


@pytest.fixture(scope="module")
def url(postgres: EmbeddedServer) -> Iterator[str]:
    with new_database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
def engine(url: str) -> Iterator[Engine]:
    engine = create_engine(read_settings({"DATABASE_URL": url}), application_name="tests", pool_size=2)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def store(url: str) -> Iterator[PostgresBackend]:
    store = PostgresBackend(read_settings({"DATABASE_URL": url}))
    yield store
    store.close()


@pytest.fixture
def backend(engine: Engine, store: PostgresBackend, monkeypatch: pytest.MonkeyPatch) -> PostgresBackend:
    """The store with a session, and without the table of vectors."""
    monkeypatch.setattr(embeddings, "AT_ONCE", AT_ONCE)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "DROP TABLE IF EXISTS passage_vectors; DELETE FROM sessions; DELETE FROM passages_to_embed;"
            " DELETE FROM deliveries"
        )
    send(store, "create_session", title="Walk")
    return store


def remember(backend: PostgresBackend, count: int, text: str = "Note {} about the garden") -> None:
    notes = [{"key": f"m{number}", "type": "note", "content": text.format(number)} for number in range(count)]
    send(backend, "batch", commands=[{"command": "store_memory", "data": note} for note in notes])


def scalar(engine: Engine, statement: str) -> Any:
    with engine.connect() as connection:
        return connection.exec_driver_sql(statement).scalar_one()


def test_texts_wait_until_they_are_embedded(engine: Engine, backend: PostgresBackend) -> None:
    remember(backend, AT_ONCE + 5)
    embedding = Embedding(engine, Encoder(Model()))
    passages = scalar(engine, "SELECT count(*) FROM passages")
    unknown = {"q": "irrigation"}
    answer = backend.send("search", unknown, session_id=None)
    assert answer["message"].startswith("Found no hits by words only in all sessions. The search by meaning is not")
    assert answer["data"]["meaning_ready"] is False
    assert send(backend, "search", None, q="garden")["meaning_ready"] is False
    assert embedding.start() == 0, "They were noted when they were written."
    waiting = backend.send("search", unknown, session_id=None)["message"]
    assert waiting.startswith("Found no hits in all sessions. The search by meaning is not ready yet")
    assert send(backend, "search", None, q="garden")["not_embedded"] == passages
    assert list(iter(embedding.embed_batch, 0)) == [AT_ONCE, passages - AT_ONCE]
    assert scalar(engine, "SELECT count(*) FROM passage_vectors") == passages
    assert "not_embedded" not in send(backend, "search", None, q="garden")


def test_a_batch_that_broke_off_is_repeated(engine: Engine, backend: PostgresBackend) -> None:
    remember(backend, 3)
    model = Model("a")
    embedding = Embedding(engine, Encoder(model))
    embedding.start()
    model.is_away = True
    with pytest.raises(ModelFailed):
        embedding.embed_batch()
    assert scalar(engine, "SELECT count(*) FROM passages_to_embed") == 4
    model.is_away = False
    assert embedding.embed_batch() == 4


def test_texts_written_by_a_killed_embedder_are_embedded_by_the_next(engine: Engine, backend: PostgresBackend) -> None:
    remember(backend, 3)
    first, second = Embedding(engine, Encoder(Model("a"))), Embedding(engine, Encoder(Model("a")))
    first.start()
    first.embed_batch()
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM passage_vectors")  # As if restored from a backup, which has none.
    assert second.start() == 4
    assert second.embed_batch() == 4


def test_a_text_that_the_model_refuses_is_found_by_its_words(engine: Engine, backend: PostgresBackend) -> None:
    remember(backend, 5)
    send(backend, "store_memory", key="bad", type="note", content="a forbidden garden")
    model = Model("a")
    model.refused = "forbidden"
    embedding = Embedding(engine, Encoder(model))
    embedding.start()
    assert embedding.embed_batch() == 7
    assert embedding.embed_batch() == 0
    assert scalar(engine, "SELECT count(*) FROM passage_vectors") == 6
    assert send(backend, "search", None, q="forbidden")["hits"][0]["key"] == "bad"


def test_a_text_that_is_deleted_meanwhile_needs_no_vector(engine: Engine, backend: PostgresBackend) -> None:
    remember(backend, 2)

    class Deleting(Model):
        def encode(self, texts: Sequence[str], *, seconds: float) -> Any:
            if texts != ["."] and len(texts) == 3:
                send(backend, "delete_memory", key="m1")
            return super().encode(texts, seconds=seconds)

    embedding = Embedding(engine, Encoder(Deleting("a")))
    embedding.start()
    assert embedding.embed_batch() == 3
    assert scalar(engine, "SELECT count(*) FROM passage_vectors") == 2
    assert scalar(engine, "SELECT count(*) FROM passages_to_embed") == 0


def test_deleting_a_session_deletes_its_vectors_at_once(engine: Engine, backend: PostgresBackend) -> None:
    remember(backend, 3)
    embedding = Embedding(engine, Encoder(Model("a")))
    embedding.start()
    embedding.embed_batch()
    send(backend, "delete_session", confirm="walk")
    assert scalar(engine, "SELECT count(*) FROM passage_vectors") == 0


def test_a_key_for_some_sessions_finds_no_others_by_meaning(engine: Engine, backend: PostgresBackend) -> None:
    for session_id in ("mine-1", "yours-1"):
        send(backend, "create_session", session_id, title="Notes")
        send(backend, "store_memory", session_id, key=session_id, type="note", content="The car is in the garage")
    embedding = Embedding(engine, Encoder(Model()))
    embedding.start()
    embedding.embed_batch()
    question = Search(q="Where is my vehicle parked?")
    for glob, expected in (("mine-*", {"mine-1"}), ("nobody-*", set()), (None, {"mine-1", "yours-1"})):
        scope = ReadScope(session_id=None, session_glob=glob, now=datetime.now(UTC))
        with engine.connect() as connection:
            page = search(connection, question, read_scope=scope)
        assert page.notes == {"method": "hybrid"}
        assert {hit["key"] for hit in page.items if "key" in hit} == expected


def test_another_model_embeds_beside_the_old_vectors_which_are_deleted_then(
    engine: Engine, backend: PostgresBackend
) -> None:
    remember(backend, 3)
    old, new = Embedding(engine, Encoder(Model("old"))), Embedding(engine, Encoder(Model("new")))
    old.start()
    old.embed_batch()
    assert new.start() == 4
    assert scalar(engine, "SELECT count(*) FROM passage_vectors WHERE model = 'old'") == 4
    assert new.embed_batch() == 4
    assert new.forget_others() == 4
    assert new.forget_others() == 0
    assert scalar(engine, "SELECT count(*) FROM passage_vectors WHERE model = 'new'") == 4
    assert scalar(engine, f"SELECT to_regclass('{index_of('old')}') IS NULL")
    assert scalar(engine, f"SELECT to_regclass('{index_of('new')}') IS NOT NULL")


def test_a_search_uses_words_in_time_while_the_server_of_the_model_hangs(
    engine: Engine, backend: PostgresBackend, url: str
) -> None:
    remember(backend, 1)
    Embedding(engine, Encoder(Model("a"))).start()
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:  # Accepts connections, and never answers.
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        settings = read_settings({"DATABASE_URL": url, "EMBEDDINGS_URL": address, "EMBEDDINGS_MODEL": "m"})
        other = create_engine(settings, application_name="tests", pool_size=1)
        everything = ReadScope(session_id=None, session_glob=None, now=datetime.now(UTC))
        seconds = []
        for _ in range(2):
            began_at = time.monotonic()
            with other.connect() as connection, time_limit(connection, READ_SECONDS):
                page = search(connection, Search(q="garden"), read_scope=everything)
            assert (page.notes["method"], len(page.items)) == ("words", 1)
            seconds.append(time.monotonic() - began_at)
        other.dispose()
    assert seconds[1] < LONGEST_SECONDS / 2, "Each search waits for the server."


def test_health_tells_how_many_texts_wait(engine: Engine, backend: PostgresBackend) -> None:
    with engine.connect() as connection:
        before = check_search(connection)
    assert (before.method, before.reason is not None) == ("words", True)
    remember(backend, 3)
    Embedding(engine, Encoder(Model())).start()
    with engine.connect() as connection:
        found = check_search(connection)
    assert (found.method, found.texts, found.not_embedded) == ("hybrid", 4, 4)


def test_a_text_that_the_model_always_fails_with_keeps_no_other_from_being_embedded(
    engine: Engine, backend: PostgresBackend
) -> None:
    remember(backend, 5)
    send(backend, "store_memory", key="bad", type="note", content="a poisonous garden")
    remember(backend, AT_ONCE, "Newer note {} about the garden")
    model = Model("a")
    embedding = Embedding(engine, Encoder(model))
    embedding.start()
    model.broken = "poisonous"
    with pytest.raises(ModelFailed, match="1 texts"):
        embed_all(embedding)
    assert scalar(engine, "SELECT count(*) FROM passages_to_embed") == 1, "It is tried again."
    model.broken = "\0"
    assert embedding.embed_batch() == 1
    assert scalar(engine, WITHOUT_VECTORS) == 0


def test_an_embedder_that_was_replaced_takes_no_texts_from_the_one_with_another_model(
    engine: Engine, backend: PostgresBackend
) -> None:
    old, new = Embedding(engine, Encoder(Model("old"))), Embedding(engine, Encoder(Model("new")))
    old.start()
    new.start()
    remember(backend, 3)
    with pytest.raises(ModelFailed, match="the model new"):
        old.embed_batch()
    assert new.embed_batch() == 4
    with pytest.raises(ModelFailed, match="the model new"):
        old.embed_batch()
    with pytest.raises(ModelFailed, match="the model new"):
        old.forget_others()
    assert scalar(engine, "SELECT count(*) FROM passage_vectors WHERE model = 'new'") == 4


def test_an_embedder_that_is_replaced_while_it_asks_the_model_writes_nothing(
    engine: Engine, backend: PostgresBackend
) -> None:
    remember(backend, 3)
    new = Embedding(engine, Encoder(Model("new")))

    class Replaced(Model):
        def encode(self, texts: Sequence[str], *, seconds: float) -> Any:
            if len(texts) == 4:
                new.start()
            return super().encode(texts, seconds=seconds)

    old = Embedding(engine, Encoder(Replaced("old")))
    old.start()
    with pytest.raises(ModelFailed, match="the model new"):
        old.embed_batch()
    assert scalar(engine, "SELECT count(*) FROM passages_to_embed") == 4
    assert new.embed_batch() == 4


def test_the_table_is_made_anew_after_a_restore(engine: Engine, backend: PostgresBackend) -> None:
    remember(backend, 3)
    embedding = Embedding(engine, Encoder(Model("a")))
    embedding.start()
    embedding.embed_batch()
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE passage_vectors")
    assert embedding.embed_batch() == 4
    assert scalar(engine, "SELECT count(*) FROM passage_vectors") == 4


def test_a_text_that_is_being_deleted_is_not_waited_for_and_not_forgotten(
    engine: Engine, backend: PostgresBackend
) -> None:
    remember(backend, 3)
    embedding = Embedding(engine, Encoder(Model("a")))
    embedding.start()
    noted = "SELECT count(*) FROM passages_to_embed"
    with engine.connect() as connection:
        connection.exec_driver_sql("DELETE FROM passages WHERE item_id = 'm1'")
        assert embedding.embed_batch() == 4
        connection.rollback()
    assert scalar(engine, noted) == 1
    assert embedding.embed_batch() == 1
    assert scalar(engine, "SELECT count(*) FROM passage_vectors") == 4
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO passages_to_embed SELECT passage_id FROM passages")
    with engine.connect() as connection:
        connection.exec_driver_sql("DELETE FROM passages WHERE item_id = 'm1'")
        assert embedding.embed_batch() == 4
        connection.commit()
    assert list(iter(embedding.embed_batch, 0)) == [1]
    assert scalar(engine, noted) == 0
    assert scalar(engine, "SELECT count(*) FROM passage_vectors") == 3


def test_a_search_with_a_model_whose_index_is_gone_uses_words(engine: Engine, backend: PostgresBackend) -> None:
    remember(backend, 3)
    encoders = [Encoder(Model(name)) for name in ("old", "new")]
    for encoder in encoders:
        Embedding(engine, encoder).start()
    scope = ReadScope(session_id=None, session_glob=None, now=datetime.now(UTC))

    def methods() -> list[Any]:
        found = []
        for encoder in encoders:
            with engine.connect() as connection:
                asked = connection.execution_options(**{ENCODER: encoder})
                found.append(search(asked, Search(q="garden"), read_scope=scope).notes["method"])
        return found

    assert methods() == ["hybrid", "hybrid"]
    new = Embedding(engine, encoders[1])
    embed_all(new)
    new.forget_others()
    assert methods() == ["words", "hybrid"]


def test_a_broken_index_of_a_killed_embedder_is_made_anew(engine: Engine, backend: PostgresBackend) -> None:
    remember(backend, 3)
    old, new = Embedding(engine, Encoder(Model("old"))), Embedding(engine, Encoder(Model("new")))
    old.start()
    old.embed_batch()
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE INDEX {index_of('new')} ON passage_vectors (number)")
        connection.exec_driver_sql(
            f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{index_of('new')}'::regclass"
        )
    new.start()
    definition = scalar(engine, f"SELECT pg_get_indexdef('{index_of('new')}'::regclass)")
    assert "hnsw" in definition
    assert new.embed_batch() == 4


def test_a_model_with_other_dimensions_under_the_same_name_is_refused(engine: Engine, backend: PostgresBackend) -> None:
    remember(backend, 3)

    class Shorter(Model):
        def encode(self, texts: Sequence[str], *, seconds: float) -> Any:
            return super().encode(texts, seconds=seconds)[:, :100]

    Embedding(engine, Encoder(Model("a"))).start()
    with pytest.raises(ModelFailed, match="100 dimensions now, and had 512"):
        Embedding(engine, Encoder(Shorter("a"))).start()
    scope = ReadScope(session_id=None, session_glob=None, now=datetime.now(UTC))
    with engine.connect() as connection:
        options = connection.execution_options(**{ENCODER: Encoder(Shorter("a"))})
        page = search(options, Search(q="garden"), read_scope=scope)
    assert page.notes["method"] == "words"
    assert page.items
