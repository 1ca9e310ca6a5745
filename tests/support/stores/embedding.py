"""Vectors of the texts in a test's database, made in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from models.settings import read_settings
from sessions.embeddings.configured import configured_encoder
from sessions.postgres.connections import create_engine
from sessions.postgres.embeddings.embedding import Embedding


@contextmanager
def new_embedding(database_url: str) -> Iterator[Embedding]:
    """Make the table of vectors, and yield the embedding of the database with the model of this machine."""
    settings = read_settings({"DATABASE_URL": database_url})
    encoder = configured_encoder(settings)
    assert encoder is not None
    engine = create_engine(settings, application_name="tests", pool_size=1)
    embedding = Embedding(engine, encoder)
    embedding.start()
    yield embedding
    engine.dispose()


def embed_all(embedding: Embedding) -> None:
    """Make the vectors of all texts that wait for them."""
    while embedding.embed_batch():
        pass
