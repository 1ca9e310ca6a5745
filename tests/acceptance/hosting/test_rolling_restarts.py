"""Restarts of two relays and two workers, one after the other: no request fails, and nothing is lost or reordered."""

from __future__ import annotations

from pathlib import Path

from local.servers.embedded import EmbeddedServer
from tests.support.torture.ledger import EVERYDAY_LOAD
from tests.support.torture.rolling import HAPROXY, new_cluster, roll_behind_haproxy, roll_without_proxy


def test_no_request_fails_behind_haproxy_or_without_a_proxy(postgres: EmbeddedServer, folder: Path) -> None:
    with new_cluster(postgres, folder) as cluster:
        if HAPROXY:
            roll_behind_haproxy(cluster, folder, rounds=1, load=EVERYDAY_LOAD)
        else:
            roll_without_proxy(cluster, load=EVERYDAY_LOAD)
