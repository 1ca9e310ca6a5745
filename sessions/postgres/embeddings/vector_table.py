"""The table of vectors, made when it is first needed: migrations must also work where pgvector is not installed.

Vectors belong to passages, one to each of its pieces. Passages are never changed: a record with new words has new ones.
Vectors are deleted with them, and can be computed anew, so backups leave them out.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection

TABLE = "passage_vectors"
PREPARE_LOCK = 7_305_002
"""Advisory lock key: several processes may start at the same time."""
MAX_DIMENSIONS = 4_000
"""The most that an index of half-precision vectors can hold."""
LINKS, BUILD_CANDIDATES = 16, 64
"""Parameters of the HNSW index: pgvector's defaults."""


def is_prepared(connection: Connection) -> bool:
    """Return whether vectors can be read."""
    return bool(
        connection.exec_driver_sql(
            "SELECT coalesce(has_table_privilege(to_regclass('passage_vectors'), 'SELECT'), false)"
        ).scalar_one()
    )


def prepare(connection: Connection, model: str, dimensions: int) -> None:
    """Make the table, and the index of a model's vectors, unless they exist. Commits nothing."""
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (PREPARE_LOCK,))
    connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
    connection.exec_driver_sql(
        f"CREATE TABLE IF NOT EXISTS {TABLE} ("
        " passage_id bigint NOT NULL REFERENCES passages ON DELETE CASCADE,"
        " model text NOT NULL,"
        " number smallint NOT NULL,"
        " vector halfvec NOT NULL,"
        " PRIMARY KEY (passage_id, model, number))"
    )
    connection.exec_driver_sql(
        f"CREATE INDEX IF NOT EXISTS {index_of(model)} ON {TABLE}"
        f" USING hnsw ((CAST(vector AS halfvec({dimensions:d}))) halfvec_ip_ops)"
        f" WITH (m = {LINKS}, ef_construction = {BUILD_CANDIDATES}) WHERE model = %s",
        (model,),
    )


def index_of(model: str) -> str:
    """Return the name of the index of a model's vectors."""
    return f"ix_{TABLE}_{hashlib.sha256(model.encode()).hexdigest()[:16]}"


def add_missing(connection: Connection, model: str) -> int:
    """Note all passages that have no vector of this model, and return their number. Reads all passages: for the start
    of a process."""
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    return connection.exec_driver_sql(
        "INSERT INTO passages_to_embed (passage_id) SELECT passage_id FROM passages p"  # noqa: S608
        f" WHERE NOT EXISTS (SELECT FROM {TABLE} v WHERE v.passage_id = p.passage_id AND v.model = %s)"
        " ON CONFLICT DO NOTHING",
        (model,),
    ).rowcount


def forget_other_models(connection: Connection, model: str, *, most: int) -> int:
    """Delete up to `most` vectors of other models, and return their number; drop the indexes of models without any."""
    deleted = connection.exec_driver_sql(
        f"DELETE FROM {TABLE} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {TABLE} WHERE model <> %s LIMIT %s))",  # noqa: S608
        (model, most),
    ).rowcount
    if deleted < most:
        for index in _indexes(connection):
            if index != index_of(model):
                connection.exec_driver_sql(f"DROP INDEX IF EXISTS {index}")
    return deleted


def _indexes(connection: Connection) -> list[str]:
    found = connection.exec_driver_sql(
        "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() AND tablename = %s"
        " AND indexdef LIKE '%%USING hnsw%%'",
        (TABLE,),
    )
    return [str(name) for name in found.scalars()]
