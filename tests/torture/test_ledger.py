"""The ledger itself: it must report every kind of error."""

from __future__ import annotations

import psycopg2
import pytest

from tests.support.torture.ledger import Ledger
from tests.support.torture.rig import Rig

pytestmark = [pytest.mark.torture, pytest.mark.timeout(600)]

ONE = "(SELECT event_id FROM events WHERE event = 'store_memory' AND status = 'applied' ORDER BY event_id LIMIT 1)"
COLUMNS = "session_id, event, status, delivery_id, source, created_at, message, data"
WRONGS = {
    "a webhook is lost": f"DELETE FROM events WHERE event_id = {ONE}",
    "a webhook took effect twice": f"INSERT INTO events ({COLUMNS})"
    f" SELECT {COLUMNS} FROM events WHERE event_id = {ONE}",
    "the order is wrong": f"WITH moved AS (DELETE FROM events WHERE event_id = {ONE} RETURNING {COLUMNS})"
    f" INSERT INTO events ({COLUMNS}) SELECT {COLUMNS} FROM moved",
    "a decision is lost": "DELETE FROM deliveries WHERE delivery_id IN"
    f" (SELECT delivery_id FROM events WHERE event_id = {ONE})",
    "the state is wrong": "UPDATE memories SET revision = revision + 1 WHERE key = 'count'",
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_it_reports_that(wrong: str, rig: Rig) -> None:
    ledger = Ledger(rig.stack)
    with ledger.sending():
        pass
    ledger.check()
    with psycopg2.connect(rig.postgres.url) as connection, connection.cursor() as cursor:
        cursor.execute(WRONGS[wrong])
        assert cursor.rowcount
    connection.close()
    with pytest.raises(AssertionError):
        ledger.check()
