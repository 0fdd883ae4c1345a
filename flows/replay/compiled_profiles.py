"""
Compiled pieces of `replay.kernel`: positions that end by an exit profile, part by part.

Stop and nearest target lie in the book where those of the barriers do, so that most candles are three comparisons; what
else the profile needs are the columns after `BOOK_COLUMNS`: the row that decided, then those of `compiled_exits`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from flows.replay.compiled_entry import liquidation_ticks
from flows.replay.compiled_exits import (
    F_CAUSE,
    F_MOMENT,
    F_PRICE,
    F_STEPS,
    X_CAUSE,
    X_CLOSING,
    X_LEFT,
    X_NEXT,
    X_STOP,
    ExitRules,
    candle_closed,
    hold,
    open_exits,
    shown_price,
)
from flows.replay.fills import (
    BOOK_COLUMNS,
    BREAK_EVEN,
    CLOSE,
    EMERGENCY,
    HIGH,
    LIQUIDATION_BUFFER,
    LOW,
    MIN_NOTIONAL_E8,
    OPEN,
    OPTIMISTIC,
    PATH,
    PRICE_UNITS,
    STOP,
    TARGET,
    TIME,
    TRAILING_STOP,
    VALUE_E8,
    Floats,
    Ints,
    Rules,
    half_spread,
    last_price,
    leave,
    leave_part,
)
from infra.sandbox.engine import path

# By the causes of `compiled_exits`; the first is none.
_REASONS = (STOP, STOP, BREAK_EVEN, TRAILING_STOP, TARGET, TIME, LIQUIDATION_BUFFER, EMERGENCY)

_between = njit(inline="always", error_model="numpy")(path.between)
_up_first = njit(inline="always", error_model="numpy")(path.up_first)
_corners = njit(inline="always", error_model="numpy")(path.corners)


@njit(inline="always", error_model="numpy")
def _reach(slot: int, atr: Floats, book: Ints, instruments: Ints) -> float:
    """Return the average true range of the decision, in ticks."""
    place = book[slot, 0]
    reach: float = atr[book[slot, BOOK_COLUMNS], place] * instruments[place, PRICE_UNITS]
    return reach


@njit(error_model="numpy")
def enter_profiled(  # noqa: PLR0917 - without keywords
    slot: int, row: int, now_ms: int, worth: int, prices: Ints, atr: Floats, book: Ints, exits: Ints, rules: Rules,
    instruments: Ints, exit_rules: ExitRules,
) -> tuple[int, int]:  # fmt: skip
    """Write the exits of what was entered at the price in force; return its stop, and why that lies there."""
    place, direction = book[slot, 0], book[slot, 1]
    book[slot, BOOK_COLUMNS] = row - 1
    units, reach = instruments[place, PRICE_UNITS], _reach(slot, atr, book, instruments)
    last = last_price(prices, row, place)
    crossed = last + direction * half_spread(last, rules.spread_e4)
    price = crossed / units
    reference = price * (1.0 + rules.slippage) if direction > 0 else price
    liquidation = liquidation_ticks(direction, reference, units, rules)
    open_exits(slot, exits, direction, crossed, reach, liquidation, now_ms, exit_rules)
    hold(
        slot, exits, book[slot, 2], worth, reach,
        instruments[place, VALUE_E8], instruments[place, MIN_NOTIONAL_E8], exit_rules,
    )  # fmt: skip
    book[slot, 7], book[slot, 8] = exits[slot, X_STOP], exits[slot, X_NEXT]
    return exits[slot, X_STOP], _REASONS[exits[slot, X_CAUSE]]


@njit(error_model="numpy")
def take_parts(  # noqa: PLR0917 - as above
    slot: int, found: int, parts: Ints, now_ms: int, book: Ints, exits: Ints, risk: Floats, carried: Floats,
    rules: Rules, instruments: Ints, fills: Ints, trades: Ints, count: int,
) -> tuple[int, int, bool]:  # fmt: skip
    """Let the parts that were found leave, each at its moment; return what they bring, the trades, whether all left."""
    wallet = 0
    for part in range(found):
        steps, held = parts[part, F_STEPS], book[slot, 2]
        price, at_ms = parts[part, F_PRICE], now_ms + parts[part, F_MOMENT] * path.STEP_MS
        if steps == held:
            reason = _REASONS[parts[part, F_CAUSE]]
            wallet += leave(slot, price, reason, at_ms, book, rules, instruments, fills, trades, count)
            return wallet, count + 1, True
        wallet += leave_part(slot, price, steps, book, rules, instruments, fills)
        share = book[slot, 2] / held
        risk[slot] *= share
        carried[slot] *= share
    book[slot, 7], book[slot, 8] = exits[slot, X_STOP], exits[slot, X_NEXT]
    return wallet, count, False


@njit(error_model="numpy")
def _walk_inside(
    slot: int, opened: int, high: int, low: int, close: int, exits: Ints, parts: Ints, direction: int, rules: Rules,
    exit_rules: ExitRules,
) -> int:  # fmt: skip
    """Show a position the prices inside a candle; return how many parts left."""
    first, second, last = _corners(rules.steps)
    adverse, favourable = (low, high) if direction > 0 else (high, low)
    count = 0
    if rules.intrabar != PATH:
        early, late = adverse, favourable
        if rules.intrabar == OPTIMISTIC:
            early, late = favourable, adverse
            if direction * adverse <= direction * exits[slot, X_STOP]:
                late = exits[slot, X_STOP]
        count = shown_price(slot, exits, early, first, parts, count, exit_rules)
        count = shown_price(slot, exits, late, second, parts, count, exit_rules)
        return shown_price(slot, exits, close, last, parts, count, exit_rules)
    turn, back = (high, low) if _up_first(opened, high, low) else (low, high)
    start, end, begins, ends = opened, turn, 0, first
    for step in range(1, rules.steps):
        if step == first + 1:
            start, end, begins, ends = turn, back, first, second
        elif step == second + 1:
            start, end, begins, ends = back, close, second, last
        price = _between(start, end, step - begins, ends - begins)
        count = shown_price(slot, exits, price, step, parts, count, exit_rules)
        if exits[slot, X_LEFT] == 0:
            break
    return count


@njit(cache=True, error_model="numpy")
def inside_profiled(  # noqa: PLR0917 - as above
    row: int, now_ms: int, wallet: int, prices: Ints, atr: Floats, book: Ints, exits: Ints, risk: Floats,
    carried: Floats, held: npt.NDArray[np.bool_], open_count: int, rules: Rules, instruments: Ints, fills: Ints,
    trades: Ints, count: int, parts: Ints, exit_rules: ExitRules,
) -> tuple[int, int, int]:  # fmt: skip
    """
    Tell all positions of the candle before, then show them the inside of this one.

    Returns:
        The wallet; how many positions are open; how many trades there are, -1 where `trades` is too short.
    """
    slot = 0
    while slot < open_count:
        if count == len(trades):
            return wallet, open_count, -1
        place, direction, is_over = book[slot, 0], book[slot, 1], False
        # What was entered at this price has seen no close yet.
        if book[slot, 10] < now_ms:
            candle_closed(
                slot, exits, _reach(slot, atr, book, instruments), prices[place, row - 1, CLOSE], now_ms, exit_rules
            )
            last, closing = last_price(prices, row, place), exits[slot, X_CLOSING]
            is_over = closing > 0 or direction * last <= direction * exits[slot, X_STOP]
            if is_over:
                # The venue takes no stop that the price is beyond: the worker leaves.
                reason = _REASONS[closing if closing > 0 else exits[slot, X_CAUSE]]
                wallet += leave(slot, last, reason, now_ms, book, rules, instruments, fills, trades, count)
                count += 1
            book[slot, 7] = exits[slot, X_STOP]
        if not is_over and prices[place, row, OPEN] > 0:
            high, low = prices[place, row, HIGH], prices[place, row, LOW]
            hurts, helps = (low, high) if direction > 0 else (high, low)
            if direction * hurts <= direction * book[slot, 7] or direction * helps >= direction * book[slot, 8]:
                found = _walk_inside(
                    slot, prices[place, row, OPEN], high, low, prices[place, row, CLOSE], exits, parts, direction,
                    rules, exit_rules,
                )  # fmt: skip
                brought, count, is_over = take_parts(
                    slot, found, parts, now_ms, book, exits, risk, carried, rules, instruments, fills, trades, count
                )
                wallet += brought
        if not is_over:
            slot += 1
            continue
        held[place] = False
        open_count -= 1
        book[slot], risk[slot], carried[slot] = book[open_count], risk[open_count], carried[open_count]
    return wallet, open_count, count
