"""The read time that sources have overspent, shared by all workers: keys in Redis that expire.

A source's debt is the time to live of its key, so it is paid back as time passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from redis import Redis
from redis.exceptions import ResponseError

from sessions.commands.read_time_budget import SHARE

TAKE_SCRIPT = """
for i, key in ipairs(KEYS) do
  redis.call('SET', key, '', 'PX', math.max(0, redis.call('PTTL', key)) + tonumber(ARGV[i]))
end
"""


def owed_seconds(redis: Redis, source: str) -> float:
    """Returns a source's debt in seconds."""
    left_milliseconds: int = redis.pttl(_key(source))
    return max(0, left_milliseconds) / 1000 * SHARE


def add_debts(redis: Redis, taken: Mapping[str, float]) -> None:
    """Add the seconds that sources have used, rounded down. Without memory in Redis debts are dropped: drains must go
    on."""
    if not taken:
        return
    milliseconds = [max(1, int(seconds / SHARE * 1000)) for seconds in taken.values()]
    with suppress(ResponseError):
        redis.eval(TAKE_SCRIPT, len(taken), *map(_key, taken), *map(str, milliseconds))


def _key(source: str) -> str:
    return f"sr:reading:{source}"
