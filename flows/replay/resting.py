"""
Compiled pieces of `replay.kernel`: entries that rest inside a candle, and what the candle does to all that is held.

The rules are those of `inference.execution.entering` at the sandbox's matching engine, worked at each price of the
path: an order fills at its own price once a price lies beyond it, then the account's positions are protected, then the
worker looks at what still rests.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from numba import njit

from flows.replay.fills import (
    CLOSE,
    HIGH,
    LOW,
    MIN_NOTIONAL_E8,
    OPEN,
    OPTIMISTIC,
    PATH,
    PESSIMISTIC,
    STOP,
    TARGET,
    TIME,
    VALUE_E8,
    Floats,
    Ints,
    Rules,
    half_even,
    half_spread,
    last_price,
    leave,
    walk,
)
from infra.sandbox.engine import path

# How entries are worked.
MARKET, LIMIT, POST_ONLY = range(3)
# Columns of an entry at rest: symbol, direction, steps, and prices in ticks.
R_SYMBOL, R_DIRECTION, R_STEPS, R_LIMIT, R_STOP, R_TARGET = range(6)
REST_COLUMNS: Final = 6

_between = njit(inline="always", error_model="numpy")(path.between)
_up_first = njit(inline="always", error_model="numpy")(path.up_first)
_corners = njit(inline="always", error_model="numpy")(path.corners)


@njit(error_model="numpy")
def _line(prices: Ints, row: int, place: int, step: int, rules: Rules) -> int:
    """Return the price at a step of the path, the one in force where the candle is missing."""
    opened = prices[place, row, OPEN]
    if opened == 0:
        return last_price(prices, row, place)
    high, low, close = prices[place, row, HIGH], prices[place, row, LOW], prices[place, row, CLOSE]
    first, second, last = _corners(rules.steps)
    rises = _up_first(opened, high, low)
    turn, back = (high, low) if rises else (low, high)
    price: int
    if step <= first:
        price = _between(opened, turn, step, first)
    elif step <= second:
        price = _between(turn, back, step - first, second - first)
    else:
        price = _between(back, close, step - second, last - second)
    return price


@njit(error_model="numpy")
def _bound_steps(after: int, rules: Rules) -> tuple[int, int, int]:
    """Return when the bounds show both extremes and the close to what was entered at a step."""
    first, second, last = _corners(rules.steps)
    return min(max(first, after + 1), last), min(max(second, after + 2), last), last


@njit(error_model="numpy")
def _end_of(  # noqa: PLR0911 - one per way to end
    slot: int, book: Ints, prices: Ints, row: int, after: int, rules: Rules
) -> tuple[int, int, int]:
    """Return at which step after another a position ends, by what, around which price; step 0 where it does not."""
    place, direction, stop, target = book[slot, 0], book[slot, 1], book[slot, 7], book[slot, 8]
    if prices[place, row, OPEN] == 0:
        return 0, 0, 0
    high, low = prices[place, row, HIGH], prices[place, row, LOW]
    adverse, favourable = (low, high) if direction > 0 else (high, low)
    stopped = direction * adverse <= direction * stop
    reached = direction * favourable >= direction * target
    if not (stopped or reached):
        return 0, 0, 0
    first, second, _ = _bound_steps(after, rules)
    if rules.intrabar == PESSIMISTIC:
        return (first, STOP, adverse) if stopped else (second, TARGET, target)
    if rules.intrabar == OPTIMISTIC:
        return (first, TARGET, target) if reached else (second, STOP, stop)
    for step in range(after + 1, rules.steps):
        price = _line(prices, row, place, step, rules)
        if direction * price <= direction * stop:
            return step, STOP, price
        if direction * price >= direction * target:
            return step, TARGET, target
    return 0, 0, 0


@njit(error_model="numpy")
def _passed(stop: int, target: int, direction: int, price: int) -> int:
    """Return which of them a price has passed, where the worker leaves, as the venue takes neither; -1 if none."""
    if direction * price <= direction * stop:
        return STOP
    return TARGET if direction * price >= direction * target else -1


@njit(error_model="numpy")
def _mark(slot: int, book: Ints, prices: Ints, row: int, now_ms: int, step: int, rules: Rules) -> int:
    """Return the price that a position is worth at a step."""
    place, direction = book[slot, 0], book[slot, 1]
    since = max(0, (book[slot, 9] - now_ms) // path.STEP_MS)
    if rules.intrabar == PATH or prices[place, row, OPEN] == 0 or step <= since:
        return _line(prices, row, place, step, rules)
    first, second, last = _bound_steps(since, rules)
    helped = HIGH if direction > 0 else LOW
    hurt = LOW if direction > 0 else HIGH
    earlier, later = (hurt, helped) if rules.intrabar == PESSIMISTIC else (helped, hurt)
    column = OPEN
    if step >= last:
        column = CLOSE
    elif step >= second:
        column = later
    elif step >= first:
        column = earlier
    elif since > 0:
        return _line(prices, row, place, since, rules)
    price: int = prices[place, row, column]
    return price


@njit(error_model="numpy")
def _takes(  # noqa: PLR0917 - without keywords
    mine: int, price: int, step: int, wallet: int, now_ms: int, rest: Ints, resting: int, book: Ints, open_count: int,
    prices: Ints, row: int, rules: Rules, instruments: Ints,
) -> bool:  # fmt: skip
    """Whether the venue takes one of the entries at a price, the others still resting."""
    place = rest[mine, R_SYMBOL]
    asked = rest[mine, R_STEPS] * price * instruments[place, VALUE_E8] * 1e-8
    if asked < instruments[place, MIN_NOTIONAL_E8] * 1e-8:
        return False
    balance, bound = wallet, 0.0
    for slot in range(open_count):
        mark = _mark(slot, book, prices, row, now_ms, step, rules)
        notional = book[slot, 2] * mark * instruments[book[slot, 0], VALUE_E8]
        balance += book[slot, 1] * notional - book[slot, 4]
        bound += notional * 1e-8
    for other in range(resting):
        if other != mine:
            value = instruments[rest[other, R_SYMBOL], VALUE_E8]
            bound += rest[other, R_STEPS] * rest[other, R_LIMIT] * value * 1e-8
    free = max(0.0, balance * 1e-8 - bound / rules.leverage)
    needed: float = asked / rules.leverage + asked * rules.fee_e8 * 1e-8
    return needed <= free


@njit(error_model="numpy")
def _drop(mine: int, rest: Ints, rest_risk: Floats, resting: int) -> int:
    """Take one entry out, the others staying in their order; return how many are left."""
    for place in range(mine, resting - 1):
        rest[place], rest_risk[place] = rest[place + 1], rest_risk[place + 1]
    return resting - 1


@njit(error_model="numpy")
def _move(slot: int, open_count: int, book: Ints, risk: Floats, carried: Floats, ends: Ints) -> int:
    """Put the last position where one was closed; return how many are left."""
    last = open_count - 1
    book[slot], risk[slot], carried[slot], ends[slot] = book[last], risk[last], carried[last], ends[last]
    return last


@njit(error_model="numpy")
def _enter(  # noqa: PLR0917 - as above
    slot: int, mine: int, fee_e8: int, filled: int, at_ms: int, now_ms: int, rest: Ints, rest_risk: Floats,
    book: Ints, risk: Floats, carried: Floats, instruments: Ints, fills: Ints,
) -> int:  # fmt: skip
    """Open a position by the fills of an entry; return the fees."""
    place, direction = rest[mine, R_SYMBOL], rest[mine, R_DIRECTION]
    value, notional, fees = instruments[place, VALUE_E8], 0, 0
    for fill in range(filled):
        worth = fills[fill, 0] * fills[fill, 1]
        notional += worth
        fees += half_even(worth * value * fee_e8, 100_000_000)
    book[slot] = 0
    book[slot, 0], book[slot, 1], book[slot, 2] = place, direction, rest[mine, R_STEPS]
    book[slot, 3], book[slot, 4], book[slot, 5] = notional, direction * notional * value, fees
    book[slot, 7], book[slot, 8] = rest[mine, R_STOP], rest[mine, R_TARGET]
    book[slot, 9], book[slot, 10] = at_ms, now_ms
    risk[slot], carried[slot] = rest_risk[mine], notional * value * 1e-8
    return fees


@njit(cache=True, error_model="numpy")
def work(  # noqa: C901, PLR0912, PLR0915, PLR0917 - one pass over memory, without keywords
    row: int,
    now_ms: int,
    wallet: int,
    prices: Ints,
    rest: Ints,
    rest_risk: Floats,
    resting: int,
    book: Ints,
    risk: Floats,
    carried: Floats,
    held: npt.NDArray[np.bool_],
    open_count: int,
    rules: Rules,
    instruments: Ints,
    fills: Ints,
    trades: Ints,
    count: int,
) -> tuple[int, int, int]:
    """
    Walk through the inside of a candle in which entries rest, those sorted by symbol, until all of it has passed.

    Returns:
        The wallet; how many positions are open; how many trades there are, -1 where `trades` is too short.
    """
    ends = np.zeros((rules.max_positions, 3), np.int64)
    slot = 0
    while slot < open_count:
        if now_ms >= book[slot, 10] + rules.holding_ms:
            if count == len(trades):
                return wallet, open_count, -1
            place = book[slot, 0]
            reference = last_price(prices, row, place)
            wallet += leave(slot, reference, TIME, now_ms, book, rules, instruments, fills, trades, count)
            count += 1
            held[place] = False
            open_count = _move(slot, open_count, book, risk, carried, ends)
            continue
        ends[slot, 0], ends[slot, 1], ends[slot, 2] = _end_of(slot, book, prices, row, 0, rules)
        slot += 1
    for step in range(1, rules.steps):
        at_ms = now_ms + step * path.STEP_MS
        slot = 0
        while slot < open_count:
            if ends[slot, 0] != step:
                slot += 1
                continue
            if count == len(trades):
                return wallet, open_count, -1
            held[book[slot, 0]] = False
            wallet += leave(slot, ends[slot, 2], ends[slot, 1], at_ms, book, rules, instruments, fills, trades, count)
            count += 1
            open_count = _move(slot, open_count, book, risk, carried, ends)
        # What was traded through fills, at its own price.
        mine = 0
        while mine < resting:
            place, direction, limit = rest[mine, R_SYMBOL], rest[mine, R_DIRECTION], rest[mine, R_LIMIT]
            price = _line(prices, row, place, step, rules)
            if direction * (limit - price) <= 0:
                mine += 1
                continue
            fills[0, 0], fills[0, 1] = limit, rest[mine, R_STEPS]
            wallet -= _enter(
                open_count, mine, rules.maker_e8, 1, at_ms, now_ms, rest, rest_risk, book, risk, carried, instruments,
                fills,
            )  # fmt: skip
            resting = _drop(mine, rest, rest_risk, resting)
            reason = _passed(book[open_count, 7], book[open_count, 8], direction, price)
            if reason >= 0:
                if count == len(trades):
                    return wallet, open_count, -1
                wallet += leave(open_count, price, reason, at_ms, book, rules, instruments, fills, trades, count)
                count += 1
                continue
            held[place] = True
            ends[open_count, 0], ends[open_count, 1], ends[open_count, 2] = _end_of(
                open_count, book, prices, row, step, rules
            )
            open_count += 1
        # What still rests follows the price, or its time is over.
        late = step * path.STEP_MS >= rules.patience_ms
        mine = 0
        while mine < resting:
            place, direction, limit = rest[mine, R_SYMBOL], rest[mine, R_DIRECTION], rest[mine, R_LIMIT]
            price = _line(prices, row, place, step, rules)
            touch = price - direction * half_spread(price, rules.spread_e4)
            follows = (
                rules.style == POST_ONLY
                and direction * (touch - limit) > 0
                and direction * (rest[mine, R_TARGET] - touch) > 0
            )
            if not (late or follows):
                mine += 1
                continue
            wanted = price if late else touch
            taken = (follows or rules.style == LIMIT) and _takes(
                mine, wanted, step, wallet, now_ms, rest, resting, book, open_count, prices, row, rules, instruments
            )
            if taken and not late:
                rest[mine, R_LIMIT] = touch
                mine += 1
                continue
            if taken and rules.style == LIMIT:
                filled = walk(price, direction, rest[mine, R_STEPS], place, rules, instruments, fills)
                wallet -= _enter(
                    open_count, mine, rules.fee_e8, filled, at_ms, now_ms, rest, rest_risk, book, risk, carried,
                    instruments, fills,
                )  # fmt: skip
                reason = _passed(book[open_count, 7], book[open_count, 8], direction, price)
                if reason >= 0:
                    if count == len(trades):
                        return wallet, open_count, -1
                    wallet += leave(open_count, price, reason, at_ms, book, rules, instruments, fills, trades, count)
                    count += 1
                else:
                    held[place] = True
                    ends[open_count, 0], ends[open_count, 1], ends[open_count, 2] = _end_of(
                        open_count, book, prices, row, step, rules
                    )
                    open_count += 1
            resting = _drop(mine, rest, rest_risk, resting)
        if resting == 0:
            break
    # What is left of the candle, once nothing rests.
    slot = 0
    while slot < open_count:
        if ends[slot, 0] == 0:
            slot += 1
            continue
        if count == len(trades):
            return wallet, open_count, -1
        held[book[slot, 0]] = False
        at_ms = now_ms + ends[slot, 0] * path.STEP_MS
        wallet += leave(slot, ends[slot, 2], ends[slot, 1], at_ms, book, rules, instruments, fills, trades, count)
        count += 1
        open_count = _move(slot, open_count, book, risk, carried, ends)
    return wallet, open_count, count
