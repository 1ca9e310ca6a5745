"""Searches by meaning alone, which the product does not offer: with the vectors of the stack, compared exactly."""

from __future__ import annotations

from collections.abc import Iterable

from bench.search.evaluation import LIMIT, Outcome, Question, judge
from models.settings import read_settings
from sessions.embeddings.configured import configured_encoder
from sessions.postgres.connections import create_engine
from sessions.postgres.embeddings.embedding import vector_text
from sessions.reads.search_hits import ID_NAMES

_NEAREST = """
    SELECT area, session_id, item_id, min(vector <#> CAST(%s AS halfvec)) AS distance
    FROM passage_vectors JOIN passages USING (passage_id) WHERE model = %s
    GROUP BY area, session_id, item_id ORDER BY distance LIMIT %s
"""


def ask_by_meaning(database_url: str, questions: Iterable[Question]) -> list[Outcome]:
    """Return the outcomes of all questions."""
    settings = read_settings({"DATABASE_URL": database_url})
    encoder = configured_encoder(settings)
    assert encoder is not None, "Meanings need a model."
    encoder.texts(["Load the model."])  # A question would not wait for that.
    engine = create_engine(settings, application_name="session-relay bench", pool_size=1)
    outcomes = []
    with engine.connect() as connection:
        for question in questions:
            asked = vector_text(encoder.question(question.q))
            rows = connection.exec_driver_sql(_NEAREST, (asked, encoder.name, LIMIT))
            hits = [{"session_id": row.session_id, ID_NAMES[row.area]: row.item_id} for row in rows]
            outcomes.append(judge(question, hits))
    engine.dispose()
    return outcomes
