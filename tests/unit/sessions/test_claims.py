"""Claims without any server: the rights of the holder, the form of tokens, and waking waiters for a task."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from datetime import timedelta

import msgspec
import pytest
from msgspec import Raw

from api.database import Database
from api.tasks.claim_waiters import ClaimWaiter, ClaimWaiters
from models.commands.agent_commands import AskTask, ClaimCommand, CompleteTask, FailTask
from models.commands.definitions import AddArtifact
from models.errors import NotFound, Rejected
from models.process.url_redaction import mask_path
from models.queue.task_notifications import (
    Claimable,
    TaskNotification,
    claim_token,
    make_claim_secret,
    read_claim_token,
)
from models.settings import Settings
from sessions.rules.decision import Context, Decision
from sessions.rules.dispatch import decide
from sessions.rules.records import Artifact, ArtifactRevision, Task
from tests.support.stores.world import World

HASH = "h" * 64


@pytest.fixture
def world() -> World:
    """A session with a task that is claimed for the first time."""
    world = World()
    world.do("create_session", title="Morning walk")
    world.do("delegate_task", task_id="t", description="Find a baker", max_attempts=3)
    hold(world)
    return world


def hold(world: World, *, attempt: int = 1, token: str = HASH) -> None:
    """Claim the task for an agent."""
    changes = {"status": "claimed", "attempt": attempt, "claim_token": token, "claimed_by": "baker"}
    lease = {"lease_expires_at": world.now + timedelta(minutes=1)}
    world.state.put(msgspec.structs.replace(world.task("t"), **changes, **lease))


def act(world: World, command: ClaimCommand) -> Decision:
    world.now += timedelta(minutes=1)
    decision = decide(world.state, command, Context(session_id="walk", source="agent", delivery_id="d", at=world.now))
    decision.apply(world.state, "walk")
    return decision


def refused(world: World, command: ClaimCommand) -> str:
    with pytest.raises(Rejected) as caught:
        act(world, command)
    return caught.value.code


def complete(output: bytes = b"1", *artifacts: AddArtifact) -> CompleteTask:
    return CompleteTask(task_id="t", claim=HASH, output=Raw(output), artifacts=list(artifacts))


def test_a_completion_ends_the_lease_and_keeps_the_result_with_its_artifacts(world: World) -> None:
    artifact = AddArtifact(name="map", content=Raw(b'"x"'), artifact_id="map", task_id="t")
    decision = act(world, complete(b'{"a": 1.50}', artifact))
    task = world.task("t")
    assert (task.status, task.output) == ("completed", Raw(b'{"a": 1.50}'))
    assert (task.lease_expires_at, task.shown_at, task.finished_at) == (None, None, world.now)
    assert world.state.find(("artifacts", "walk", "map"), Artifact) is not None
    assert decision.data["artifacts"] == ["map"]
    assert world.session().last_activity_at == world.now


def test_artifacts_of_a_completion_under_known_ids_are_revisions(world: World) -> None:
    world.do("add_artifact", artifact_id="map", name="map", content=Raw(b"1"))
    contents = (b"2", b"2", b"3")
    artifacts = [AddArtifact(name="map", content=Raw(content), artifact_id="map") for content in contents]
    act(world, complete(b"1", *artifacts))
    latest = world.state.find(("artifacts", "walk", "map"), Artifact)
    assert latest is not None
    assert (latest.revision, latest.content) == (3, Raw(b"3"))
    for number in (1, 2):
        earlier = world.state.find(("artifact_revisions", "walk", "map", str(number)), ArtifactRevision)
        assert earlier is not None
        assert earlier.content == Raw(b"%d" % number)


def test_a_repeated_completion_changes_nothing_and_another_is_refused(world: World) -> None:
    act(world, complete(b'{"a": 1, "b": 2}'))
    assert act(world, complete(b'{"b": 2, "a": 1}')).put == []
    assert refused(world, complete(b"2")) == "task_finished"
    assert refused(world, FailTask(task_id="t", claim=HASH, error="x")) == "task_finished"
    assert refused(world, AskTask(task_id="t", claim=HASH, question="x")) == "task_finished"


@pytest.mark.parametrize("command", [complete(), FailTask(task_id="t", claim=HASH, error="x")])
def test_only_the_holder_of_a_claim_can_use_it(world: World, command: ClaimCommand) -> None:
    hold(world, token="another")
    assert refused(world, command) == "claim_lost"
    assert refused(world, msgspec.structs.replace(command, task_id="none")) == "claim_lost"
    elsewhere = Context(session_id="nowhere", source="agent", delivery_id="d", at=world.now)
    with pytest.raises(Rejected, match="no longer holds"):
        decide(world.state, command, elsewhere)


def test_a_cancelled_task_cannot_be_completed(world: World) -> None:
    world.do("cancel_task", task_id="t")
    assert world.task("t").claim_token == HASH
    assert refused(world, complete()) == "task_cancelled"


def test_failures_are_retried_with_growing_delay_until_the_last_attempt(world: World) -> None:
    waits = []
    for attempt in (1, 2, 3):
        hold(world, attempt=attempt)
        act(world, FailTask(task_id="t", claim=HASH, error=f"no {attempt}", retryable=True))
        task: Task = world.task("t")
        waits.append(task.not_before and (task.not_before - world.now).total_seconds())
        assert (task.claim_token, task.lease_expires_at, task.error) == (None, None, f"no {attempt}")
        assert task.status == ("pending" if attempt < 3 else "failed")
    assert waits[:2] == [10, 20]


def test_dependents_of_a_task_fail_with_its_last_attempt(world: World) -> None:
    world.do("delegate_task", task_id="next", description="Go on", depends_on=["t"])
    for attempt, status in ((1, "pending"), (3, "failed")):
        hold(world, attempt=attempt)
        act(world, FailTask(task_id="t", claim=HASH, error="no", retryable=True))
        assert world.task("next").status == status
    assert "depends on" in str(world.task("next").error)


def test_a_question_releases_the_task_without_losing_an_attempt(world: World) -> None:
    ask = AskTask(task_id="t", claim=HASH, question="Which street?")
    act(world, ask)
    assert (world.task("t").status, world.task("t").lease_expires_at) == ("input_required", None)
    assert act(world, ask).put == []
    world.do("answer_task", task_id="t", answer="The long one")
    task = world.task("t")
    assert (task.status, task.attempt, task.claim_token) == ("pending", 0, None)


def test_a_claim_can_be_ended_in_an_inactive_session(world: World) -> None:
    world.state.put(msgspec.structs.replace(world.session(), status="completed"))
    act(world, complete(b"1", AddArtifact(name="map", content=Raw(b"1"), artifact_id="map", task_id="t")))
    assert world.task("t").status == "completed"


def test_a_token_names_its_task_and_is_masked_in_paths() -> None:
    token = claim_token(make_claim_secret(), session_id="evening:walk@1", task_id="find.it-2")
    claim = read_claim_token(token)
    assert (claim.session_id, claim.task_id, len(claim.hash)) == ("evening:walk@1", "find.it-2", 64)
    assert mask_path(f"/v1/claims/{token}/complete") == "/v1/claims/{claim_token}/complete"
    for wrong in ("", token.replace("~find", "find"), token + "/x", "srk" + token[3:], token.replace("_", "_x", 1)):
        with pytest.raises(NotFound):
            read_claim_token(wrong)


# Waking waiters


@pytest.fixture
def queue() -> ClaimWaiters:
    return ClaimWaiters(Database(Settings(database_url="postgresql:///nowhere")))


def waiter(agent_name: str, types: Collection[str] | None = (), **fields: str | None) -> ClaimWaiter:
    glob = fields.get("only")
    return ClaimWaiter(
        agent_name=agent_name,
        types=types,
        created_by=fields.get("created_by"),
        sees=lambda session_id: glob in (None, session_id),
    )


def task(agent_name: str | None = None, kind: str = "code", session_id: str = "s", created_by: str = "x") -> Claimable:
    return Claimable(session_id=session_id, agent_name=agent_name, task_type=kind, created_by=created_by)


def woken(queue: ClaimWaiters, waiters: list[ClaimWaiter], *tasks: Claimable) -> list[int]:
    """Return the waiters that these tasks wake."""
    with ExitStack() as held:
        for one in waiters:
            held.enter_context(queue.wait(one, source="s"))
            queue.set_idle(one)
        queue.notify(TaskNotification(claimable=list(tasks)))
        numbers = [number for number, one in enumerate(waiters) if one.woken.is_set()]
        for one in waiters:
            one.offered = None
        return numbers


def test_each_task_wakes_the_longest_waiting_agent_that_can_claim_it(queue: ClaimWaiters) -> None:
    many = [waiter("a", ["code"]) for _ in range(200)]
    assert woken(queue, many, task(), task(), task()) == [0, 1, 2]
    mixed = [waiter("a", ["text"]), waiter("b", None), waiter("c", ["code"])]
    assert woken(queue, mixed, task()) == [1]
    assert woken(queue, mixed, task("c")) == [2]
    assert woken(queue, mixed, task("d")) == []
    limited = [waiter("a", None, created_by="y"), waiter("a", None, only="t"), waiter("a", None)]
    assert woken(queue, limited, task()) == [2]
    assert woken(queue, limited, task(session_id="t"), task(created_by="y")) == [0, 1]


def test_a_woken_waiter_that_leaves_early_passes_the_task_on(queue: ClaimWaiters) -> None:
    first, second = waiter("a", None), waiter("a", None)
    with queue.wait(second, source="s"):
        with queue.wait(first, source="s"):
            queue.set_idle(first)
            queue.set_idle(second)
            queue.notify(TaskNotification(claimable=[task()]))
            assert (first.woken.is_set(), second.woken.is_set()) == (True, False)
        assert second.woken.is_set()


def test_an_agent_at_its_limit_is_woken_only_when_it_has_finished_a_task(queue: ClaimWaiters) -> None:
    one, other = waiter("a", None), waiter("b", None)
    with queue.wait(one, source="s"), queue.wait(other, source="s"):
        for each in (one, other):
            queue.set_idle(each)
        queue.set_full(one)
        queue.notify(TaskNotification(claimable=[task()], freed=["c"]))
        assert (one.woken.is_set(), other.woken.is_set()) == (False, True)
        queue.notify(TaskNotification(freed=["a"]))
        assert one.woken.is_set()
