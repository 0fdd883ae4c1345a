"""Compiled pieces of `replay.kernel`: what fills cost, where a position ends inside a candle, what a trade comes to."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from infra.sandbox.engine import path

# Columns of a candle.
OPEN, HIGH, LOW, CLOSE = range(4)
# Columns of a trade.
SYMBOL, DIRECTION, REASON, QUANTITY, ENTRY, EXIT, FEES, FUNDING, OPENED, CLOSED = range(10)
TRADE_COLUMNS: Final = 10
# Reasons of an exit.
STOP, TARGET, TIME, END, EMERGENCY, BREAK_EVEN, TRAILING_STOP, LIQUIDATION_BUFFER = range(8)
# Columns of a position beyond symbol, side, steps that are left, worth of the entry, cost of what is left, fees,
# funding, stop, nearest target, and when it was opened and decided: steps that left and what they brought.
OUT_STEPS, OUT_WORTH = 11, 12
BOOK_COLUMNS: Final = 13
# How prices run inside a candle.
PATH, PESSIMISTIC, OPTIMISTIC = range(3)

LEVELS: Final = 50


class Rules(NamedTuple):
    """A policy, a venue's costs and a balance as numbers of one type each; times in milliseconds."""

    threshold: float
    stop_multiple: float
    target_multiple: float
    risk_per_trade: float
    min_notional: float
    max_notional: float
    max_exposure: float
    max_heat: float
    max_drawdown: float
    max_weekly_drawdown: float
    # Where the emergency stop begins, and how much of what gains it closes.
    daily_wall: float
    weekly_wall: float
    peak_wall: float
    reduce_share: float
    # What a size is made of beside the risk per trade; a Kelly fraction below 0 is none, infinity no limit.
    min_risk: float
    max_risk: float
    min_multiplier: float
    max_multiplier: float
    target_volatility: float
    unknown_size: float
    kelly_fraction: float
    max_concentration: float
    min_liquidation_stops: float
    maintenance_margin: float
    governor_confidence: float
    governor_volatility: float
    governor_drawdown: float
    # Fee and slippage of one side as the policy counts on them, and slippage alone.
    side_costs: float
    slippage: float
    leverage: float
    cooldown_ms: int
    holding_ms: int
    max_positions: int
    intrabar: int
    # How entries are worked, and for how long one may rest.
    style: int
    patience_ms: int
    # In 1e-8 of notional, in 1e-4 of a basis point, and in 1e-8 of the quote currency.
    fee_e8: int
    maker_e8: int
    spread_e4: int
    gap_e4: int
    balance_e8: int
    timeframe_ms: int
    steps: int


# Columns of an instrument, one row a symbol: powers of ten of tick and step, money of one tick times one step and the
# least notional in 1e-8 of the quote currency, the largest market order in steps, a level's depth in currency.
PRICE_UNITS, QUANTITY_UNITS, VALUE_E8, MIN_NOTIONAL_E8, MAX_STEPS, DEPTH = range(6)


Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_between = njit(inline="always", error_model="numpy")(path.between)
_up_first = njit(inline="always", error_model="numpy")(path.up_first)
_corners = njit(inline="always", error_model="numpy")(path.corners)


@njit(inline="always", error_model="numpy")
def half_even(numerator: int, denominator: int) -> int:
    """Divide, to the nearest whole number, halves to the even one; the denominator is positive."""
    quotient = numerator // denominator
    twice = 2 * (numerator - quotient * denominator)
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient


@njit(inline="always", error_model="numpy")
def half_spread(last: int, spread_e4: int) -> int:
    """Return how many ticks bid and ask lie beyond a last price."""
    return -((-last * spread_e4) // 200_000_000)


@njit(cache=True, error_model="numpy")
def walk(last: int, side: int, steps: int, place: int, rules: Rules, instruments: Ints, fills: Ints) -> int:
    """Fill a taker level by level as `BookModel.walk`; return how many fills there are."""
    best = last + side * half_spread(last, rules.spread_e4)
    gap = max(1, half_even(last * rules.gap_e4, 100_000_000))
    units = instruments[place, PRICE_UNITS] * instruments[place, QUANTITY_UNITS]
    count = 0
    for level in range(LEVELS):
        price = best + side * gap * level
        if steps <= 0 or price <= 0:
            break
        size = max(1, (instruments[place, DEPTH] * (4 + level) * units) // (4 * price))
        taken = min(size, steps)
        fills[count, 0] = price
        fills[count, 1] = taken
        count += 1
        steps -= taken
    return count


@njit(cache=True, error_model="numpy")
def _share(cost: int, taken: int, left: int) -> int:
    """Return the share of a cost that leaves with some of what is left, halves to the even one; in parts that fit."""
    rest = (cost % left) * taken
    share = (cost // left) * taken + rest // left
    twice = 2 * (rest % left)
    return share + 1 if twice > left or (twice == left and share & 1) else share


@njit(cache=True, error_model="numpy")
def leave(
    slot: int,
    reference: int,
    reason: int,
    now_ms: int,
    book: Ints,
    rules: Rules,
    instruments: Ints,
    fills: Ints,
    trades: Ints,
    count: int,
) -> int:
    """
    Close a position at market around a reference price, write its trade, and return what it brings the wallet.

    Where its targets had taken more than leaves now, they are why it ended.
    """
    held, earlier = book[slot, 2], book[slot, OUT_STEPS]
    wallet = leave_part(slot, reference, held, book, rules, instruments, fills)
    row = trades[count]
    row[SYMBOL], row[DIRECTION], row[QUANTITY] = book[slot, 0], book[slot, 1], book[slot, OUT_STEPS]
    row[REASON] = TARGET if earlier > held and reason != END else reason
    row[ENTRY], row[EXIT], row[FEES], row[FUNDING] = (
        book[slot, 3], book[slot, OUT_WORTH], book[slot, 5], book[slot, 6],
    )  # fmt: skip
    row[OPENED], row[CLOSED] = book[slot, 9], now_ms
    return wallet


@njit(cache=True, error_model="numpy")
def leave_part(slot: int, reference: int, steps: int, book: Ints, rules: Rules, instruments: Ints, fills: Ints) -> int:
    """Let some of a position leave at market around a reference price; return what it brings the wallet."""
    place, direction = book[slot, 0], book[slot, 1]
    value = instruments[place, VALUE_E8]
    filled = walk(reference, -direction, steps, place, rules, instruments, fills)
    cost, fees, notional, wallet = book[slot, 4], book[slot, 5], 0, 0
    left = book[slot, 2]
    for fill in range(filled):
        price, taken = fills[fill, 0], fills[fill, 1]
        released = cost if taken == left else _share(cost, taken, left)
        fee = half_even(price * taken * value * rules.fee_e8, 100_000_000)
        wallet += direction * taken * price * value - released - fee
        cost -= released
        fees += fee
        notional += price * taken
        left -= taken
    # What the book could not fill is forgotten, as it always was.
    book[slot, OUT_STEPS] += steps
    book[slot, OUT_WORTH] += notional
    book[slot, 2] -= steps
    book[slot, 4], book[slot, 5] = cost, fees
    return wallet


@njit(cache=True, error_model="numpy")
def exit_inside(
    direction: int, stop: int, target: int, opened: int, high: int, low: int, close: int, rules: Rules
) -> tuple[int, int, int]:
    """Return at which step of a candle a position ends, by what, and around which price; step 0 where it does not."""
    adverse, favourable = (low, high) if direction > 0 else (high, low)
    stopped = direction * adverse <= direction * stop
    reached = direction * favourable >= direction * target
    if not (stopped or reached):
        return 0, 0, 0
    first, second, last = _corners(rules.steps)
    if rules.intrabar == PESSIMISTIC:
        return (first, STOP, adverse) if stopped else (second, TARGET, target)
    if rules.intrabar == OPTIMISTIC:
        return (first, TARGET, target) if reached else (second, STOP, stop)
    if _up_first(opened, high, low):
        turn, back = high, low
    else:
        turn, back = low, high
    start, end, begins, ends = opened, turn, 0, first
    for step in range(1, rules.steps):
        if step == first + 1:
            start, end, begins, ends = turn, back, first, second
        elif step == second + 1:
            start, end, begins, ends = back, close, second, last
        price = _between(start, end, step - begins, ends - begins)
        if direction * price <= direction * stop:
            return step, STOP, price
        if direction * price >= direction * target:
            return step, TARGET, target
    return 0, 0, 0


@njit(inline="always", error_model="numpy")
def last_price(prices: Ints, row: int, place: int) -> int:
    """Return the price in force as a candle opens: its own, or the newest close where it is missing; 0 for none."""
    if prices[place, row, OPEN] > 0:
        return prices[place, row, OPEN]
    for earlier in range(row - 1, -1, -1):
        if prices[place, earlier, CLOSE] > 0:
            return prices[place, earlier, CLOSE]
    return 0
