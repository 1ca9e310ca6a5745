"""`/metrics` of real processes: who may read it, what it counts, and what it shows while a server is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from api.operations.metrics import OBSERVED_SECONDS
from local.servers.embedded import EmbeddedServer
from models.queue.metrics import PROCESSES_KEY
from relay.rejections import COUNTS_KEY as REFUSALS_KEY
from relay.rejections import FLUSH_SECONDS
from tests.support.clients.keys import new_key
from tests.support.metrics import Scrape, encoded, parse, scrape, snapshot
from tests.support.processes.serving import Stopwatch
from tests.support.processes.stack import Stack, envelope, in_parallel, new_id, new_stack, wait_for
from tests.support.project import API_KEY
from tests.support.servers import running_postgres, running_valkey

METRICS_KEY = "metrics-key-of-these-tests"
BEARER = {"Authorization": f"Bearer {METRICS_KEY}"}
SETTLED_SECONDS = FLUSH_SECONDS + OBSERVED_SECONDS + 1
"""After this time a scrape shows all that was counted before."""
PAUSE_SECONDS = 0.5
"""The longest pause between two scrapes, which rarely show anything new within it."""


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[EmbeddedServer, EmbeddedServer]]:
    """Postgres and Valkey, which the tests may stop."""
    with running_postgres() as postgres, running_valkey() as valkey:
        yield postgres, valkey


@pytest.fixture(scope="module")
def stack(servers: tuple[EmbeddedServer, EmbeddedServer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two relay processes and two workers."""
    postgres, valkey = servers
    folder = tmp_path_factory.mktemp("metrics")
    own = {"database_url": postgres.url, "redis_url": valkey.url, "workers": 2}
    with new_stack(postgres, folder, **own, RELAY_PROCESSES="2", METRICS_KEY=METRICS_KEY) as stack:  # type: ignore[arg-type]
        yield stack


@pytest.fixture
def scraper(stack: Stack) -> Iterator[httpx.Client]:
    """A client with METRICS_KEY alone, as Prometheus has it. It keeps no connection, so that any process may answer."""
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=stack.url, headers=BEARER, timeout=30, limits=limits) as client:
        yield client


def wait_for_scrape(client: httpx.Client, name: str, expected: float, *, seconds: float = 30, **labels: str) -> Scrape:
    """Scrape until a sample has that value."""
    found: list[Scrape] = []

    def came() -> bool:
        found.append(scrape(client))
        return found[-1].value(name, **labels) == expected

    try:
        wait_for(came, seconds=seconds, what=f"{name} {labels} of {expected:g}", longest_pause_seconds=PAUSE_SECONDS)
    except AssertionError as error:
        error.add_note(f"It was {found[-1].value(name, **labels)}.")
        raise
    return found[-1]


# Access


def test_only_the_metrics_key_and_keys_of_admins_may_read_them(stack: Stack) -> None:
    keys = {
        "reader": new_key(stack, scopes=["read"]),
        "narrow": new_key(stack, scopes=["admin"], sessions="walk-*"),
        "admin": new_key(stack, scopes=["admin"]),
        "none": "",
        "wrong": METRICS_KEY + "x",
        "wide": "ключ",
        "API_KEY": API_KEY,
        "METRICS_KEY": METRICS_KEY,
    }
    expected = {
        "reader": 403,
        "narrow": 403,
        "admin": 200,
        "none": 401,
        "wrong": 401,
        "wide": 401,
        "API_KEY": 200,
        "METRICS_KEY": 200,
    }

    def statuses() -> dict[str, int]:
        return {
            name: httpx.get(f"{stack.url}/metrics", headers={b"X-API-Key": key.encode()} if key else {}).status_code
            for name, key in keys.items()
        }

    wait_for(lambda: statuses() == expected, what=f"{expected}")
    assert httpx.get(f"{stack.url}/metrics", headers=BEARER).status_code == 200
    signed = {"webhook-id": "a", "webhook-timestamp": "1", "webhook-signature": "v1,x"}
    assert httpx.get(f"{stack.url}/metrics", headers=signed).status_code in (401, 403)


def test_the_metrics_key_opens_nothing_else(stack: Stack) -> None:
    for path in ("/v1/status", "/v1/sessions", "/v1/keys", "/v1/refusals"):
        assert httpx.get(f"{stack.url}{path}", headers=BEARER).status_code == 401, path
    body = envelope("create_session", new_id(), title="x")
    assert httpx.post(f"{stack.url}/v1/webhook", headers=BEARER, json=body).status_code == 401
    assert httpx.post(f"{stack.url}/mcp", headers=BEARER, json={}).status_code == 401


def test_parameters_are_refused(scraper: httpx.Client) -> None:
    assert scraper.get("/metrics?name=x").status_code == 422


# Contents


def test_a_real_scrape_has_exactly_the_names_that_alerts_and_dashboards_are_checked_against(
    scraper: httpx.Client, stack: Stack
) -> None:
    stack.redis.config_set("maxmemory", 10**9)
    shown = wait_for_scrape(scraper, "redis_memory_limit_bytes", 10**9)
    stack.redis.config_set("maxmemory", 0)
    assert parse(encoded(snapshot())).names - shown.names <= {
        "session_relay_search_by_meaning",
        "session_relay_passages_to_embed",
    }
    assert shown.names - parse(encoded(snapshot())).names == set()
    answer = scraper.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    assert scraper.get("/metrics").headers["content-type"].startswith("text/plain; version=")


def test_webhooks_of_all_processes_are_counted_once(stack: Stack, scraper: httpx.Client) -> None:
    time.sleep(SETTLED_SECONDS)
    before = scrape(scraper)
    session_id = new_id()
    stack.send("create_session", session_id, title="Counted")
    ids = [new_id("delivery") for _ in range(40)]

    def post(delivery_id: str) -> int:
        with stack.new_client() as client:
            headers = {"Idempotency-Key": delivery_id}
            body = envelope("store_memory", session_id, key=delivery_id, content=1)
            return client.post("/v1/webhook", json=body, headers=headers).status_code

    assert set(in_parallel(post, ids, threads=8)) == {202}
    assert set(in_parallel(post, ids[:10], threads=8)) == {202}
    assert stack.try_send("rename_session", new_id(), title="Unknown").status_code == 404
    for _ in range(3):
        assert stack.client.post("/v1/webhook", json={"command": "no_such_command"}).status_code == 422
    stack.wait_until_drained()

    def grown(name: str, **labels: str) -> float:
        return (after.value(name, **labels) or 0) - (before.value(name, **labels) or 0)

    accepted = (before.value("webhooks_accepted_total") or 0) + 42
    wait_for_scrape(scraper, "webhooks_accepted_total", accepted)
    repeated = (before.value("webhooks_repeated_total") or 0) + 10
    after = wait_for_scrape(scraper, "webhooks_repeated_total", repeated)
    assert grown("accept_seconds_count") == 42 + grown("webhooks_repeated_total")
    refused = (before.value("requests_refused_total", cause="schema") or 0) + 3
    after = wait_for_scrape(scraper, "requests_refused_total", refused, cause="schema")
    assert grown("deliveries_decided_total", status="applied") == 41
    assert grown("deliveries_decided_total", status="rejected") == 1
    assert grown("apply_seconds_count") == 42
    assert grown("drain_entries_sum") == 42
    pushed = (before.value("push_entries_sum") or 0) + 52
    after = wait_for_scrape(scraper, "push_entries_sum", pushed)
    assert 0 < grown("apply_seconds_sum") < 42 * 30


def test_waiting_senders_and_claims_of_all_processes_are_shown(stack: Stack, scraper: httpx.Client) -> None:
    session_id = new_id()
    stack.send("create_session", session_id, title="Waiting")
    task = {"session_id": session_id, "task_id": "t", "description": "Look it up", "agent_name": "nobody"}
    stack.client.post("/v1/commands/delegate_task", json=task).raise_for_status()

    def wait_for_task(_: int) -> int:
        with stack.new_client() as client:
            body = {"session_id": session_id, "task_id": "t", "wait": 10}
            return client.post("/v1/commands/get_task?wait=10", json=body).status_code

    def claim(number: int) -> int:
        with stack.new_client() as client:
            body = {"agent_name": f"idle-{number}", "worker": "w", "wait": 10}
            return client.post("/v1/tasks/claim", json=body).status_code

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(wait_for_task, number) for number in range(4)]
        claims = [pool.submit(claim, number) for number in range(3)]
        shown = wait_for_scrape(scraper, "waiting_senders", 4)
        shown = wait_for_scrape(scraper, "waiting_claims", 3)
        assert (shown.value("connections") or 0) >= 7
        # An earlier test may have killed a process, whose successor tells its numbers later.
        shown = wait_for_scrape(scraper, "database_threads", 16, pool="reads")
        assert shown.value("processes") == 2
        stack.send("cancel_task", session_id, task_id="t")
        assert {done.result() for done in waiting} == {200}
        assert {done.result() for done in claims} == {204}
    wait_for_scrape(scraper, "waiting_senders", 0)


def test_a_process_that_was_killed_counts_no_more_and_its_counts_stay(stack: Stack, scraper: httpx.Client) -> None:
    accepted = wait_for_scrape(scraper, "processes", 2).value("webhooks_accepted_total") or 0
    before = set(stack.redis.hkeys(PROCESSES_KEY))
    psutil.Process(stack.pid("api")).children()[0].kill()

    def is_replaced() -> bool:
        names = set(stack.redis.hkeys(PROCESSES_KEY))
        return len(names) == 2 and len(names - before) == 1

    wait_for(is_replaced, seconds=60, what="the killed process forgotten, and another one there")
    shown = wait_for_scrape(scraper, "processes", 2)
    assert (shown.value("webhooks_accepted_total") or 0) >= accepted


# Servers


def test_many_scrapes_cost_the_servers_one_look(stack: Stack) -> None:
    """Scrapes within a few seconds get the same numbers, so they change later."""
    with stack.new_client() as client:  # One connection, and so one process.

        def count() -> float:
            return scrape(client).value("requests_refused_total", cause="too_slow") or 0

        def add() -> float:
            stack.redis.hincrby(REFUSALS_KEY, "too_slow", 1)
            return count()

        before = add()
        shown = wait_for(lambda: (found := add()) > before and found, what="a new look")
        watch, seen = Stopwatch(), [add()]
        while watch.seconds < OBSERVED_SECONDS / 2:
            time.sleep(0.05)
            seen.append(add())
        assert len(seen) > 1
        assert set(seen) == {shown}
        wait_for(lambda: count() >= before + len(seen), what="another look", longest_pause_seconds=PAUSE_SECONDS)


def test_a_postgres_that_is_away_leaves_out_its_numbers(
    stack: Stack, servers: tuple[EmbeddedServer, EmbeddedServer], scraper: httpx.Client
) -> None:
    wait_for_scrape(scraper, "postgres_up", 1)
    servers[0].pause()
    try:
        shown = wait_for_scrape(scraper, "postgres_up", 0)
        assert shown.value("redis_up") == 1
        assert shown.value("accepting") == 1
        assert shown.value("dead_letters") is None
        assert shown.value("claims") is None
        assert shown.value("webhooks_accepted_total") is not None
    finally:
        servers[0].restart()
    wait_for_scrape(scraper, "dead_letters", 0)


@pytest.mark.parametrize("server", ["postgres", "redis"])
def test_a_server_that_hangs_delays_a_scrape_by_a_few_seconds(
    stack: Stack, servers: tuple[EmbeddedServer, EmbeddedServer], scraper: httpx.Client, server: str
) -> None:
    main = psutil.Process(servers[server == "redis"].pid)
    processes = [main, *main.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        watch = Stopwatch()
        shown = wait_for_scrape(scraper, f"{server}_up", 0, seconds=20)
        other = "redis_up" if server == "postgres" else "postgres_up"
        assert shown.value(other) == 1
        watch = Stopwatch()
        scrape(scraper)
        assert watch.seconds < 6
    finally:
        for process in processes:
            process.resume()
    wait_for_scrape(scraper, f"{server}_up", 1)


def test_a_redis_that_is_away_leaves_out_its_numbers(
    stack: Stack, servers: tuple[EmbeddedServer, EmbeddedServer], scraper: httpx.Client
) -> None:
    before = wait_for_scrape(scraper, "redis_up", 1)
    errors = before.value("server_errors_total", status="503") or 0
    servers[1].pause()
    try:
        shown = wait_for_scrape(scraper, "redis_up", 0)
        assert shown.value("postgres_up") == 1
        wait_for_scrape(scraper, "accepting", 0)
        assert shown.value("webhooks_accepted_total") is None
        assert shown.value("backlog_entries", shard="00") is None
        body = envelope("create_session", new_id(), title="x")
        assert [stack.client.post("/v1/webhook", json=body).status_code for _ in range(3)] == [503] * 3
    finally:
        servers[1].restart()
    wait_for(lambda: stack.client.get("/readyz").status_code == 200, what="ready")
    after = wait_for_scrape(scraper, "redis_up", 1)
    wait_for(lambda: (scrape(scraper).value("server_errors_total", status="503") or 0) >= errors + 3, what="counted")
    assert (after.value("webhooks_accepted_total") or 0) >= (before.value("webhooks_accepted_total") or 0)
