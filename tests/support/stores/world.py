"""A session's state in memory, and commands applied to it by the rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from models.commands.payloads import parse_envelope
from models.errors import Rejected
from sessions.rules.decision import Context, Decision
from sessions.rules.dispatch import decide
from sessions.rules.records import Agent, Memory, Session, Task, memory_key, task_key
from sessions.rules.state import State

START = datetime(2026, 11, 22, 9, tzinfo=UTC)


class World:
    """A state, and commands applied to it one after the other, a minute apart."""

    def __init__(self, *, agents: list[Agent] | None = None) -> None:
        self.state = State(agents=agents or ())
        self.now = START
        self.source = "default"
        self.upcoming: frozenset[str] = frozenset()

    def do(self, command: str, /, **data: Any) -> Decision:
        body = {"command": command, "session_id": "walk", "data": data}
        parsed = parse_envelope(msgspec.json.encode(body)).command
        self.now += timedelta(minutes=1)
        context = Context(
            session_id="walk",
            source=self.source,
            delivery_id="d",
            is_unnamed=True,
            at=self.now,
            upcoming_tasks=self.upcoming,
        )
        decision = decide(self.state, parsed, context)
        decision.apply(self.state, "walk")
        return decision

    def refused(self, command: str, /, **data: Any) -> Rejected:
        with pytest.raises(Rejected) as caught:
            self.do(command, **data)
        return caught.value

    def memory(self, key: str) -> Memory:
        memory = self.state.find(memory_key("walk", key), Memory)
        assert memory is not None
        return memory

    def task(self, task_id: str) -> Task:
        task = self.state.find(task_key("walk", task_id), Task)
        assert task is not None
        return task

    def session(self) -> Session:
        session = self.state.session("walk")
        assert session is not None
        return session
