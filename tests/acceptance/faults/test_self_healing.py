"""Recovery from deleted jobs, deleted RQ keys and an emptied Redis, and the steps to restore a backup.

Servers and processes that are killed are in test_torture_short.py and in tests/torture.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer

from local.servers.binaries import postgres_binaries
from local.servers.service import silent
from models.queue.job_queue import open_queue
from tests.support.processes.stack import Payload, Stack, wait_for
from tests.support.project import ROOT
from tests.support.servers import execute
from tests.support.torture.chaos import delete_rq_keys
from tests.support.torture.rig import Rig

BACKUP, RESTORE, BACKUP_BY_HAND, RESTORE_BY_HAND = re.findall(
    r"^```sh\n(.*?)^```",
    (ROOT / "docs" / "GUARANTEES.md").read_text().partition("# Backup and restore")[2],
    re.DOTALL | re.MULTILINE,
)
REDIS_CLI = f"""#!{sys.executable}
import hiredis, socket, sys
from urllib.parse import urlsplit

server = socket.socket(socket.AF_UNIX)
server.connect(urlsplit(sys.argv[2]).path)
command = sys.argv[3:]
is_scan = command[:2] == ["--scan", "--pattern"]
server.sendall(hiredis.pack_command(("keys", command[2]) if is_scan else tuple(command)))
answers = hiredis.Reader()
while (answer := answers.gets()) is False:
    answers.feed(server.recv(65_536))
if isinstance(answer, Exception):
    raise answer
if is_scan:
    print(*(key.decode() for key in answer), sep="\\n")
"""
"""The part of redis-cli that the procedure needs: no wheel contains it, and it accepts no URL of a socket. Importing
redis would take longer than the rest."""


@pytest.fixture
def stack(rig: Rig) -> Stack:
    """The rig's processes."""
    return rig.stack


def count_up(stack: Stack, session_id: str, numbers: range) -> list[str]:
    """Store the numbers one after the other. Returns the delivery ids, which are the same each time."""
    return [
        str(
            stack.post("store_memory", session_id, delivery_id=f"{session_id}-{n}", key="count", content=n)[
                "delivery_id"
            ]
        )
        for n in numbers
    ]


def counted(stack: Stack, session_id: str) -> list[str]:
    """Return the delivery ids of the stored numbers, in order. Checks that each was applied as one revision."""
    stack.wait_until_drained()
    events = [event for event in stack.journal(session_id) if event["event"] == "store_memory"]
    assert {event["status"] for event in events} <= {"applied"}
    assert [event["data"]["revision"] for event in events] == list(range(1, len(events) + 1))
    return [event["delivery_id"] for event in events]


def status_of(stack: Stack, delivery_id: str) -> str:
    answer = stack.client.get(f"/v1/deliveries/{delivery_id}").json()
    return str(answer["status"] if "status" in answer else answer["error"]["code"])


def empty_queue(redis: Redis) -> None:
    assert open_queue(redis).empty()  # type: ignore[no-untyped-call]


def delete_drain_jobs(redis: Redis) -> None:
    jobs = open_queue(redis).jobs
    assert jobs
    for job in jobs:
        job.delete()


def delete_all_of_rq(redis: Redis) -> None:
    assert redis.delete(*redis.keys("rq:*"))


@pytest.mark.parametrize("delete", [empty_queue, delete_drain_jobs, delete_all_of_rq])
def test_webhooks_whose_drain_jobs_were_deleted_are_applied_later(
    stack: Stack, session_id: str, delete: Callable[[Redis], None]
) -> None:
    stack.stop("worker")
    waiting = count_up(stack, session_id, range(5))
    wait_for(lambda: open_queue(stack.redis).count, what="job queued")
    delete(stack.redis)
    stack.start("worker")
    assert counted(stack, session_id) == waiting


def test_workers_go_on_when_the_keys_of_rq_are_deleted(rig: Rig, session_id: str) -> None:
    sent: list[str] = []
    for turn in range(5):
        sent += count_up(rig.stack, session_id, range(20 * turn, 20 * turn + 20))
        delete_rq_keys(rig)
    assert counted(rig.stack, session_id) == sent
    assert open_queue(rig.stack.redis).failed_job_registry.count == 0


@pytest.fixture
def dead_letter(stack: Stack, session_id: str) -> Iterator[str]:
    """A memory that could not be stored, until the fixture ends."""
    execute(
        stack.environment["DATABASE_URL"],
        f"""
        CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF new.session_id = '{session_id}' THEN RAISE EXCEPTION 'not this one'; END IF;
            RETURN new;
        END $$;
        CREATE TRIGGER poison BEFORE INSERT ON memories FOR EACH ROW EXECUTE FUNCTION poison()
        """,
    )
    [delivery_id] = count_up(stack, session_id, range(1))
    wait_for(lambda: failed_jobs(stack), what="job listed as failed")
    yield delivery_id
    execute(stack.environment["DATABASE_URL"], "DROP FUNCTION IF EXISTS poison CASCADE")


def failed_jobs(stack: Stack) -> dict[str, Job]:
    found = open_queue(stack.redis).failed_job_registry.get_job_ids(cleanup=False)
    return {name: Job.fetch(name, connection=stack.redis, serializer=JSONSerializer) for name in found}


def delete_failed_jobs(redis: Redis) -> None:
    registry = open_queue(redis).failed_job_registry
    for name in registry.get_job_ids():
        registry.remove(name, delete_job=True)


@pytest.mark.parametrize("delete", [delete_failed_jobs, delete_all_of_rq, Redis.flushall])
def test_a_dead_letter_whose_job_was_deleted_reappears_and_can_be_replayed(
    stack: Stack, session_id: str, dead_letter: str, delete: Callable[[Redis], None]
) -> None:
    before = set(failed_jobs(stack))
    delete(stack.redis)
    [job] = wait_for(
        lambda: [job for name, job in failed_jobs(stack).items() if name not in before], what="job listed again"
    )
    assert job.args == ["default", dead_letter]
    result = job.latest_result()
    assert result is not None
    assert "RaiseException P0001" in str(result.exc_string)
    execute(stack.environment["DATABASE_URL"], "DROP FUNCTION poison CASCADE")
    job.requeue()
    wait_for(lambda: status_of(stack, dead_letter) == "applied", what="applied")
    wait_for(lambda: not failed_jobs(stack), what="no failed jobs left")
    assert [event["status"] for event in stack.journal(session_id)] == ["applied", "failed", "applied"]


def test_an_emptied_redis_loses_nothing_when_the_inbox_was_empty(stack: Stack, session_id: str) -> None:
    applied = count_up(stack, session_id, range(5))
    assert counted(stack, session_id) == applied
    stack.redis.flushall()
    assert {status_of(stack, delivery_id) for delivery_id in applied} == {"applied"}
    # Postgres still knows these deliveries.
    assert count_up(stack, session_id, range(5)) == applied
    headers = {"Idempotency-Key": applied[2]}
    body: Payload = {"command": "store_memory", "session_id": session_id, "data": {"key": "count", "content": 2}}
    answer = stack.client.post("/v1/webhook?wait=30", json=body, headers=headers)
    assert (answer.status_code, answer.json()["data"]["revision"]) == (200, 3)
    other = body | {"data": {"key": "count", "content": "other"}}
    refused = stack.client.post("/v1/webhook?wait=30", json=other, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "delivery_conflict")
    assert counted(stack, session_id) == applied
    assert stack.send("store_memory", session_id, key="count", content=5)["data"]["revision"] == 6


def test_an_emptied_redis_loses_only_waiting_entries(stack: Stack, session_id: str) -> None:
    applied = count_up(stack, session_id, range(5))
    assert counted(stack, session_id) == applied
    stack.stop("worker")
    lost = count_up(stack, session_id, range(5, 10))
    assert {status_of(stack, delivery_id) for delivery_id in lost} == {"accepted"}
    stack.redis.flushall()
    later = count_up(stack, session_id, range(10, 12))
    stack.start("worker")
    assert counted(stack, session_id) == [*applied, *later]
    assert {status_of(stack, delivery_id) for delivery_id in (*applied, *later)} == {"applied"}
    assert {status_of(stack, delivery_id) for delivery_id in lost} == {"delivery_not_found"}
    # Senders repair the loss by repeating everything under the same ids.
    count_up(stack, session_id, range(12))
    assert counted(stack, session_id) == [*applied, *later, *lost]


@pytest.mark.parametrize(
    ("back_up", "restore"),
    [pytest.param(BACKUP, RESTORE, id="session-cli"), pytest.param(BACKUP_BY_HAND, RESTORE_BY_HAND, id="by hand")],
)
def test_senders_complete_a_restored_backup_by_repeating_their_webhooks(
    stack: Stack, session_id: str, tmp_path: Path, back_up: str, restore: str
) -> None:
    environment = operators_environment(stack, tmp_path)
    kept = count_up(stack, session_id, range(5))
    assert counted(stack, session_id) == kept
    run(back_up, environment)

    undone = count_up(stack, session_id, range(5, 10))
    assert counted(stack, session_id) == [*kept, *undone]
    assert read_count(stack, session_id) == 9
    cursor = stack.journal(session_id)[-1]["cursor"]
    stack.stop("worker")
    waiting = count_up(stack, session_id, range(10, 12))
    stack.stop("api")
    run(restore, environment)
    stack.start()

    assert counted(stack, session_id) == [*kept, *waiting]
    assert {status_of(stack, delivery_id) for delivery_id in (*kept, *waiting)} == {"applied"}
    assert {status_of(stack, delivery_id) for delivery_id in undone} == {"delivery_not_found"}
    assert read_count(stack, session_id) == 11
    count_up(stack, session_id, range(12))
    assert counted(stack, session_id) == [*kept, *waiting, *undone]
    assert read_count(stack, session_id) == 9
    # A cursor from before the restore misses no event.
    news = stack.client.get(f"/v1/sessions/{session_id}/events", params={"after": cursor}).json()["items"]
    assert [event["delivery_id"] for event in news if event["event"] == "store_memory"] == [*waiting, *undone]
    assert open_queue(stack.redis).failed_job_registry.count == 0


def read_count(stack: Stack, session_id: str) -> int:
    """Return the count. The read has the same delivery id each time, so a stored outcome may be returned."""
    body: Payload = {"command": "retrieve_memory", "session_id": session_id, "data": {"key": "count"}}
    headers = {"Idempotency-Key": f"{session_id}-read"}
    answer = stack.client.post("/v1/webhook?wait=30", json=body, headers=headers).json()
    return int(answer["data"]["memory"]["content"])


def operators_environment(stack: Stack, folder: Path) -> dict[str, str]:
    """Return the environment for the procedure's commands: the tools, the servers' addresses, and the backup's path."""
    client = folder / "redis-cli"
    client.write_text(REDIS_CLI)
    client.chmod(0o755)
    tools = (folder, ROOT / "bin", postgres_binaries(None, say=silent), Path(sys.executable).parent)
    return {
        **stack.environment,
        "PATH": os.pathsep.join([*map(str, tools), os.environ["PATH"]]),
        "BACKUP": str(folder / "backup"),
    }


def run(commands: str, environment: dict[str, str]) -> None:
    """Run commands as an operator would, up to the first failure."""
    done = subprocess.run(
        ["sh", "-e", "-c", commands], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
