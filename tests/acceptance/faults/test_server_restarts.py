"""Redis and Postgres are restarted repeatedly while webhooks arrive."""

from __future__ import annotations

from typing import Literal

import pytest

from tests.support.torture.ledger import EVERYDAY_LOAD
from tests.support.torture.restarts import restart_under_load
from tests.support.torture.rig import Rig


@pytest.mark.parametrize("server", ["valkey", "postgres"])
def test_only_webhooks_that_meet_a_stopped_redis_fail_and_the_sweeper_goes_on(
    rig: Rig, server: Literal["valkey", "postgres"]
) -> None:
    restart_under_load(rig, server, times=2, load=EVERYDAY_LOAD)
