"""The corpus and its questions, and how well a search answers them: recall@1, recall@5 and MRR by group."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

FOLDER = Path(__file__).resolve().parent
LIMIT = 10
"""Hits that each search asks for; a target behind them counts as not found."""
FEW = 5
NOT_TEXT = frozenset({"session_id", "type", "status", "format"})
"""Fields of the corpus that are labels."""

Half = Literal["tune", "held_out"]
QuestionKind = Literal[
    "plain", "paraphrase", "cross_language", "identifier", "number", "typo", "long", "task", "session", "artifact"
]
Language = Literal["en", "de", "es", "fr", "it", "zh"]
ID_FIELDS = {"key": "memory", "chunk_id": "chunk", "artifact_id": "artifact", "task_id": "task"}
"""The kind of a hit by its id field. An artifact of a task has both ids, so the order counts."""


class Target(NamedTuple):
    """What a question asks for. The id of a session is empty."""

    kind: str
    session_id: str
    id: str = ""


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question as a person or an LLM sends it. `expected` are targets as paths, any of which is right."""

    half: Half
    kind: QuestionKind
    language: Language
    q: str
    expected: list[str]

    @property
    def targets(self) -> set[Target]:
        """The targets."""
        return {Target(*path.split("/")) for path in self.expected}


class Outcome(NamedTuple):
    """A question with the place of its first right hit, counted from 1, and the first hits."""

    question: Question
    rank: int | None
    first: list[Target]


class Score(NamedTuple):
    """Shares of questions: whose first hit is right, with a right hit in the first five; and the mean of 1 / rank."""

    questions: int
    recall_at_1: float
    recall_at_5: float
    mrr: float


def read_corpus() -> dict[str, list[dict[str, Any]]]:
    """Return what is to be stored: sessions, memories, chunks, tasks and artifacts."""
    corpus: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "corpus.json").read_text("utf-8"))
    return corpus


def read_questions() -> list[Question]:
    """Return all questions."""
    return msgspec.json.decode((FOLDER / "questions.json").read_bytes(), type=list[Question])


def texts_of(corpus: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[Target, str]:
    """Return each target of a corpus with everything of it that can be searched. Raises ValueError for an id that is
    there twice."""
    names = {"memories": "key", "chunks": "chunk_id", "artifacts": "artifact_id", "tasks": "task_id"}
    found = [
        (Target(ID_FIELDS[name], item["session_id"], item[name]), item)
        for group, name in names.items()
        for item in corpus[group]
    ]
    found += [(Target("session", item["session_id"]), item) for item in corpus["sessions"]]
    texts = {
        target: " ".join(_strings([value for name, value in item.items() if name not in NOT_TEXT]))
        for target, item in found
    }
    if len(texts) < len(found):
        raise ValueError("An id occurs twice in the corpus.")
    return texts


def target_of(hit: Mapping[str, Any]) -> Target:
    """Return what a hit of the API is."""
    for name, kind in ID_FIELDS.items():
        if name in hit:
            return Target(kind, hit["session_id"], hit[name])
    return Target("session", hit["session_id"])


def judge(question: Question, hits: Iterable[Mapping[str, Any]]) -> Outcome:
    """Find the first right hit."""
    found = [target_of(hit) for hit in hits]
    rank = next((place for place, target in enumerate(found, 1) if target in question.targets), None)
    return Outcome(question, rank, found[:3])


def score(outcomes: Sequence[Outcome]) -> Score:
    """Return the measures of some outcomes."""
    ranks = [outcome.rank for outcome in outcomes]
    found = [rank for rank in ranks if rank is not None]
    return Score(
        questions=len(ranks),
        recall_at_1=sum(rank == 1 for rank in found) / len(ranks),
        recall_at_5=sum(rank <= FEW for rank in found) / len(ranks),
        mrr=sum(1 / rank for rank in found) / len(ranks),
    )


def score_groups(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Score]]:
    """Return the measures by kind, by language, and over all."""
    kinds: dict[str, Callable[[Outcome], str]] = {
        "kind": lambda outcome: outcome.question.kind,
        "language": lambda outcome: outcome.question.language,
        "all": lambda outcome: "all",
    }
    return {
        grouping: {
            name: score([outcome for outcome in outcomes if name_of(outcome) == name])
            for name in dict.fromkeys(map(name_of, outcomes))
        }
        for grouping, name_of in kinds.items()
    }


def _strings(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for part in value.values() for text in _strings(part)]
    return [text for part in value for text in _strings(part)] if isinstance(value, list) else [str(value)]
