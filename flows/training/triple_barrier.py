"""What became of each candle's trade under the exit rules that really trade: stop, target, or time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

import numpy as np
import numpy.typing as npt

from feature_store.candle import CandleBlock
from feature_store.errors import BadInputError
from flows.training.costs import Funding, TradingCosts, net_of_costs
from inference.domain.exit_profile import BUILT_IN, ExitProfile
from inference.domain.policy import Policy
from inference.exits.barriers import time_barrier_ms
from inference.policy.exit_profiles import usable_exit_profile

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]
Places = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]


class Touched(IntEnum):
    """Which barrier ended a trade; UNKNOWN while none has, and where no trade could be entered."""

    UNKNOWN = 0
    STOP = 1
    TARGET = 2
    TIME = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BarrierRule:
    """The part of a policy that ends trades, as floats; without a tick, prices are not rounded."""

    stop_atr_multiple: float
    target_atr_multiple: float
    holding_candles: int
    price_tick: float = 0.0

    def __post_init__(self) -> None:
        """Refuse barriers that lie nowhere."""
        sizes = (self.stop_atr_multiple, self.target_atr_multiple)
        if not (np.isfinite(sizes).all() and min(sizes) > 0 and self.holding_candles >= 1 and self.price_tick >= 0):
            raise BadInputError(f"Barriers need positive multiples, at least one candle and no negative tick: {self}")

    @classmethod
    def of(
        cls,
        policy: Policy,
        *,
        timeframe_ms: int,
        price_tick: float = 0.0,
        exits: Mapping[str, ExitProfile] = BUILT_IN,
    ) -> Self:
        """
        Return the barriers of a policy; how long it holds is asked of the rule that the worker asks.

        Of an exit profile these are its first stop, its nearest target and its time.

        Raises:
            PolicyError: The policy names a profile that is none of `exits`.
        """
        profile = usable_exit_profile(policy, exits)
        if profile is not None:
            return cls(
                stop_atr_multiple=float(profile.stop_atr),
                target_atr_multiple=float(profile.target_multiples[0]),
                holding_candles=profile.time_stop_candles or policy.max_holding_candles,
                price_tick=price_tick,
            )
        held_ms = time_barrier_ms(0, policy=policy, timeframe_ms=timeframe_ms)
        return cls(
            stop_atr_multiple=float(policy.stop_atr_multiple),
            target_atr_multiple=float(policy.target_atr_multiple),
            holding_candles=held_ms // timeframe_ms,
            price_tick=price_tick,
        )


@dataclass(frozen=True, slots=True, eq=False)
class BarrierLabels:
    """
    One trade for each candle that could have decided one.

    `held` counts candles from the entry's to the exit's, both included; `end_ms` is the close of the last of them,
    the moment from which the label is known. 0 and -1 where it is not. `result` is 1 at the target, -1 at the stop,
    0 at the time barrier, and NaN, as the returns are, where nothing is known.
    """

    touched: npt.NDArray[np.int8]
    held: npt.NDArray[np.int32]
    end_ms: Times
    exit_price: Floats
    gross_log_return: Floats
    net_log_return: Floats

    @property
    def result(self) -> Floats:
        """The outcome as one number."""
        return np.array([np.nan, -1.0, 1.0, 0.0])[self.touched]


def barrier_prices(crossed: Floats, atr: Floats, rule: BarrierRule, direction: int) -> tuple[Floats, Floats]:
    """
    Return stop and target around the prices at which trades are entered, NaN where there can be none.

    As `inference.exits.barriers` does on decimals; the two differ by a tick at most, and only where a price lies
    halfway between two ticks.
    """
    stop = _on_ticks(crossed - direction * rule.stop_atr_multiple * atr, rule.price_tick)
    target = _on_ticks(crossed + direction * rule.target_atr_multiple * atr, rule.price_tick)
    with np.errstate(invalid="ignore"):
        usable = (np.minimum(stop, target) > 0) & (direction * stop < direction * crossed)
        usable &= direction * crossed < direction * target
    return np.where(usable, stop, np.nan), np.where(usable, target, np.nan)


def triple_barrier(
    block: CandleBlock,
    atr: Floats,
    rule: BarrierRule,
    *,
    direction: int,
    costs: TradingCosts,
    timeframe_ms: int,
    funding: Funding | None = None,
) -> BarrierLabels:
    """
    Enter at the open after each candle, and leave where the rules of the worker leave.

    Inside one candle the order of prices is not known, except that the open comes first: a candle that opens beyond
    a barrier fills there, at its open; of a candle that touches both, the stop counts. The time barrier leaves at the
    close of the last candle held. Nothing is known of a trade before its last candle has closed, nor where a candle
    is missing on the way to it.

    Args:
        block: Closed candles, oldest first.
        atr: Average true range at each candle, in price units, as the worker reads it at that candle's close.
        rule: Where the barriers are.
        direction: 1 for long, -1 for short.
        costs: Of one side; the entry crosses half a spread before the barriers are placed.
        timeframe_ms: Length of a candle.
        funding: Rates at the boundaries that positions are held over, if any.
    """
    n, times = len(block), block.open_time_ms
    touched, held = np.zeros(n, np.int8), np.zeros(n, np.int32)
    price, until_ms = np.full(n, np.nan), np.full(n, -1, np.int64)
    opened, high, low, close = (np.ascontiguousarray(column) for column in block.values[:, :4].T)
    entry = np.append(opened[1:], np.nan)[:n]
    stop, target = barrier_prices(entry * (1 + direction * costs.half_spread), atr, rule, direction)
    adverse, favourable = (low, high) if direction > 0 else (high, low)
    follows = np.append(np.diff(times) == timeframe_ms, False)[:n]

    def leave(at: Places, age: int, reason: Touched, prices: Floats, moments: Times) -> None:
        touched[at], held[at], price[at], until_ms[at] = reason, age, prices, moments

    rows: Places = np.flatnonzero(np.isfinite(stop))
    for age in range(1, rule.holding_candles + 1):
        rows = rows[follows[rows + age - 1]]
        now = rows + age
        stops, targets, first = direction * stop[rows], direction * target[rows], direction * opened[now]
        at_open = (first <= stops) | (first >= targets)
        stopped = ~at_open & (direction * adverse[now] <= stops)
        reached = ~at_open & ~stopped & (direction * favourable[now] >= targets)
        for mark, reason in ((at_open & (first <= stops), Touched.STOP), (at_open & (first > stops), Touched.TARGET)):
            leave(rows[mark], age, reason, opened[now[mark]], times[now[mark]])
        for mark, reason, prices in ((stopped, Touched.STOP, stop), (reached, Touched.TARGET, target)):
            leave(rows[mark], age, reason, prices[rows[mark]], times[now[mark]] + timeframe_ms - 1)
        rows = rows[~(at_open | stopped | reached)]
    last = rows + rule.holding_candles
    leave(rows, rule.holding_candles, Touched.TIME, close[last], times[last] + timeframe_ms)

    known = touched != Touched.UNKNOWN
    gross, net = np.full(n, np.nan), np.full(n, np.nan)
    moved = np.log(price[known] / entry[known])
    gross[known] = direction * moved
    net[known] = net_of_costs(
        moved, direction=direction, costs=costs,
        entry_ms=times[known] + timeframe_ms, exit_ms=until_ms[known], funding=funding,
    )  # fmt: skip
    end_ms = np.where(known, times + (held + 1) * timeframe_ms, -1)

    return BarrierLabels(touched, held, end_ms, price, gross, net)


def _on_ticks(prices: Floats, tick: float) -> Floats:
    if tick == 0:
        return prices
    # 9997 / 100 is the float that reads 99.97, 9997 * 0.01 is another; a candle that just touches must touch.
    per_unit = round(1 / tick)
    if abs(per_unit * tick - 1) < 1e-9:
        return np.asarray(np.rint(prices * per_unit) / per_unit)
    return np.asarray(np.rint(prices / tick) * tick)
