"""Redis and Postgres are restarted repeatedly while webhooks arrive."""

from __future__ import annotations

from typing import Literal

import pytest

from tests.support.torture.restarts import restart_under_load
from tests.support.torture.rig import new_rig


@pytest.mark.parametrize("server", ["valkey", "postgres"])
def test_only_webhooks_that_meet_a_stopped_redis_fail_and_the_sweeper_goes_on(
    server: Literal["valkey", "postgres"],
) -> None:
    with new_rig(workers=2) as rig:
        restart_under_load(rig, server, times=3)
