"""A poison command among a thousand others in a hot shard: only it becomes a dead letter, and it is applied once its
cause is fixed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import psycopg2
import pytest
from rq.job import Job
from rq.serializers import JSONSerializer

from local.servers.embedded import EmbeddedServer
from models.queue.job_queue import QUEUE, open_queue
from tests.support.ports import free_port
from tests.support.processes.stack import Payload, Stack, envelope, in_parallel, new_id, new_stack, wait_for
from tests.support.project import IS_LONG
from tests.support.servers import execute

SENDERS = 10
CONTENT = "what somebody said"
PASSWORD = "correct horse"
POISON = """
DROP FUNCTION IF EXISTS poison CASCADE;
CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF new.key = '{key}' THEN RAISE EXCEPTION 'cannot store %', new.content; END IF;
    RETURN new;
END $$;
CREATE TRIGGER poison BEFORE INSERT ON memories FOR EACH ROW EXECUTE FUNCTION poison()
"""


@pytest.fixture(scope="module")
def hot(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with a dashboard."""
    settings = {"DASHBOARD_PORT": str(free_port()), "DASHBOARD_PASSWORD": PASSWORD}
    with new_stack(postgres, tmp_path_factory.mktemp("hot"), workers=2, **settings) as stack:
        stack.start("worker.dashboard")
        yield stack


@pytest.fixture(scope="module")
def dashboard(hot: Stack) -> Iterator[httpx.Client]:
    """A client that is signed in to the dashboard."""
    url = f"http://127.0.0.1:{hot.environment['DASHBOARD_PORT']}"
    with httpx.Client(base_url=url, auth=("admin", PASSWORD)) as client:
        wait_for(lambda: client.get("/").status_code == 200, what="dashboard responding")
        yield client


def replay_over_http(stack: Stack, dashboard: httpx.Client, delivery_id: str) -> int:
    return stack.client.post(f"/v1/dead-letters/{delivery_id}/replay").status_code


def requeue_in_dashboard(stack: Stack, dashboard: httpx.Client, delivery_id: str) -> int:
    jobs = failed_jobs(dashboard)
    return dashboard.post(f"/job/{jobs[0]['id']}/requeue").status_code if jobs else 404


@pytest.mark.parametrize(
    ("each", "replay", "who", "done", "again"),
    # The sweeper may still show the job for a second. Requeuing it replays nothing.
    [
        (100, replay_over_http, "default", 202, {404}),
        (100 if IS_LONG else 10, requeue_in_dashboard, "dashboard", 200, {404, 200}),
    ],
    ids=["over http", "in the dashboard"],
)
def test_one_poison_command_among_a_thousand_is_isolated_and_applied_once_when_fixed(
    hot: Stack,
    dashboard: httpx.Client,
    each: int,
    replay: Callable[[Stack, httpx.Client, str], int],
    who: str,
    done: int,
    again: set[int],
) -> None:
    session_id, sender, number = new_id("hot"), 4, each // 2
    key = f"k{sender}-{number}"
    execute(hot.environment["DATABASE_URL"], POISON.replace("{key}", key))
    hot.send("create_session", session_id, title="Hot")
    sent = send_all(hot, session_id, each)
    hot.wait_until_drained()
    poison = sent[sender][number]
    others = [delivery_id for ids in sent for delivery_id in ids if delivery_id != poison]

    assert each < 100 or was_drained_meanwhile(hot, session_id)
    story = journal(hot, session_id)
    assert Counter(story) == Counter({("failed", poison): 1, **{("applied", one): 1 for one in others}})
    for ids in sent:
        assert [delivery_id for _, delivery_id in story if delivery_id in ids] == ids
    listed = hot.client.get("/v1/deliveries", params={"status": "failed"}).json()["items"]
    assert [item["delivery_id"] for item in listed] == [poison]
    assert hot.client.get(f"/v1/sessions/{session_id}").json()["stats"]["memories"] == len(others)
    check_failed_list(hot, dashboard, poison, session_id)

    execute(hot.environment["DATABASE_URL"], "DROP FUNCTION poison CASCADE")
    assert replay(hot, dashboard, poison) == done
    wait_for(lambda: hot.client.get(f"/v1/deliveries/{poison}").json()["status"] == "applied", what="applied")
    wait_for(lambda: open_queue(hot.redis).failed_job_registry.count == 0, what="no dead letter left")
    assert replay(hot, dashboard, poison) in again
    hot.wait_until_drained()
    assert journal(hot, session_id) == [*story, ("applied", poison)]
    last = hot.journal(session_id)[-1]
    assert (last["data"]["key"], last["data"]["replayed_by"]) == (key, who)
    memory = hot.send("retrieve_memory", session_id, key=key)["data"]["memory"]
    assert (memory["content"], memory["revision"]) == ([CONTENT, number], 1)


def send_all(stack: Stack, session_id: str, each: int) -> list[list[str]]:
    """Send so many commands of each sender, those of each sender in order. Returns each sender's delivery ids."""

    def play(sender: int) -> list[str]:
        with stack.new_client() as client:
            answers = [
                client.post(
                    "/v1/webhook",
                    json=envelope("store_memory", session_id, key=f"k{sender}-{number}", content=[CONTENT, number]),
                )
                for number in range(each)
            ]
        assert {answer.status_code for answer in answers} == {202}
        return [answer.json()["delivery_id"] for answer in answers]

    return list(in_parallel(play, range(SENDERS)))


def was_drained_meanwhile(stack: Stack, session_id: str) -> bool:
    """Return whether some commands were applied before others were accepted."""
    with psycopg2.connect(stack.environment["DATABASE_URL"]) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT min(decided_at) < max(accepted_at) FROM deliveries"
            " WHERE command = 'store_memory' AND session_id = %s",
            [session_id],
        )
        row = cursor.fetchone()
    connection.close()
    return row == (True,)


def journal(stack: Stack, session_id: str) -> list[tuple[str, str]]:
    """Return status and delivery id of each memory's event, in order."""
    events = stack.journal(session_id)
    return [(event["status"], event["delivery_id"]) for event in events if event["event"] == "store_memory"]


def failed_jobs(dashboard: httpx.Client) -> list[Payload]:
    jobs: list[Payload] = dashboard.get(f"/0/data/jobs/{QUEUE}/failed/8/asc/1.json").json()["jobs"]
    return jobs


def check_failed_list(stack: Stack, dashboard: httpx.Client, poison: str, session_id: str) -> None:
    """Check that RQ's failed list and its page show the poison command with its traceback, but no content."""
    registry = open_queue(stack.redis).failed_job_registry
    wait_for(lambda: registry.count == 1, what="one failed job")
    [job_id] = registry.get_job_ids()
    job = Job.fetch(job_id, connection=stack.redis, serializer=JSONSerializer)
    assert (job.args, job.kwargs) == (["default", poison], {})
    about = {"source": "default", "delivery_id": poison, "command": "store_memory", "session_id": session_id}
    assert job.meta == about
    result = job.latest_result()
    assert result is not None
    trace = str(result.exc_string)
    assert trace.startswith("Traceback")
    assert "RaiseException P0001" in trace
    [shown] = failed_jobs(dashboard)
    description = f"dead letter {poison} of default: store_memory in {session_id}"
    assert (shown["id"], shown["description"]) == (job_id, description)
    assert job_id.startswith("dead-letter-")
    page = dashboard.get(f"/0/data/job/{job_id}.json")
    assert page.json()["status"] == "failed"
    assert json.loads(page.json()["metadata"]) == about
    assert "RaiseException P0001" in page.json()["exc_info"]
    assert dashboard.get(f"/0/view/job/{job_id}").status_code == 200
    for text in (trace, job.description, page.text):
        assert CONTENT not in str(text)
