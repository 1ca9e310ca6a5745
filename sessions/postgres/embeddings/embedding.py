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
from sessions.postgres.embeddings.vector_table import (
    MAX_DIMENSIONS,
    TABLE,
    add_missing,
    forget_other_models,
    index_beside_others,
    is_missing,
    prepare,
    require_current,
)
from sessions.search.passages import meaning_texts

logger = logging.getLogger(__name__)

AT_ONCE = 64
"""Passages of a batch: about a second of work."""
WRITTEN_AT_ONCE = 8
"""Passages of a transaction, in which a record with one of them cannot be changed or deleted: for some hundredths of a
second."""
FORGOTTEN_AT_ONCE = 10_000
SHOWN_DIGITS = 5


_Vector = tuple[int, int, str]
"""Passage, number of its piece, and the vector."""


class Embedding:
    """Embeds the passages of one database with one model."""

    def __init__(self, engine: Engine, encoder: Encoder) -> None:
        self._engine = engine
        self._encoder = encoder
        self._has_others = True
        """Whether there may be vectors of other models. Finding out takes a look at all vectors."""
        self._postponed: list[int] = []
        """Passages with which the model failed, though not with others."""

    def start(self) -> int:
        """Make the table of vectors if needed, and note all passages without a vector of this model, which becomes the
        current one. Returns their number. Raises ModelFailed."""
        dimensions = self._encoder.texts(["."]).shape[1]
        if dimensions > MAX_DIMENSIONS:
            raise ModelFailed(f"Its vectors have {dimensions} dimensions; pgvector indexes at most {MAX_DIMENSIONS}.")
        index_beside_others(self._engine, self._encoder.name, dimensions)
        with self._engine.begin() as connection:
            prepare(connection, self._encoder.name, dimensions)
        self._has_others = True
        with self._engine.begin() as connection:
            return add_missing(connection, self._encoder.name)

    def embed_batch(self) -> int:
        """Embed the latest passages that are noted, and return their number; 0 if there are none. Makes the table anew
        if it is gone. Raises ModelFailed, also when none are left but those that the model failed with, which are
        tried again then."""
        with self._engine.begin() as connection:
            is_gone = is_missing(connection)
        if is_gone:
            self.start()
        with self._engine.begin() as connection:
            require_current(connection, self._encoder.name)
            rows = _latest(connection, besides=self._postponed)
        if not rows and self._postponed:
            count = len(self._postponed)
            self._postponed = []
            raise ModelFailed(f"It failed with {count} texts, though not with others.")
        if not rows:
            return 0
        texts = {
            row.passage_id: meaning_texts(row.area, item_id=row.item_id, name=row.name, tags=row.tags, text=row.text)
            for row in rows
            if row.text is not None
        }
        vectors = self._vectors(texts)
        done = [row.passage_id for row in rows if row.passage_id not in self._postponed]
        for start in range(0, len(done), WRITTEN_AT_ONCE):
            with self._engine.begin() as connection:
                require_current(connection, self._encoder.name)
                _write(connection, self._encoder.name, vectors, done=done[start : start + WRITTEN_AT_ONCE])
        return len(rows)

    def _vectors(self, texts: Mapping[int, Sequence[str]]) -> dict[int, list[_Vector]]:
        """Return the vectors of the pieces of passages, by the passages' ids; for one passage after the other if the
        model refuses one of them, or fails only with them. What it fails with is postponed."""
        if not texts:
            return {}
        pieces = [(passage_id, number, piece) for passage_id in texts for number, piece in enumerate(texts[passage_id])]
        try:
            vectors = self._encoder.texts([piece for _, _, piece in pieces])
        except ModelFailed as error:
            if not isinstance(error, TextRefused):
                self._encoder.texts(["."])  # Raises ModelFailed, too, if these texts are not the cause.
            if len(texts) > 1:
                return {key: found for item in texts.items() for key, found in self._vectors(dict([item])).items()}
            if isinstance(error, TextRefused):
                logger.warning("A text is searched by its words alone, because the model refused it. %s", error)
            else:
                self._postponed += texts
            return {}
        found: dict[int, list[_Vector]] = {}
        for (passage_id, number, _), vector in zip(pieces, vectors, strict=True):
            found.setdefault(passage_id, []).append((passage_id, number, vector_text(vector)))
        return found

    def forget_others(self) -> int:
        """Delete vectors of models that were used before, and return their number; 0 if none are left."""
        if not self._has_others:
            return 0
        with self._engine.begin() as connection:
            require_current(connection, self._encoder.name)  # Only vectors of the current model are written.
            deleted = forget_other_models(connection, self._encoder.name, most=FORGOTTEN_AT_ONCE)
        self._has_others = deleted > 0
        return deleted


def vector_text(vector: Any) -> str:
    """Return a vector as pgvector reads it."""
    return "[" + ",".join([f"{number:.{SHOWN_DIGITS}g}" for number in vector.tolist()]) + "]"


def _latest(connection: Connection, *, besides: Sequence[int]) -> Sequence[Any]:
    """Return the latest noted passages: what was just stored is asked for first. `text` is None for passages that were
    deleted."""
    return connection.exec_driver_sql(
        "SELECT n.passage_id, area, item_id, name, tags, text"
        " FROM (SELECT passage_id FROM passages_to_embed WHERE passage_id <> ALL (CAST(%s AS bigint[]))"
        " ORDER BY passage_id DESC LIMIT %s) n"
        " LEFT JOIN passages p ON p.passage_id = n.passage_id",
        (list(besides), AT_ONCE),
    ).all()


def _write(
    connection: Connection, model: str, vectors: Mapping[int, Sequence[_Vector]], *, done: Sequence[int]
) -> None:
    """Write the vectors of passages that still exist, and forget the notes. Those that are being deleted stay noted
    until they are gone: waiting for their transaction could end in a deadlock with it."""
    kept = connection.exec_driver_sql(
        "SELECT passage_id FROM passages WHERE passage_id = ANY (%s) FOR KEY SHARE SKIP LOCKED", (list(done),)
    )
    written = list(kept.scalars())
    rows = [vector for passage_id in written for vector in vectors.get(passage_id, ())]
    connection.exec_driver_sql(
        f"INSERT INTO {TABLE} (passage_id, model, number, vector)"  # noqa: S608
        " SELECT CAST(r->>0 AS bigint), %s, CAST(r->>1 AS smallint), CAST(r->>2 AS halfvec)"
        " FROM json_array_elements(CAST(%s AS json)) AS r ON CONFLICT DO NOTHING",
        (model, msgspec.json.encode(rows).decode()),
    )
    connection.exec_driver_sql(
        "DELETE FROM passages_to_embed n WHERE passage_id = ANY (%s) AND (passage_id = ANY (CAST(%s AS bigint[]))"
        " OR NOT EXISTS (SELECT FROM passages p WHERE p.passage_id = n.passage_id))",
        (list(done), written),
    )
