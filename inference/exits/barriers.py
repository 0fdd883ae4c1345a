"""Stop, target and time barriers."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from inference.domain.market import Instrument
from inference.domain.policy import Policy
from inference.domain.position import Position
from inference.domain.signal import Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Barriers:
    """The two prices at which a position ends."""

    stop_price: Decimal
    target_price: Decimal


def barriers(
    *, direction: Direction, reference_price: Decimal, atr: Decimal, policy: Policy, instrument: Instrument
) -> Barriers | None:
    """
    Return the stop and the target as multiples of the average true range, on the instrument's ticks.

    None when a price would not be positive or not strictly on its side of the reference: such a stop protects nothing.
    """
    sign = 1 if direction is Direction.LONG else -1
    stop = instrument.round_price(reference_price - sign * policy.stop_atr_multiple * atr)
    target = instrument.round_price(reference_price + sign * policy.target_atr_multiple * atr)
    low, high = (stop, target) if sign > 0 else (target, stop)
    if low <= 0 or not low < reference_price < high:
        return None

    return Barriers(stop_price=stop, target_price=target)


def time_barrier_ms(entry_time_ms: int, *, policy: Policy, timeframe_ms: int) -> int:
    """
    Return the venue time at which a position has been held long enough.

    Counted from the close of the candle that decided the entry, so that the holding time matches the horizon.
    """
    return entry_time_ms - entry_time_ms % timeframe_ms + policy.max_holding_candles * timeframe_ms


def is_held_too_long(position: Position, *, candle_close_ms: int, policy: Policy, timeframe_ms: int) -> bool:
    """Whether the time barrier lies at or before this candle's close."""
    return candle_close_ms >= time_barrier_ms(position.entry_time_ms, policy=policy, timeframe_ms=timeframe_ms)
