"""The settings of rate limits, and the errors for invalid ones."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from models.errors import SettingsError
from models.settings import Settings
from relay.limits.rate_limiter import RateLimitStatus, SourceQuota, Window
from relay.limits.request_rates import RequestRates, parse_limit, rate_headers
from relay.redis_client import open_redis


@pytest.mark.parametrize(
    ("text", "amount", "seconds"),
    [
        ("600/minute", 600, 60),
        ("1/second", 1, 1),
        ("10 per 5 minutes", 10, 300),
        ("1000000000000/day", 10**12, 86_400),
        ("5/HOUR", 5, 3_600),
    ],
)
def test_a_limit_consists_of_a_number_and_a_period(text: str, amount: int, seconds: int) -> None:
    limit = parse_limit("RATE_LIMIT", text, example="600/minute")
    assert (limit.amount, limit.get_expiry()) == (amount, seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "600",
        "x/minute",
        "600/fortnight",
        "-1/minute",
        "0/minute",
        "6.5/minute",
        "5/minute;100/hour",
        "9" * 20 + "/day",
    ],
)
def test_an_invalid_limit_is_refused_with_the_setting_and_an_example(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        RequestRates(Redis(), Settings(rate_limit=text))
    assert caught.value.message.startswith("RATE_LIMIT is not valid")
    assert "600/minute" in caught.value.message
    with pytest.raises(SettingsError, match=r"BYTE_LIMIT is not valid.*100000000/minute"):
        RequestRates(Redis(), Settings(byte_limit=text))


def test_a_limit_of_bytes_below_the_largest_body_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"BYTE_LIMIT is 1000/minute.*MAX_BODY_BYTES"):
        RequestRates(Redis(), Settings(byte_limit="1000/minute"))


def test_a_rate_limit_status_has_three_headers() -> None:
    assert rate_headers(RateLimitStatus(limit=600, remaining=7, reset_seconds=42)) == [
        (b"ratelimit-limit", b"600"),
        (b"ratelimit-remaining", b"7"),
        (b"ratelimit-reset", b"42"),
    ]


@pytest.mark.parametrize("url", ["redis://u:p@h:1/2", "rediss://h:1/0", "unix:///tmp/no.sock?db=3"])
def test_any_redis_url_is_accepted(url: str) -> None:
    RequestRates(open_redis(url, connections=1), Settings())


def test_usage_fades_during_the_next_window() -> None:
    fresh = Window(seconds=60, before=0, before_seconds=0, now=10, now_seconds=15)
    assert fresh.used == 10
    assert fresh.free_seconds(1) == 15  # The end of the window; then one after the other.
    assert fresh.free_seconds(2) == 15 + 6
    later = Window(seconds=60, before=10, before_seconds=33, now=3, now_seconds=33)
    assert later.used == 5 + 3
    assert later.free_seconds(1) == 3  # 5.5 counts as 5; below 5, one more is free.
    assert later.free_seconds(5) == 27
    assert later.free_seconds(6) == 33
    assert later.free_seconds(7) == 33 + 20
    assert Window(seconds=60, before=0, before_seconds=0, now=0, now_seconds=0).free_seconds(1) == 0


def test_a_source_reserves_by_how_soon_and_how_far_it_spent_its_last_block() -> None:
    quota = SourceQuota()
    quota.block, quota.in_hand, quota.reserved_at = 64, 64, 100.0
    quota.held_until = 101.0
    assert all(quota.spend(1, now=100.1) for _ in range(40))
    assert quota.next_block(100.1) == 128
    assert quota.next_block(101.1) == 40
    assert quota.next_block(103.0) == 0
