"""Faults of a running stack: each function causes one and ends it. Its caller waits for the recovery."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial

import psutil
import psycopg2
import psycopg2.extensions

from tests.support.processes.stack import envelope, new_id, wait_for
from tests.support.torture.rig import Rig

FAILPOINTS = ("after_read", "before_commit", "after_commit", "after_delete")
DEATH_SECONDS = 60.0
"""The timeout for reaching a failpoint, or for the end of a process."""
STILL_SECONDS = 0.05
"""Longer than a worker's pause between two statements."""

chance = random.Random()

Trouble = Callable[[Rig], None]


def kill_api(rig: Rig) -> None:
    """Kill the app, and start it again."""
    rig.stack.kill("api")
    rig.stack.start("api")


def kill_worker(rig: Rig) -> None:
    """Kill a draining process at a random moment."""
    victim = wait_for(rig.workers, what="any worker process")
    chance.choice(victim).kill()


def kill_sweeper(rig: Rig) -> None:
    """Kill all processes under the supervisor at once, including the sweeper."""
    for process in wait_for(rig.children, what="any child process"):
        process.kill()


def kill_at(failpoint: str, rig: Rig) -> None:
    """Kill the next worker that reaches a failpoint."""
    path = rig.arm(failpoint)
    wait_for(lambda: not path.exists(), seconds=DEATH_SECONDS, what=f"worker killed at {failpoint}")


def kill_valkey(rig: Rig) -> None:
    """Kill Valkey, half of the time while it rewrites its file, and start it again."""
    if chance.random() < 0.5:
        rig.stack.redis.bgrewriteaof()
    rig.valkey.kill()
    _stay_down()
    rig.valkey.restart()


def kill_postgres(rig: Rig) -> None:
    """Kill Postgres with all its processes, and start it again."""
    rig.postgres.kill()
    _stay_down()
    rig.postgres.restart()


def kill_backend(rig: Rig) -> None:
    """Kill one process of Postgres that serves a worker. Postgres then ends all others, and recovers."""
    pids = wait_for(partial(_backends, rig), seconds=DEATH_SECONDS, what="any backend of a worker")
    os.kill(chance.choice(pids), signal.SIGKILL)


def _backends(rig: Rig) -> list[int]:
    with psycopg2.connect(rig.postgres.url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'session-relay worker'")
        pids = [pid for (pid,) in cursor.fetchall()]
    connection.close()
    return pids


def stop_worker(seconds: float, rig: Rig) -> None:
    """Suspend a worker that has an open transaction, for so long."""
    connection = psycopg2.connect(rig.postgres.url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        wait_for(
            partial(_stop_in_transaction, rig, cursor), seconds=DEATH_SECONDS, what="worker suspended in a transaction"
        )
    connection.close()
    time.sleep(seconds)
    for process in rig.workers():
        process.resume()


def _stop_in_transaction(rig: Rig, cursor: psycopg2.extensions.cursor) -> bool:
    """Suspend a worker. Leave it suspended if it has an idle transaction."""
    process = chance.choice(wait_for(rig.workers, what="any worker process"))
    process.suspend()
    time.sleep(2 * STILL_SECONDS)
    cursor.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'session-relay worker'"
        " AND state = 'idle in transaction' AND state_change < clock_timestamp() - %s * interval '1 second'",
        [STILL_SECONDS],
    )
    if (found := cursor.fetchone()) and found[0]:
        return True
    process.resume()
    return False


def stop_valkey(seconds: float, rig: Rig) -> None:
    """Suspend Valkey for so long. It then processes what it was sent meanwhile, when the clients are gone."""
    server = psutil.Process(rig.valkey.pid)
    server.suspend()
    time.sleep(seconds)
    server.resume()


def stop_postgres(seconds: float, rig: Rig) -> None:
    """Suspend Postgres with all its processes for so long."""
    server = psutil.Process(rig.postgres.pid)
    processes = [server, *server.children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    time.sleep(seconds)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


def delete_rq_keys(rig: Rig) -> None:
    """Delete all keys of RQ."""
    if keys := list(rig.stack.redis.scan_iter("rq:*", count=1_000)):
        rig.stack.redis.delete(*keys)


def delete_wake_marks(rig: Rig) -> None:
    """Delete all drain-pending keys."""
    rig.stack.redis.delete(*(f"sr:wake:{shard:02d}" for shard in range(16)))


def fill_memory(rig: Rig) -> None:
    """Leave Valkey no memory until webhooks are refused for it, and a while longer."""
    redis = rig.stack.redis
    used = redis.info("memory")["used_memory"]
    redis.config_set("maxmemory", int(used) // 2)
    wait_for(partial(_refused_for_lack_of_memory, rig), what="webhooks refused")
    _stay_down()
    redis.config_set("maxmemory", "512mb")


def _refused_for_lack_of_memory(rig: Rig) -> bool:
    answer = rig.stack.client.post("/v1/webhook", json=envelope("create_session", new_id(), title="No room"))
    return answer.status_code == 503 and "memory" in answer.json()["error"]["message"]


def kill_supervisor(rig: Rig) -> None:
    """Kill the supervisor. Its processes end by themselves, and all start again."""
    children = wait_for(rig.children, what="any child process")
    rig.stack.kill("worker")
    _, alive = psutil.wait_procs(children, timeout=DEATH_SECONDS)
    assert not alive, "Processes outlived their supervisor."
    rig.stack.start("worker")


def wait_at_random(seconds: float = 0.5) -> None:
    """Wait a random time, so that the fault happens at another moment each time."""
    time.sleep(chance.uniform(0, seconds))


def _stay_down() -> None:
    time.sleep(chance.uniform(0.2, 2))
