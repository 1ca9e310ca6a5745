"""The table of vectors, made when it is first needed: migrations must also work where pgvector is not installed.

Vectors belong to passages, one to each of its pieces. Passages are never changed: a record with new words has new ones.
Vectors are deleted with them, and can be computed anew, so backups leave them out.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection, Engine

from sessions.embeddings.encoder import ModelFailed

TABLE = "passage_vectors"
PREPARE_LOCK = 7_305_002
"""Advisory lock key, held by those who choose the current model, and shared by those who write its vectors."""
MAX_DIMENSIONS = 4_000
"""The most that an index of half-precision vectors can hold."""
DROP_SECONDS = 1
"""The longest that the drop of an index waits for searches, since others wait behind it."""
LINKS, BUILD_CANDIDATES = 16, 64
"""Parameters of the HNSW index: pgvector's defaults."""


def indexed_dimensions(connection: Connection, model: str) -> int | None:
    """Return the dimensions of this model's vectors if they can be searched: without their index, Postgres would read
    all of them."""
    found = connection.exec_driver_sql(
        "SELECT atttypmod FROM pg_index JOIN pg_attribute ON attrelid = indexrelid AND attnum = 1"
        " WHERE indexrelid = to_regclass(%s) AND indisvalid AND has_table_privilege(indrelid, 'SELECT')",
        (index_of(model),),
    )
    dimensions: int | None = found.scalar_one_or_none()
    return dimensions


def is_missing(connection: Connection) -> bool:
    """Return whether the table is missing, as after a restore."""
    return bool(connection.exec_driver_sql("SELECT to_regclass(%s) IS NULL", (TABLE,)).scalar_one())


def prepare(connection: Connection, model: str, dimensions: int) -> None:
    """Make the table, and the index of a model's vectors, unless they exist, and make it the current model. Commits
    nothing."""
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
    indexed = indexed_dimensions(connection, model)
    if indexed is None:
        connection.exec_driver_sql(*_make_index(model, dimensions))
    elif indexed != dimensions:
        raise ModelFailed(
            f"The vectors of {model} have {dimensions} dimensions now, and had {indexed}: it is another model, which"
            " needs another name in EMBEDDINGS_MODEL."
        )
    if _current_model(connection) != model:
        connection.exec_driver_sql(f"COMMENT ON TABLE {TABLE} IS %s", (model,))


def index_beside_others(engine: Engine, model: str, dimensions: int) -> None:
    """Make the index of a model's vectors if the table has those of another one. That reads all of them, so writes go
    on meanwhile: sessions could not be deleted for so long."""
    with engine.begin() as connection:
        if is_missing(connection) or indexed_dimensions(connection, model) is not None:
            return
        if not connection.exec_driver_sql(f"SELECT EXISTS (SELECT FROM {TABLE})").scalar_one():  # noqa: S608
            return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # One that was left by a killed process is not used.
        connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {index_of(model)}")
        connection.exec_driver_sql(*_make_index(model, dimensions, option="CONCURRENTLY"))


def _make_index(model: str, dimensions: int, *, option: str = "") -> tuple[str, tuple[str]]:
    """Return the statement with its parameter."""
    statement = (
        f"CREATE INDEX {option} IF NOT EXISTS {index_of(model)} ON {TABLE}"
        f" USING hnsw ((CAST(vector AS halfvec({dimensions:d}))) halfvec_ip_ops)"
        f" WITH (m = {LINKS}, ef_construction = {BUILD_CANDIDATES}) WHERE model = %s"
    )
    return statement, (model,)


def require_current(connection: Connection, model: str) -> None:
    """Keep another model from becoming the current one until the transaction ends. Raises ModelFailed if one has:
    vectors of this model would not be searched, and the texts that it takes would get none of the other."""
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock_shared(%s)", (PREPARE_LOCK,))
    # In a statement of its own, which sees what was committed while this one waited.
    current = _current_model(connection)
    if current != model:
        raise ModelFailed(f"Another embedder, which was started later, embeds with the model {current}.")


def _current_model(connection: Connection) -> str | None:
    found = connection.exec_driver_sql("SELECT obj_description(to_regclass(%s), 'pg_class')", (TABLE,))
    current: str | None = found.scalar_one()
    return current


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
    """Delete up to `most` vectors of other models, and return their number. Drops their indexes first, without which
    no search uses them."""
    for index in _indexes(connection):
        if index != index_of(model):
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{DROP_SECONDS}s'")
            connection.exec_driver_sql(f"DROP INDEX IF EXISTS {index}")
    return connection.exec_driver_sql(
        f"DELETE FROM {TABLE} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {TABLE} WHERE model <> %s LIMIT %s))",  # noqa: S608
        (model, most),
    ).rowcount


def _indexes(connection: Connection) -> list[str]:
    found = connection.exec_driver_sql(
        "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() AND tablename = %s"
        " AND indexdef LIKE '%%USING hnsw%%'",
        (TABLE,),
    )
    return [str(name) for name in found.scalars()]
