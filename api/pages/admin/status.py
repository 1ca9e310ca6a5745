"""The state of the relay: what waits in each shard and since when, the servers, and the last hour's throughput."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from api.operations.status import Status
from api.operations.throughput import Period, Throughput
from api.pages.rendering import render
from api.pages.visitors import Visitor
from models.errors import Unavailable
from models.timestamps import format_utc
from relay.http.query_parameters import NoParameters, decode_parameters

PLOT_WIDTH, PLOT_HEIGHT = 3_600, 100
"""The plot has a unit per second, and scales to the screen."""
STEPS = (1, 2, 5)
"""The first digits of the plot's upper end."""
KINDS = ("applied", "rejected", "failed")
"""The parts of a bar, from its foot up."""


class Bar(NamedTuple):
    """A rectangle of the plot."""

    kind: str
    x: int
    y: float
    width: int
    height: float


class Plot(NamedTuple):
    """The last hour's throughput, in units of the drawing."""

    top: int
    """The rate per minute at the upper end."""
    bars: list[Bar]
    line: str
    """The points of what was accepted."""
    totals: dict[str, int]
    minutes: int


class StatusPage:
    """The page."""

    def __init__(self, *, status: Status, throughput: Throughput) -> None:
        self._status = status
        self._throughput = throughput

    async def show(self, request: Request, visitor: Visitor) -> Response:
        """Show the state. Raises Forbidden like the API; without Redis or Postgres it shows what is left."""
        decode_parameters(request.query_params, NoParameters)
        observed = await self._status.content(visitor.caller)
        try:
            periods = await self._throughput.read()
        except Unavailable:
            periods = []
        return render(
            "admin/status.html",
            visitor=visitor,
            observed=observed,
            plot=draw(periods) if periods else None,
            periods=[_describe(period) for period in reversed(periods)],
            shards=_waiting(observed),
        )


def draw(periods: Sequence[Period]) -> Plot:
    """Draw the periods: bars of what was decided, and a line of what was accepted."""
    rates = [[period.per_minute(getattr(period, kind)) for kind in KINDS] for period in periods]
    accepted = [period.per_minute(period.accepted) for period in periods]
    top = _round_up(max([*accepted, *map(sum, rates)]))
    ends_at = periods[-1].begun_at + timedelta(seconds=periods[-1].seconds)
    bars: list[Bar] = []
    points: list[str] = []
    for period, parts, rate in zip(periods, rates, accepted, strict=True):
        x = PLOT_WIDTH - round((ends_at - period.begun_at).total_seconds())
        y = float(PLOT_HEIGHT)
        for kind, part in zip(KINDS, parts, strict=True):
            height = round(part * PLOT_HEIGHT / top, 1)
            y = round(y - height, 1)
            if height:
                bars.append(Bar(kind, x, y, period.seconds, height))
        level = round(PLOT_HEIGHT - rate * PLOT_HEIGHT / top, 1)
        points += [f"{x},{level}", f"{x + period.seconds},{level}"]
    totals = {kind: sum(getattr(period, kind) for period in periods) for kind in ("accepted", *KINDS)}
    minutes = max(round(sum(period.seconds for period in periods) / 60), 1)
    return Plot(top, bars, " ".join(points), totals, minutes)


def _round_up(rate: float) -> int:
    """Return the next number of 1, 2 or 5 with zeros."""
    power = 1
    while True:
        for step in STEPS:
            if step * power >= rate:
                return step * power
        power *= 10


def _describe(period: Period) -> dict[str, Any]:
    counts = {kind: getattr(period, kind) for kind in ("accepted", *KINDS)}
    return {"at": format_utc(period.begun_at), "seconds": period.seconds, **counts}


def _waiting(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the shards with waiting commands, each with the time since when its oldest waits."""
    inbox = status["inbox"] or {"shards": []}
    return [
        item | {"since": format_utc(status["now"] - timedelta(seconds=item["oldest_seconds"] or 0))}
        for item in inbox["shards"]
        if item["waiting"]
    ]
