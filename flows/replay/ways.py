"""The prices that a replay shows its engine inside a candle, as (step, ticks) in the order of time."""

from __future__ import annotations

from collections.abc import Callable

from flows.replay.market import Intrabar, ScoredMarket
from inference.domain.signal import Direction
from infra.sandbox.engine import path

Way = list[tuple[int, int]]


def resting_way(market: ScoredMarket, row: int, place: int) -> Way:
    """
    Return the prices that an entry at rest meets: straight lines over the extreme nearer to the open, at each step.

    A candle that is missing has no prices.
    """
    opened, high, low, close = market.prices[row, place].tolist()
    if not opened:
        return []
    prices = (opened, high, low, close) if path.up_first(opened, high, low) else (opened, low, high, close)
    steps, begins = [], 0
    for part, ends in enumerate(path.corners(market.timeframe_ms // path.STEP_MS)):
        steps += [
            (step, path.between(prices[part], prices[part + 1], step - begins, ends - begins))
            for step in range(begins + 1, ends + 1)
        ]
        begins = ends
    return steps


def holding_way(
    market: ScoredMarket,
    row: int,
    place: int,
    direction: Direction,
    intrabar: Intrabar,
    *,
    stop_ticks: Callable[[int], int],
    after: int = 0,
) -> Way:
    """
    Return the prices that a position meets after a step of a candle; a candle that is missing has none.

    In the bounds these are its extremes and its close, all of them, however late in the candle it was entered.
    `stop_ticks` is asked for the stop of a place where only the bounds need it.
    """
    opened, high, low, close = market.prices[row, place].tolist()
    if not opened:
        return []
    adverse, favourable = (low, high) if direction is Direction.LONG else (high, low)
    match intrabar:
        case Intrabar.PATH:
            return [one for one in resting_way(market, row, place) if one[0] > after]
        case Intrabar.PESSIMISTIC:
            prices = (adverse, favourable, close)
        case Intrabar.OPTIMISTIC:
            stop = stop_ticks(place)
            reaches = adverse <= stop if direction is Direction.LONG else adverse >= stop
            prices = (favourable, stop if reaches else adverse, close)
    corners = path.corners(market.timeframe_ms // path.STEP_MS)
    return [
        (min(max(corner, after + nth), corners[-1]), ticks)
        for nth, (corner, ticks) in enumerate(zip(corners, prices, strict=True), 1)
    ]
