"""The connections of all processes to Postgres fit into its default `max_connections`."""

from __future__ import annotations

import re

import pytest

from api.database import Database, claim_threads
from models.process.capacity import MAX_PROCESSES
from models.settings import Settings
from sessions.api_keys import MAX_CONNECTIONS
from tests.support.project import ROOT

FREE_CONNECTIONS = 100 - 3
"""Postgres reserves three of its hundred for superusers."""
SWEEPER = 1


def connections(processes: int) -> int:
    settings = Settings(database_url="postgresql:///nowhere", relay_processes=processes)
    reads = Database(settings)
    claims = Database(settings, name="claims", threads=claim_threads(settings), relay_threads=0)
    try:
        return processes * (reads.connections + claims.connections + settings.part_of(MAX_CONNECTIONS))
    finally:
        reads.close()
        claims.close()


@pytest.mark.parametrize("processes", range(1, MAX_PROCESSES + 1))
def test_the_relay_leaves_enough_for_all_workers(processes: int) -> None:
    assert connections(processes) + MAX_PROCESSES + SWEEPER <= FREE_CONNECTIONS


def test_the_documents_list_the_connections_of_the_relay() -> None:
    page = (ROOT / "docs" / "CONFIGURATION.md").read_text()
    lines = re.findall(r"^\| (?:`RELAY_PROCESSES`|connections of the relay) ((?:\| \d+ )+)\|$", page, re.MULTILINE)
    head, row = ([int(number) for number in re.findall(r"\d+", line)] for line in lines)
    assert dict(zip(head, row, strict=True)) == {number: connections(number) for number in (1, 2, 4, 8, 16)}
