"""The dashboard as a process: sign-in, protection against requests from other sites, and no unpickling."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from models.process.supervision import Child, ChildProcess
from tests.support.ports import free_port
from tests.support.project import ROOT
from worker.dashboard import WRONG_PASSWORDS

PASSWORD = "correct horse – battery"
LIMIT_SECONDS = 30.0


@contextmanager
def running_dashboard(redis_url: str, log: Path, **more: str) -> Iterator[str]:
    """Run a dashboard, and yield its URL."""
    port = free_port()
    given = {"REDIS_URL": redis_url, "DASHBOARD_PORT": str(port), "DASHBOARD_PASSWORD": PASSWORD, **more}
    command = (sys.executable, "-m", "worker.dashboard")
    child = Child(name="dashboard", command=command, environment={**os.environ, **given}, folder=ROOT, log=log)
    running = ChildProcess(child)
    url = f"http://127.0.0.1:{port}"
    limit_at = time.monotonic() + LIMIT_SECONDS
    while not _answers(url):
        assert running.ended() is None, log.read_text()
        assert time.monotonic() < limit_at, log.read_text()
        time.sleep(0.05)
    yield url
    running.stop()


@pytest.fixture(scope="module")
def dashboard(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running dashboard."""
    with running_dashboard(redis_url, tmp_path_factory.mktemp("dashboard") / "log") as url:
        yield url


@pytest.fixture
def client(dashboard: str) -> Iterator[httpx.Client]:
    """A client that is signed in."""
    with httpx.Client(base_url=dashboard, auth=("admin", PASSWORD)) as client:
        yield client


@pytest.fixture
def failed(redis: Redis) -> Job:
    """A job in the failed registry of a queue."""
    queue = Queue("drain", connection=redis, serializer=JSONSerializer)
    description = "drain shard 07: 132 applied, 1 rejected"
    job = Job.create("worker.jobs.anything", [7], connection=redis, serializer=JSONSerializer, description=description)
    job.origin = queue.name
    job.save()
    job.set_status(JobStatus.FAILED)
    redis.sadd(Queue.redis_queues_keys, queue.key)
    FailedJobRegistry(queue=queue).add(job, ttl=-1)
    return job


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 401
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("sign_in", [None, ("admin", "wrong"), ("root", PASSWORD), ("", ""), ("admin", "")])
def test_requests_without_the_password_are_refused(dashboard: str, sign_in: tuple[str, str] | None) -> None:
    for path in ("/", "/0/data/queues.json", "/job/any/requeue", "/static/../favicon.ico", "/nowhere"):
        answer = httpx.get(f"{dashboard}{path}", auth=sign_in)
        assert answer.status_code == 401
        assert answer.text == "Please sign in.\n"
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")


def test_an_address_that_guesses_has_to_wait_and_others_have_not(own_redis_url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_dashboard(own_redis_url, log, TRUSTED_PROXY_HEADER="X-Real-IP") as url, httpx.Client() as client:

        def ask(password: str, address: str) -> httpx.Response:
            return client.get(url, auth=("admin", password), headers={"X-Real-IP": address})

        for number in range(WRONG_PASSWORDS.amount):
            assert ask(f"guess-{number}", f"2001:db8::{number:x}").status_code == 401
        for password in ("guess", PASSWORD):
            refused = ask(password, "2001:db8::ffff")
            assert (refused.status_code, 0 < int(refused.headers["Retry-After"]) <= 600) == (429, True)
        # Without a password nothing is guessed, and nothing counted.
        for _ in range(WRONG_PASSWORDS.amount + 1):
            assert client.get(url, headers={"X-Real-IP": "203.0.113.9"}).status_code == 401
        for address in ("203.0.113.9", "::ffff:203.0.113.9"):
            assert ask(PASSWORD, address).status_code == 200
        # Some proxies add the port of the connection, which is another each time.
        for number in range(WRONG_PASSWORDS.amount):
            assert ask("guess", f"198.51.100.7:{4_000 + number}").status_code == 401
        assert ask(PASSWORD, "198.51.100.7:1").status_code == 429
        for address in ("198.51.100.8:1", "[2001:db8:1::1]:443"):
            assert ask(PASSWORD, address).status_code == 200
        # A header that WSGI would confuse with the proxy's does not change the address.
        forged = {"X-Real-IP": "2001:db8::1", "X_Real_IP": "203.0.113.9"}
        assert client.get(url, auth=("admin", PASSWORD), headers=forged).status_code == 429
    lines = [line for line in log.read_text().splitlines() if "wrong user or password" in line]
    assert "WARNING dashboard: Somebody at 2001:db8::/64 gave a wrong user or password." in lines[0]
    # The first of each address, and at the end the numbers of the others.
    assert len(lines) <= 4
    assert "guess" not in log.read_text()


def test_it_lists_jobs_by_description(client: httpx.Client, failed: Job) -> None:
    assert client.get("/").headers["X-Frame-Options"] == "DENY"
    [queue] = client.get("/0/data/queues.json").json()["queues"]
    assert (queue["name"], queue["count"], queue["failed_job_registry_count"]) == ("drain", 0, 1)
    [job] = client.get("/0/data/jobs/drain/failed/8/asc/1.json").json()["jobs"]
    assert (job["id"], job["description"]) == (failed.id, "drain shard 07: 132 applied, 1 rejected")
    assert client.get(f"/0/view/job/{failed.id}").status_code == 200
    assert client.get(f"/0/data/job/{failed.id}.json").json()["status"] == "failed"
    gone = client.get("/0/data/job/gone.json")
    assert (gone.status_code, gone.text) == (404, "This job no longer exists.\n")


def test_texts_on_its_pages_are_escaped(client: httpx.Client, failed: Job) -> None:
    for path in (f"/0/view/job/{failed.id}", "/0/view/workers"):
        page = client.get(path).text
        assert "<%- d." in page
        assert "<%= d." not in page


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Referer": "http://127.0.0.1:1/page"},
    ],
)
def test_a_page_of_another_site_cannot_requeue_a_job(
    client: httpx.Client, redis: Redis, failed: Job, headers: dict[str, str]
) -> None:
    for path in (f"/job/{failed.id}/requeue", "/requeue/drain", "/queue/drain/compact"):
        answer = client.post(path, headers=headers)
        assert (answer.status_code, answer.text) == (403, "Requests from other sites are rejected.\n")
    assert client.get("/requeue/drain", headers=headers).status_code == 405
    assert client.get("/requeue/drain").status_code == 405
    assert Job.fetch(failed.id, connection=redis, serializer=JSONSerializer).get_status() == "failed"


@pytest.mark.parametrize("path", ["/job/{id}/requeue", "/requeue/drain"])
def test_its_own_page_can_requeue_a_failed_job_but_delete_nothing(
    client: httpx.Client, dashboard: str, redis: Redis, failed: Job, path: str
) -> None:
    own_page = {"Sec-Fetch-Site": "same-origin", "Origin": dashboard, "Referer": f"{dashboard}/0/view/jobs"}
    for deletion in (f"/job/{failed.id}/delete", "/queue/drain/failed/empty"):
        assert client.post(deletion, headers=own_page).json() == {"status": "DISABLED"}
    answer = client.post(path.format(id=failed.id), headers=own_page)
    assert answer.json()["status"] == "OK"
    queue = Queue("drain", connection=redis, serializer=JSONSerializer)
    assert queue.job_ids == [failed.id]
    assert list(queue.jobs[0].args) == [7]
    assert queue.failed_job_registry.count == 0


def test_nothing_from_redis_is_unpickled(client: httpx.Client, redis: Redis, failed: Job, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    trap = pickle.dumps(Trap())
    redis.hset(failed.key, mapping={"data": trap, "meta": trap, "result": trap})
    for path in (f"/0/view/job/{failed.id}", f"/0/data/job/{failed.id}.json", "/0/data/jobs/drain/failed/8/asc/1.json"):
        client.get(path)
    client.post(f"/job/{failed.id}/requeue")
    client.get("/0/data/workers.json")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("missing", ["DASHBOARD_PASSWORD", "REDIS_URL"])
def test_it_refuses_to_start_without_password_or_redis(missing: str) -> None:
    environment = {**os.environ, "DASHBOARD_PASSWORD": "x", "REDIS_URL": "redis://127.0.0.1:1", missing: ""}
    command = [sys.executable, "-m", "worker.dashboard"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"{missing} is not set" in done.stderr
