"""The ids of deliveries."""

from __future__ import annotations

import time
import uuid

import pytest

from models.commands.content_ids import make_uuid7
from models.errors import Invalid
from relay.delivery_ids import choose_delivery_id


def test_the_header_takes_precedence_over_the_body() -> None:
    assert choose_delivery_id("from-header", "from-body") == "from-header"
    assert choose_delivery_id(None, "from-body") == "from-body"


def test_quotes_around_the_header_are_ignored() -> None:
    assert choose_delivery_id('"8e03978e-40d5"', None) == "8e03978e-40d5"


@pytest.mark.parametrize("header", ["", "../x", "a b", "a" * 129, "ä", '"', '""', ".a", "a\n"])
def test_an_invalid_id_in_the_header_is_refused(header: str) -> None:
    with pytest.raises(Invalid) as caught:
        choose_delivery_id(header, None)
    assert caught.value.field == "Idempotency-Key"


def test_without_an_id_a_uuid_of_version_7_is_made() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(choose_delivery_id(None, None))
    after = time.time_ns() // 1_000_000
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert before <= made.int >> 80 <= after


def test_generated_ids_differ() -> None:
    assert len({make_uuid7() for _ in range(1000)}) == 1000
