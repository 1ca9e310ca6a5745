"""Parts of a search's statement that compare meanings: the passages nearest to the question, and how near each is."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection

from sessions.embeddings.encoder import Encoder, ModelFailed
from sessions.postgres.connections import ENCODER, QUESTION_SECONDS
from sessions.postgres.embeddings.embedding import vector_text
from sessions.postgres.embeddings.obstacles import find_obstacle
from sessions.postgres.embeddings.vector_table import indexed_dimensions

logger = logging.getLogger(__name__)

LONGEST_SECONDS = 2.0
"""The longest that a search waits for the vector of its question: less than half the time of a read, so that the search
by words gets the rest."""
NOTED = 2_000
"""The latest passages without vectors, among which those that a search would find are counted."""
READ_FROM_INDEX = 300
_LIMITS = (
    f"SET LOCAL hnsw.ef_search = {READ_FROM_INDEX}; SET LOCAL hnsw.iterative_scan = relaxed_order;"
    " SET LOCAL hnsw.max_scan_tuples = 40000"
)
"""The index is read on until there are enough passages that fulfil the conditions of the search."""
_NOT_EMBEDDED = """
    SELECT count(*) FROM (SELECT passage_id FROM passages_to_embed ORDER BY passage_id DESC LIMIT %s) n
    JOIN passages USING (passage_id) WHERE {where}
"""


class Part(NamedTuple):
    """A part of a statement, with its parameters."""

    statement: str
    parameters: tuple[Any, ...]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """The vector of a question."""

    model: str
    vector: str
    dimensions: int

    def nearest(self, where: Part, *, most: int) -> Part:
        """Select the passages that fulfil the conditions and are nearest to the question; several times if several of
        their pieces are."""
        statement = (
            "SELECT v.passage_id FROM passage_vectors v JOIN passages USING (passage_id)"  # noqa: S608
            f" WHERE v.model = %s AND {where.statement} ORDER BY {self._distance} LIMIT %s"
        )
        return Part(statement, (self.model, *where.parameters, self.vector, most))

    def cosine(self) -> Part:
        """Compute how near the nearest piece of a passage is; NULL without a vector."""
        statement = (
            f"-(SELECT min({self._distance}) FROM passage_vectors v"  # noqa: S608
            " WHERE v.passage_id = passages.passage_id AND v.model = %s)"
        )
        return Part(statement, (self.vector, self.model))

    @property
    def _distance(self) -> str:
        # The same expression as in the index, which is used for no other.
        return f"CAST(v.vector AS halfvec({self.dimensions})) <#> CAST(%s AS halfvec({self.dimensions}))"


NONE_NEAREST = Part("SELECT passage_id FROM passages WHERE false", ())
NO_COSINE = Part("CAST(NULL AS float8)", ())


def ask(connection: Connection, text: str) -> Question | None:
    """Return the vector of a question, or None if meanings are not compared: embeddings are off, no embedder has
    started yet, or the model fails or is not loaded in time."""
    options = connection.get_execution_options()
    encoder: Encoder | None = options.get(ENCODER)
    dimensions = None if encoder is None else indexed_dimensions(connection, encoder.name)
    if encoder is None or dimensions is None:
        return None
    try:
        vector = encoder.question(text, seconds=options.get(QUESTION_SECONDS, LONGEST_SECONDS))
    except ModelFailed as error:
        logger.warning("Searching by words alone. %s", error)
        return None
    if len(vector) != dimensions:
        logger.warning("Searching by words alone. The vectors of %s have other dimensions than before.", encoder.name)
        return None
    prepare_index_scan(connection)
    return Question(model=encoder.name, vector=vector_text(vector), dimensions=len(vector))


def is_expected(connection: Connection) -> bool:
    """Return whether meanings will be compared after all: embeddings are on, and the database can hold vectors."""
    encoder: Encoder | None = connection.get_execution_options().get(ENCODER)
    if encoder is None:
        return False
    return indexed_dimensions(connection, encoder.name) is not None or find_obstacle(connection) is None


def prepare_index_scan(connection: Connection) -> None:
    """Set the limits of the index for the rest of the transaction."""
    connection.exec_driver_sql(_LIMITS)


def count_not_embedded(connection: Connection, where: Part) -> int:
    """Return the number of passages that fulfil the conditions and have no vector yet, among the latest ones."""
    counted = connection.exec_driver_sql(_NOT_EMBEDDED.format(where=where.statement), (NOTED, *where.parameters))
    return int(counted.scalar_one())
