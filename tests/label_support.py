"""Labels the slow way: one trade after the other, driven through the worker's own exit rules."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

import numpy as np

from feature_store.candle import Candle, CandleBlock, Timeframe
from flows.training.triple_barrier import Touched
from inference.decision import due_exits
from inference.domain.market import Instrument
from inference.domain.policy import Policy
from inference.domain.position import Position
from inference.domain.signal import Direction
from inference.exits.barriers import Barriers, barriers

STEP = Timeframe.M5.milliseconds
SYMBOL = "BTC/USDT:USDT"
_ENTRY_DELAY_MS = 350


class Outcome(NamedTuple):
    """What became of one trade."""

    touched: Touched
    held: int
    end_ms: int
    entry: float
    exit_price: float


def market_on_ticks(candles: int, *, seed: int, volatility: float = 0.003, tick: float = 0.01) -> CandleBlock:
    """Return candles whose opens jump away from the last close, all on ticks, so that barriers are just touched."""
    rng = np.random.default_rng(seed)
    jumps = np.where(rng.random(candles) < 0.1, rng.standard_normal(candles) * 3 * volatility, 0)
    moves = rng.standard_normal(candles) * volatility
    close = 100 * np.exp(np.cumsum(moves + jumps))
    opened = close * np.exp(-moves)
    high = np.maximum(opened, close) * (1 + rng.exponential(volatility / 2, candles))
    low = np.minimum(opened, close) * (1 - rng.exponential(volatility / 2, candles))
    per_unit = round(1 / tick)
    prices = [np.rint(column * per_unit) / per_unit for column in (opened, high, low, close)]
    times = 1_700_000_100_000 + STEP * np.arange(candles, dtype=np.int64)
    return CandleBlock(times, np.column_stack([*prices, np.ones(candles)]))


def average_range(block: CandleBlock, seed: int) -> np.ndarray:
    """Return a range to place barriers by, with digits enough that no barrier lies halfway between two ticks."""
    rng = np.random.default_rng([seed, 1])
    return block.close * 0.002 * np.exp(0.5 * rng.standard_normal(len(block)))


def without_rows(block: CandleBlock, rows: list[int]) -> CandleBlock:
    """Return a block with candles missing."""
    return CandleBlock(np.delete(block.open_time_ms, rows), np.delete(block.values, rows, axis=0))


def instrument(tick: str = "0.01") -> Instrument:
    """Return an instrument of which only the price tick matters."""
    one = Decimal(1)
    return Instrument(
        symbol=SYMBOL, price_tick=Decimal(tick), quantity_step=one, min_quantity=one, max_quantity=one, min_notional=one
    )


def driven_by_hand(
    block: CandleBlock, atr: np.ndarray, policy: Policy, *, direction: Direction, half_spread: float, tick: str = "0.01"
) -> list[Outcome | None]:
    """Return what the worker's rules make of a trade decided at each candle; None where it is not known."""
    candles = list(block.candles())
    return [
        _trade(candles[at : at + policy.max_holding_candles + 2], float(atr[at]), policy, direction, half_spread, tick)
        for at in range(len(candles))
    ]


def _trade(
    candles: list[Candle], atr: float, policy: Policy, direction: Direction, half_spread: float, tick: str
) -> Outcome | None:
    decided, *after = candles
    if not after or after[0].open_time_ms != decided.open_time_ms + STEP:
        return None
    sign = 1 if direction is Direction.LONG else -1
    entry = after[0].open
    crossed = entry * (1 + sign * half_spread)
    exits = barriers(
        direction=direction, reference_price=Decimal(repr(crossed)), atr=Decimal(repr(atr)),
        policy=policy, instrument=instrument(tick),
    )  # fmt: skip
    if exits is None:
        return None
    position = Position(
        symbol=SYMBOL, direction=direction, quantity=Decimal(1), entry_price=Decimal(repr(crossed)),
        entry_time_ms=after[0].open_time_ms + _ENTRY_DELAY_MS, trade_id="one",
    )  # fmt: skip
    for held, candle in enumerate(after, start=1):
        if candle.open_time_ms != decided.open_time_ms + held * STEP:
            return None
        close_ms = candle.close_time_ms(Timeframe.M5)
        filled = _filled_at_the_venue(candle, exits, sign)
        if filled is not None:
            return Outcome(filled[0], held, close_ms, entry, filled[1])
        if due_exits({SYMBOL: position}, candle_close_ms=close_ms, policy=policy, timeframe_ms=STEP):
            return Outcome(Touched.TIME, held, close_ms, entry, candle.close)
    return None


def _filled_at_the_venue(candle: Candle, exits: Barriers, sign: int) -> tuple[Touched, float] | None:
    adverse, favourable = (candle.low, candle.high) if sign > 0 else (candle.high, candle.low)
    # The open is the first price there is; of what comes after it the worse is taken to come first.
    for price, is_open in ((candle.open, True), (adverse, False), (favourable, False)):
        now = Decimal(repr(price))
        if sign * now <= sign * exits.stop_price:
            return Touched.STOP, price if is_open else float(exits.stop_price)
        if sign * now >= sign * exits.target_price:
            return Touched.TARGET, price if is_open else float(exits.target_price)
    return None
