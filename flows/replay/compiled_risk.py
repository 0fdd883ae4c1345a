"""Compiled pieces of `replay.kernel`: walls of drawdown and what they close, and how much a trade may lose."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from numba import njit

from flows.replay.fills import (
    CLOSE,
    EMERGENCY,
    OUT_STEPS,
    PRICE_UNITS,
    VALUE_E8,
    Floats,
    Ints,
    Rules,
    half_spread,
    last_price,
    leave,
)

_DAY_MS: Final = 86_400_000
# 1970 began on a Thursday.
_DAYS_FROM_MONDAY: Final = 3


@njit(inline="always", error_model="numpy")
def day_of(time_ms: int) -> int:
    """Return the number of a UTC day."""
    return time_ms // _DAY_MS


@njit(inline="always", error_model="numpy")
def week_of(time_ms: int) -> int:
    """Return the number of a week that begins on Monday, midnight UTC."""
    return (time_ms // _DAY_MS + _DAYS_FROM_MONDAY) // 7


@njit(inline="always", error_model="numpy")
def fall(balance: int, start: int) -> float:
    """Return what was lost since a start, as a share of it; all of it where there was nothing."""
    return 1.0 - balance / start if start > 0 else 1.0


@njit(inline="always", error_model="numpy")
def is_walled(balance: int, day_start: int, week_start: int, peak: int, rules: Rules) -> bool:
    """Whether drawdown has reached a wall, where the emergency stop begins."""
    return (
        fall(balance, day_start) >= rules.daily_wall
        or fall(balance, week_start) >= rules.weekly_wall
        or fall(balance, peak) >= rules.peak_wall
    )


@njit(cache=True, error_model="numpy")
def choose_to_close(
    book: Ints, risk: Floats, open_count: int, prices: Ints, row: int, rules: Rules, instruments: Ints,
    chosen: npt.NDArray[np.bool_],
) -> None:  # fmt: skip
    """Mark the slots that an emergency closes: those that lose, and of the rest the riskiest until a share is gone."""
    rest = 0.0
    for slot in range(open_count):
        place, direction = book[slot, 0], book[slot, 1]
        last = last_price(prices, row, place)
        left_at = last - direction * half_spread(last, rules.spread_e4)
        whole = book[slot, 2] + book[slot, OUT_STEPS]
        chosen[slot] = direction * (left_at * whole - book[slot, 3]) < 0
        if not chosen[slot]:
            rest += _worth_of_rest(slot, book, instruments)
    wanted = rules.reduce_share * rest
    while wanted > 0.0:
        best, best_worth = -1, 0
        for slot in range(open_count):
            if chosen[slot]:
                continue
            worth = _worth_of_rest(slot, book, instruments)
            # Most at risk first, then the larger, then by name.
            if best < 0 or (-risk[slot], -worth, book[slot, 0]) < (-risk[best], -best_worth, book[best, 0]):
                best, best_worth = slot, worth
        if best < 0:
            break
        chosen[best] = True
        wanted -= best_worth


@njit(inline="always", error_model="numpy")
def _worth_of_rest(slot: int, book: Ints, instruments: Ints) -> int:
    """Return what the entry of all that is still open was worth, in 1e-8."""
    worth: int = book[slot, 3] * instruments[book[slot, 0], VALUE_E8]
    if book[slot, OUT_STEPS] > 0:
        worth = int(worth * (book[slot, 2] / (book[slot, 2] + book[slot, OUT_STEPS])))
    return worth


@njit(inline="always", error_model="numpy")
def volatility_of(reach: float, prices: Ints, before: int, place: int, instruments: Ints, rules: Rules) -> float:
    """Return the average true range as a share of the close that it ends on, 1 without one; 0 where nobody asks."""
    if rules.governor_volatility == np.inf and rules.target_volatility == np.inf:
        return 0.0
    close = prices[place, before, CLOSE]
    return reach / (close / instruments[place, PRICE_UNITS]) if close > 0 else 1.0


@njit(cache=True, error_model="numpy")
def share_at_risk(confidence: float, volatility: float, gain: float, loss: float, rules: Rules) -> float:
    """Return which share of equity a trade may lose at its stop; negative where it is not to be made."""
    multiplier = min(max(1.0 + (confidence - 0.70) * 2.0, rules.min_multiplier), rules.max_multiplier)
    share = rules.risk_per_trade * multiplier
    if volatility > rules.target_volatility:
        share *= rules.target_volatility / volatility
    # A backtest is told no regimes, and the careful one is what is not known.
    share *= rules.unknown_size
    if rules.kelly_fraction >= 0.0:
        kelly = confidence - (1.0 - confidence) * loss / gain if gain > 0.0 and loss > 0.0 else 0.0
        if kelly <= 0.0:
            return -1.0
        share = min(share, rules.kelly_fraction * kelly)
    share = min(share, rules.max_risk)
    return -1.0 if share <= 0.0 or share < rules.min_risk else share


@njit(cache=True, error_model="numpy")
def close_chosen(  # noqa: PLR0917 - without keywords
    chosen: npt.NDArray[np.bool_], row: int, now_ms: int, wallet: int, prices: Ints, book: Ints, risk: Floats,
    carried: Floats, held: npt.NDArray[np.bool_], open_count: int, rules: Rules, instruments: Ints, fills: Ints,
    trades: Ints, count: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Close marked slots at the price in force; return wallet, open positions and trades, -1 where they do not fit."""
    slot = 0
    while slot < open_count:
        if not chosen[slot]:
            slot += 1
            continue
        if count == len(trades):
            return wallet, open_count, -1
        place = book[slot, 0]
        reference = last_price(prices, row, place)
        wallet += leave(slot, reference, EMERGENCY, now_ms, book, rules, instruments, fills, trades, count)
        count += 1
        held[place] = False
        open_count -= 1
        book[slot], risk[slot], carried[slot] = book[open_count], risk[open_count], carried[open_count]
        chosen[slot] = chosen[open_count]
    return wallet, open_count, count
