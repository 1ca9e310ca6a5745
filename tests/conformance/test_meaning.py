"""Search by meaning: other words and other languages find a record, in both stores, and nobody's but one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from local.servers.embedded import EmbeddedServer
from models.settings import read_settings
from sessions.backend import Backend
from sessions.files.backend import FilesBackend
from sessions.postgres.backend import PostgresBackend
from tests.support.servers import execute, new_database
from tests.support.stores.embedding import embed_all, new_embedding
from tests.support.stores.sending import items, send


class Store(NamedTuple):
    """A store, and what makes the vectors of its texts."""

    backend: Backend
    embed: Callable[[], object]

    def find(self, q: str, session_id: str | None = None, *, areas: Sequence[str] = ()) -> list[str]:
        """Embed what is new, search, and return the ids of the hits."""
        self.embed()
        hits = items(self.backend, "search", session_id, q=q, **({"in": list(areas)} if areas else {}))
        return [hit.get("key") or hit.get("chunk_id") or hit.get("task_id") or hit["session_id"] for hit in hits]


@pytest.fixture(scope="module")
def postgres_url(postgres: EmbeddedServer) -> Iterator[str]:
    with new_database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
def postgres_store(postgres_url: str) -> Iterator[Store]:
    with new_embedding(postgres_url) as embedding:
        backend = PostgresBackend(read_settings({"DATABASE_URL": postgres_url}))
        yield Store(backend, lambda: embed_all(embedding))
        backend.close()


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "files":
        return Store(FilesBackend(read_settings({"DATA_DIR": str(tmp_path)})), lambda: None)
    execute(request.getfixturevalue("postgres_url"), "DELETE FROM sessions; DELETE FROM deliveries")
    in_postgres: Store = request.getfixturevalue("postgres_store")
    return in_postgres


pytestmark = [
    pytest.mark.usefixtures("loaded_model"),
    pytest.mark.parametrize("store", ["postgres", "files"], indirect=True),
]


def remember(store: Store, session_id: str, /, **contents: str) -> None:
    send(store.backend, "create_session", session_id, title="Notes")
    for key, content in contents.items():
        send(store.backend, "store_memory", session_id, key=key, type="decision", content=content)


def test_a_question_in_other_words_finds_the_decision(store: Store) -> None:
    remember(
        store,
        "walk",
        storage="We use Postgres as data store",
        roof="The roof gets solar panels in May",
        dinner="Grandmother brings the potato salad",
    )
    assert store.find("What did we decide about the database?")[0] == "storage"
    assert store.find("Who cooks for the party?")[0] == "dinner"


def test_a_question_in_another_language_finds_the_record(store: Store) -> None:
    remember(store, "walk", a="The meeting is moved to Thursday morning", b="The dog needs a new vaccination")
    assert store.find("Wann ist die Besprechung?")[0] == "a"
    assert store.find("¿Qué le falta al perro?")[0] == "b"
    assert store.find("狗需要什么？")[0] == "b"


def test_an_answer_tells_how_it_was_found(store: Store) -> None:
    remember(store, "walk", a="The car is in the garage")
    store.embed()
    answer = send(store.backend, "search", None, q="Where is my vehicle parked?")
    assert (answer["method"], answer["match"]) == ("hybrid", "meaning")
    assert "not_embedded" not in answer
    assert answer["hits"][0]["snippet"] == "The car is in the garage"
    assert send(store.backend, "search", None, q="garage")["match"] == "all"


def test_only_the_asked_session_is_compared(store: Store) -> None:
    remember(store, "mine", a="The garden gets a fence")
    remember(store, "yours", b="The doctor said the blood pressure is too high")
    assert "b" not in store.find("What did the physician say about hypertension?", "mine")
    assert store.find("What did the physician say about hypertension?", "yours")[0] == "b"


def test_what_was_deleted_is_not_found(store: Store) -> None:
    remember(store, "walk", a="The car is in the garage", b="The keys are under the mat")
    assert store.find("Where is my vehicle parked?")[0] == "a"
    send(store.backend, "delete_memory", "walk", key="a")
    assert "a" not in store.find("Where is my vehicle parked?")
    send(store.backend, "delete_session", "walk", confirm="walk")
    assert store.find("Where is my vehicle parked?") == []


def test_a_changed_record_is_found_by_its_new_meaning(store: Store) -> None:
    remember(store, "walk", a="The holiday is in Norway", b="The boiler is repaired on Monday")
    assert store.find("Where do we travel?")[0] == "a"
    send(store.backend, "store_memory", "walk", key="a", type="decision", content="Lunch is at the Greek restaurant")
    assert store.find("What do we eat at noon?")[0] == "a"


def test_all_words_outweigh_a_similar_meaning(store: Store) -> None:
    remember(store, "walk", exact="Invoice ZR-114 was paid", near="The bill was settled", other="The invoice is open")
    assert store.find("invoice ZR-114")[0] == "exact"


def test_unwanted_words_exclude_similar_meanings_too(store: Store) -> None:
    remember(store, "walk", a="The car is in the garage", b="The automobile is at the workshop")
    assert set(store.find("Where is my vehicle -garage")) == {"b"}


def test_tasks_sessions_and_chunks_are_compared(store: Store) -> None:
    send(store.backend, "create_session", "flat", title="Kitchen renovation")
    send(store.backend, "conversation_chunk", "flat", chunk_id="c1", content="The tiles arrive on Friday")
    send(store.backend, "delegate_task", "flat", task_id="t1", description="Write an email to the landlord")
    assert store.find("When will the ceramic be delivered?", areas=["conversations"]) == ["c1"]
    assert store.find("message to the owner of the flat", areas=["tasks"]) == ["t1"]
    assert store.find("remodelling where we cook", areas=["sessions"]) == ["flat"]
