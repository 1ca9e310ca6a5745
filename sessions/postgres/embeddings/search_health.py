"""The state of the search: by words alone, with the reason, or also by meaning, with the number of texts that wait."""

from __future__ import annotations

from typing import Literal

import msgspec
from sqlalchemy import Connection

from sessions.embeddings.encoder import Encoder
from sessions.postgres.connections import ENCODER
from sessions.postgres.embeddings.obstacles import describe_obstacle, find_obstacle
from sessions.postgres.embeddings.vector_table import indexed_dimensions

OFF = "EMBEDDINGS is off, or no model is installed and EMBEDDINGS_URL is empty."
NOT_STARTED = "No embedder has started yet with this model: `python -m worker` starts it, within some seconds."


class SearchHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the search."""

    method: Literal["words", "hybrid"]
    reason: str | None = None
    """Why meanings are not compared."""
    is_loading: bool = False
    """Whether the process that checks is loading the model: until then its searches use words alone."""
    is_wanted: bool = True
    """Whether the settings ask for the comparison of meanings."""
    model: str | None = None
    texts: int = 0
    """Passages of all records, as Postgres estimates."""
    not_embedded: int = 0
    """Passages without a vector of the current model: searches find them only by their words."""


def check_search(connection: Connection) -> SearchHealth:
    """Check the search of a migrated database, with the engine's encoder."""
    encoder: Encoder | None = connection.get_execution_options().get(ENCODER)
    if encoder is None:
        return SearchHealth(method="words", reason=OFF, is_wanted=False)
    if indexed_dimensions(connection, encoder.name) is None:
        obstacle = find_obstacle(connection)
        return SearchHealth(method="words", reason=describe_obstacle(obstacle) if obstacle else NOT_STARTED)
    texts, waiting = connection.exec_driver_sql(
        "SELECT greatest((SELECT reltuples FROM pg_class WHERE oid = 'passages'::regclass), 0)::bigint,"
        " (SELECT count(*) FROM passages_to_embed)"
    ).one()
    return SearchHealth(
        method="hybrid",
        model=encoder.name,
        is_loading=encoder.is_loading,
        texts=max(texts, waiting),
        not_embedded=waiting,
    )
