"""The long versions of the restarts: of both servers, and of relays and workers behind haproxy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest

from local.servers.embedded import EmbeddedServer
from tests.support.torture.restarts import restart_under_load
from tests.support.torture.rig import Rig
from tests.support.torture.rolling import new_cluster, roll_behind_haproxy, roll_without_proxy

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3_600)]

ROUNDS = int(os.environ.get("ROUNDS", "20"))


@pytest.mark.parametrize("server", ["valkey", "postgres"])
def test_servers_are_restarted_many_times(server: Literal["valkey", "postgres"], rig: Rig) -> None:
    restart_under_load(rig, server, times=ROUNDS)


def test_relays_and_workers_are_restarted_many_times_behind_haproxy(postgres: EmbeddedServer, tmp_path: Path) -> None:
    with new_cluster(postgres, tmp_path / "cluster") as cluster:
        roll_behind_haproxy(cluster, tmp_path, rounds=ROUNDS)


def test_relays_and_workers_are_restarted_where_senders_try_the_other_relay(
    postgres: EmbeddedServer, tmp_path: Path
) -> None:
    with new_cluster(postgres, tmp_path / "cluster") as cluster:
        roll_without_proxy(cluster)
