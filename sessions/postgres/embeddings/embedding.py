"""Embeds passages in batches: reads texts, asks the model outside any transaction, and writes the vectors.

Killed at any moment, it loses one batch of work: passages stay noted until their vectors are committed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine

from sessions.embeddings.encoder import Encoder, ModelFailed, TextRefused
from sessions.postgres.embeddings.vector_table import MAX_DIMENSIONS, TABLE, add_missing, forget_other_models, prepare
from sessions.search.passages import meaning_texts

logger = logging.getLogger(__name__)

AT_ONCE = 64
"""Passages of a batch: about a second of work."""
FORGOTTEN_AT_ONCE = 10_000
SHOWN_DIGITS = 5


_Vector = tuple[int, int, str]
"""Passage, number of its piece, and the vector."""


class Embedding:
    """Embeds the passages of one database with one model."""

    def __init__(self, engine: Engine, encoder: Encoder) -> None:
        self._engine = engine
        self._encoder = encoder

    def start(self) -> int:
        """Make the table of vectors if needed, and note all passages without a vector of this model. Returns their
        number. Raises ModelFailed."""
        dimensions = self._encoder.texts(["."]).shape[1]
        if dimensions > MAX_DIMENSIONS:
            raise ModelFailed(f"Its vectors have {dimensions} dimensions; pgvector indexes at most {MAX_DIMENSIONS}.")
        with self._engine.begin() as connection:
            prepare(connection, self._encoder.name, dimensions)
        with self._engine.begin() as connection:
            return add_missing(connection, self._encoder.name)

    def embed_batch(self) -> int:
        """Embed the latest passages that are noted, and return their number; 0 if there are none. Raises
        ModelFailed."""
        with self._engine.begin() as connection:
            rows = _latest(connection)
        if not rows:
            return 0
        texts = {
            row.passage_id: meaning_texts(row.area, item_id=row.item_id, name=row.name, tags=row.tags, text=row.text)
            for row in rows
            if row.text is not None
        }
        vectors = self._vectors(texts)
        with self._engine.begin() as connection:
            _write(connection, self._encoder.name, vectors, done=[row.passage_id for row in rows])
        return len(rows)

    def _vectors(self, texts: Mapping[int, Sequence[str]]) -> list[_Vector]:
        """Return the vectors of the pieces of passages, by the passages' ids; for one passage after the other if the
        model refuses one of them."""
        if not texts:
            return []
        pieces = [(passage_id, number, piece) for passage_id in texts for number, piece in enumerate(texts[passage_id])]
        try:
            vectors = self._encoder.texts([piece for _, _, piece in pieces])
        except TextRefused as error:
            if len(texts) > 1:
                return [vector for item in texts.items() for vector in self._vectors(dict([item]))]
            logger.warning("A text is searched by its words alone, because the model refused it. %s", error)
            return []
        return [
            (passage_id, number, vector_text(vector))
            for (passage_id, number, _), vector in zip(pieces, vectors, strict=True)
        ]

    def forget_others(self) -> int:
        """Delete vectors of models that were used before, and return their number; 0 if none are left."""
        with self._engine.begin() as connection:
            return forget_other_models(connection, self._encoder.name, most=FORGOTTEN_AT_ONCE)


def vector_text(vector: Any) -> str:
    """Return a vector as pgvector reads it."""
    return "[" + ",".join([f"{number:.{SHOWN_DIGITS}g}" for number in vector.tolist()]) + "]"


def _latest(connection: Connection) -> Sequence[Any]:
    """Return the latest noted passages: what was just stored is asked for first. `text` is None for passages that were
    deleted."""
    return connection.exec_driver_sql(
        "SELECT n.passage_id, area, item_id, name, tags, text"
        " FROM (SELECT passage_id FROM passages_to_embed ORDER BY passage_id DESC LIMIT %s) n"
        " LEFT JOIN passages p ON p.passage_id = n.passage_id",
        (AT_ONCE,),
    ).all()


def _write(connection: Connection, model: str, vectors: Sequence[_Vector], *, done: Sequence[int]) -> None:
    """Write the vectors of passages that still exist, and forget the notes."""
    connection.exec_driver_sql(
        f"INSERT INTO {TABLE} (passage_id, model, number, vector)"  # noqa: S608
        " SELECT p.passage_id, %s, CAST(r->>1 AS smallint), CAST(r->>2 AS halfvec)"
        " FROM json_array_elements(CAST(%s AS json)) AS r"
        " JOIN passages p ON p.passage_id = CAST(r->>0 AS bigint) ORDER BY 1 FOR KEY SHARE OF p ON CONFLICT DO NOTHING",
        (model, msgspec.json.encode(vectors).decode()),
    )
    connection.exec_driver_sql("DELETE FROM passages_to_embed WHERE passage_id = ANY (%s)", (list(done),))
