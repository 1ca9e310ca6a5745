"""Measures how well search answers questions: `python -m bench.search [--only tune] [--noise 3000] [--misses]`.

Starts a stack of its own, stores the corpus over HTTP, and asks each question. Prints by kind and by language the share
of questions whose first hit is right (@1), the share with a right hit in the first five (@5), and the mean of 1 / rank
(MRR). Variables such as EMBEDDINGS are handed to the stack, so that EMBEDDINGS=off measures words alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import get_args

import httpx

from bench.search.evaluation import FEW, Half, Outcome, Score, read_corpus, read_questions, score_groups
from bench.search.loading import ask, load, send, send_all, wait_until_searchable
from bench.search.meaning import ask_by_meaning
from bench.search.noise import SESSIONS, notes
from bench.speed.stack import Stack, new_stack
from bench.speed.webhook import API_KEY

TIMEOUT_SECONDS = 120


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    asked = _parser().parse_args(arguments)
    questions = [question for question in read_questions() if asked.only in (None, question.half)]
    with ExitStack() as held:
        stack = held.enter_context(_stack()) if asked.url is None else None
        url = asked.url if stack is None else f"http://127.0.0.1:{stack.start_relay()}"
        client = held.enter_context(_client(url, API_KEY if stack else os.environ.get("API_KEY", "")))
        if not asked.loaded:
            load(client, read_corpus())
            for number in range(SESSIONS if asked.noise else 0):
                send(client, "create_session", {"session_id": f"noise-{number}", "title": f"Notes {number}"})
            send_all(client, "store_memory", notes(asked.noise))
        wait_until_searchable(client, by_meaning=os.environ.get("EMBEDDINGS") != "off")
        if asked.meaning_alone:
            assert stack is not None, "--meaning-alone needs a stack of its own."
            outcomes = ask_by_meaning(stack.postgres.url, questions)
        else:
            outcomes = ask(client, questions)
    scores = score_groups(outcomes)
    if asked.json:
        named = {
            grouping: {name: found._asdict() for name, found in groups.items()} for grouping, groups in scores.items()
        }
        print(json.dumps(named, indent=2))
    else:
        print("\n".join(_table(scores)))
    if asked.misses:
        print("\n".join(_misses(outcomes)), file=sys.stderr if asked.json else sys.stdout)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.search", description=__doc__)
    parser.add_argument("--only", choices=get_args(Half), help="ask half of the questions")
    parser.add_argument("--noise", type=int, default=0, help="newer notes about other things, stored after the corpus")
    parser.add_argument("--meaning-alone", action="store_true", help="ignore the words")
    parser.add_argument("--misses", action="store_true", help="list the questions whose first hit is wrong")
    parser.add_argument("--json", action="store_true", help="print the measures as JSON")
    parser.add_argument("--url", help="measure this running stack, with the key in API_KEY, instead of a new one")
    parser.add_argument("--loaded", action="store_true", help="the stack at --url has the corpus already")
    return parser


@contextmanager
def _stack() -> Iterator[Stack]:
    with new_stack() as stack:
        stack.start_workers(1)
        yield stack


@contextmanager
def _client(url: str, key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"X-API-Key": key}, timeout=TIMEOUT_SECONDS) as client:
        yield client


def _table(scores: dict[str, dict[str, Score]]) -> list[str]:
    lines = [f"{'':16} {'questions':>9} {'@1':>6} {f'@{FEW}':>6} {'MRR':>6}"]
    for groups in scores.values():
        lines += [
            f"{name:16} {found.questions:9} {found.recall_at_1:6.1%} {found.recall_at_5:6.1%} {found.mrr:6.3f}"
            for name, found in groups.items()
        ]
        lines.append("")
    return lines[:-1]


def _misses(outcomes: Sequence[Outcome]) -> list[str]:
    return [
        f"{f'@{rank}' if rank else 'MISS':5} [{question.kind}/{question.language}] {question.q!r} wants"
        f" {', '.join(question.expected)}; got {', '.join('/'.join(target) for target in first) or 'nothing'}"
        for question, rank, first in outcomes
        if rank != 1
    ]


if __name__ == "__main__":
    sys.exit(main())
