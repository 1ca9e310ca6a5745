"""A server that keeps connections open and does not respond: its clients do not wait forever."""

from __future__ import annotations

import psutil
import psycopg2
import pytest

from models.queue.inbox import drain_pending_key, shard_of
from tests.support.processes.stack import new_id, wait_for
from tests.support.torture.rig import Rig

pytestmark = [pytest.mark.torture, pytest.mark.timeout(600)]

MENDED_SECONDS = 90.0
"""A hanging process is ended after a minute, and restarted."""


def test_shards_are_woken_although_the_sweepers_query_hangs(rig: Rig) -> None:
    stack = rig.stack
    session_id = new_id("hung")
    stack.send("create_session", session_id, title="Hung")
    backend = psutil.Process(_backend(rig, "session-relay sweeper"))
    backend.suspend()
    try:
        # As if a queued drain had died: only the sweeper can enqueue another one for the shard.
        wait_for(lambda: stack.redis.set(drain_pending_key(shard_of(session_id)), "1", nx=True, ex=5), what="drained")
        receipt = stack.post("store_memory", session_id, key="k", content="kept")
        stack.wait_until_drained(seconds=MENDED_SECONDS)
        assert stack.client.get(f"/v1/deliveries/{receipt['delivery_id']}").json()["status"] == "applied"
    finally:
        backend.resume()


def _backend(rig: Rig, application_name: str) -> int:
    with psycopg2.connect(rig.postgres.url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE application_name = %s", [application_name])
        rows = cursor.fetchall()
    connection.close()
    assert len(rows) == 1
    return int(rows[0][0])
