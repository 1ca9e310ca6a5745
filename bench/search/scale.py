"""Measures searches among many passages with vectors: `python -m bench.search.scale [--passages 1000000]`.

Fills the tables of a stack of its own with passages of invented words, whose frequencies are those of a language, and
with vectors that are mixed from those of two sentences of Python's documentation each. Prints the time of building the
index and its size, the latency of searches over everything, in one session and in the sessions of a limited key, and
how many of the ten nearest passages the index finds.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import struct
import sys
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import Connection, Engine

from bench.speed.stack import new_stack
from models.commands.definitions import Search
from models.settings import read_settings
from sessions.embeddings.configured import configured_encoder
from sessions.embeddings.encoder import Encoder
from sessions.postgres.connections import create_engine
from sessions.postgres.embeddings.embedding import vector_text
from sessions.postgres.embeddings.nearest import Part, Question, prepare_index_scan
from sessions.postgres.embeddings.vector_table import TABLE, index_of, prepare
from sessions.postgres.reads.search import search
from sessions.reads.read_scope import ReadScope

T = TypeVar("T")

SESSIONS = 1_000
WORDS, VOCABULARY = 30, 50_000
"""Words of a passage, and all different words."""
SENTENCES, SECOND = 10_000, 0.6
"""Sentences that vectors are mixed from, and the weight of the second one."""
LENGTHS = range(5, 41)
"""Words of a sentence."""
COPIED_AT_ONCE, ENCODED_AT_ONCE = 20_000, 100
BUILD_MEMORY = "4GB"
ASKED, COMPARED = 100, 50
"""Searches of each kind, and comparisons with the exact result."""
NEAREST = 10
_SENTENCE_END = re.compile(r"(?<=[.!?]) ")
QUESTIONS = ("What did we decide about w{}?", "w{} w{}", "Where is the w{} of w{} and w{}")

FILL_SESSIONS = """
INSERT INTO sessions (session_id, title, participants, context, status, created_by, created_at, last_activity_at)
SELECT 'scale-' || n, 'Session ' || n, '{}', '', 'active', 'bench', now(), now() FROM generate_series(0, %s - 1) n
"""
FILL_PASSAGES = """
INSERT INTO passages (session_id, area, item_id, number, start, text, at, tags, weight, words)
SELECT 'scale-' || n %% %s, 'conversations', 'c' || n, 0, 0, text, now(), '{}', 1, to_tsvector('simple', text)
FROM generate_series(1, %s) n, LATERAL (
    SELECT string_agg('w' || floor(power(%s, random()) + 0 * (n + word)), ' ') AS text FROM generate_series(1, %s) word
) t
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.search.scale", description=__doc__)
    parser.add_argument("--passages", type=int, default=1_000_000)
    asked = parser.parse_args(arguments)
    with new_stack() as stack:
        settings = read_settings({"DATABASE_URL": stack.postgres.url})
        encoder = configured_encoder(settings)
        assert encoder is not None, "Meanings need a model."
        engine = create_engine(settings, application_name="session-relay bench", pool_size=1)
        vectors = _timed("vectors of sentences", lambda: Vectors(encoder))
        _fill(engine, encoder.name, vectors, passages=asked.passages)
        _say(f"recall at {NEAREST}", f"{_recall(engine, encoder.name, vectors):.3f}")
        for name, scope in _scopes().items():
            times = _search_times(engine, scope)
            _say(f"search {name}", f"p50 {times[len(times) // 2]:.0f} ms, p95 {times[int(len(times) * 0.95)]:.0f} ms")
        engine.dispose()
    return 0


class Vectors:
    """Vectors like those of texts, the same in each run: independent random numbers would lie in all directions, in
    which an index finds fewer of the nearest."""

    def __init__(self, encoder: Encoder) -> None:
        self._generator = np.random.default_rng(1)
        sentences = self._generator.permutation(sorted(_sentences()))[:SENTENCES].tolist()
        self._of_sentences = np.concatenate(
            [
                encoder.texts(sentences[start : start + ENCODED_AT_ONCE])
                for start in range(0, len(sentences), ENCODED_AT_ONCE)
            ]
        )

    def draw(self, count: int) -> Any:
        """Return the next vectors, of unit length."""
        first, second = self._of_sentences[self._generator.integers(0, len(self._of_sentences), (2, count))]
        mixed = first + SECOND * second
        return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def _sentences() -> set[str]:
    """Return the sentences of the documentation in Python's own modules."""
    found = set()
    for path in Path(sysconfig.get_path("stdlib")).rglob("*.py"):
        if {"site-packages", "test", "tests"}.isdisjoint(path.parts):
            with suppress(SyntaxError, ValueError), warnings.catch_warnings(action="ignore"):
                for node in ast.walk(ast.parse(path.read_bytes())):
                    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                        found.update(_SENTENCE_END.split(" ".join((ast.get_docstring(node) or "").split())))
    return {sentence for sentence in found if len(sentence.split()) in LENGTHS}


def _fill(engine: Engine, model: str, vectors: Vectors, *, passages: int) -> None:
    _timed("passages", lambda: _run(engine, FILL_SESSIONS, (SESSIONS,)))
    _timed("their words", lambda: _run(engine, FILL_PASSAGES, (SESSIONS, passages, VOCABULARY, WORDS)))
    dimensions = vectors.draw(1).shape[1]
    with engine.begin() as connection:
        prepare(connection, model, dimensions)
        connection.exec_driver_sql(f"DROP INDEX {index_of(model)}")
    _timed("vectors", lambda: _copy_vectors(engine, model, vectors, passages))

    def build() -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL maintenance_work_mem = '{BUILD_MEMORY}'")
            prepare(connection, model, dimensions)

    _timed("index of vectors", build)
    _timed("statistics", lambda: _run(engine, "ANALYZE passages; ANALYZE passage_vectors", ()))
    with engine.connect() as connection:
        for what, relation in (("index of vectors", index_of(model)), ("vectors", TABLE), ("passages", "passages")):
            size = connection.exec_driver_sql("SELECT pg_relation_size(%s::regclass)", (relation,)).scalar_one()
            _say(f"size of {what}", f"{size / 1e6:,.0f} MB")


def _copy_vectors(engine: Engine, model: str, vectors: Vectors, passages: int) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        (first,) = connection.exec_driver_sql("SELECT min(passage_id) FROM passages").one()
        cursor = connection.connection.cursor()
        for start in range(0, passages, COPIED_AT_ONCE):
            count = min(COPIED_AT_ONCE, passages - start)
            rows = _binary_rows(first + start, model, vectors.draw(count))
            cursor.copy_expert(f"COPY {TABLE} (passage_id, model, number, vector) FROM STDIN (FORMAT binary)", rows)


def _binary_rows(first: int, model: str, vectors: Any) -> io.BytesIO:
    """Return rows in the binary format of COPY."""
    halves = vectors.astype(">f2")
    dimensions = halves.shape[1]
    name = model.encode()
    out = io.BytesIO()
    out.write(b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0))
    for number, half in enumerate(halves):
        out.write(struct.pack("!hiqi", 4, 8, first + number, len(name)) + name)
        out.write(struct.pack("!ihihh", 2, 0, 4 + 2 * dimensions, dimensions, 0) + half.tobytes())
    out.write(struct.pack("!h", -1))
    out.seek(0)
    return out


def _scopes() -> dict[str, Callable[[], ReadScope]]:
    numbers = iter(range(10**9))

    def scope(session_id: str | None = None, glob: str | None = None) -> ReadScope:
        return ReadScope(session_id=session_id, session_glob=glob, now=datetime.now(UTC))

    return {
        "everywhere": scope,
        "in one session": lambda: scope(session_id=f"scale-{next(numbers) % SESSIONS}"),
        "in a tenth of the sessions": lambda: scope(glob=f"scale-{next(numbers) % 9 + 1}*"),
    }


def _search_times(engine: Engine, scope: Callable[[], ReadScope]) -> list[float]:
    """Return the milliseconds of searches, the shortest first."""
    generator = np.random.default_rng(2)
    times = []
    for number in range(ASKED):
        words = [int(VOCABULARY**share) for share in generator.random(3)]
        command = Search(q=QUESTIONS[number % len(QUESTIONS)].format(*words))
        with engine.connect() as connection:
            began_at = time.perf_counter()
            search(connection, command, read_scope=scope())
            times.append((time.perf_counter() - began_at) * 1000)
    return sorted(times)


def _recall(engine: Engine, model: str, vectors: Vectors) -> float:
    """Return the share of the nearest passages that the index finds."""
    shares = []
    with engine.connect() as connection:
        for vector in vectors.draw(COMPARED):
            question = Question(model=model, vector=vector_text(vector), dimensions=len(vector))
            found = [set(_nearest(connection, question, exact=exact)) for exact in (False, True)]
            shares.append(len(found[0] & found[1]) / NEAREST)
    return sum(shares) / len(shares)


def _nearest(connection: Connection, question: Question, *, exact: bool) -> Iterator[int]:
    prepare_index_scan(connection)
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    connection.exec_driver_sql(f"SET LOCAL enable_indexscan = {'off' if exact else 'on'}")
    part = question.nearest(Part("true", ()), most=NEAREST)
    yield from connection.exec_driver_sql(part.statement, part.parameters).scalars()


def _run(engine: Engine, statement: str, parameters: tuple[Any, ...]) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql(statement, parameters or None)


def _timed(what: str, work: Callable[[], T]) -> T:
    began_at = time.perf_counter()
    done = work()
    _say(what, f"{time.perf_counter() - began_at:,.0f} s")
    return done


def _say(what: str, found: str) -> None:
    print(f"{what:32} {found}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
