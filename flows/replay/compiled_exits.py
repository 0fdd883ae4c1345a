"""
The rules of `inference.exits` compiled: the exits of a slot, candle by candle, in whole ticks and steps.

What rounds to a tick by way of an average true range is float64, as elsewhere in the compiled engine: it differs from
the brain's decimals only where a price lies within some fourteen digits of half a tick. All else is integer arithmetic
and equal to the last digit, the break-even price too. Ticks, and steps, below 9e10 do not overflow.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from feature_store.errors import BadInputError
from inference.domain.exit_profile import MAX_TARGETS, ExitProfile

Ints = npt.NDArray[np.int64]

# Causes, in the order of `ExitCause`; 0 is none.
STOP, BREAK_EVEN, TRAILING_STOP, TARGET, TIME_STOP, LIQUIDATION_BUFFER, EMERGENCY = range(1, 8)
# Moments of a candle.
OPEN, ADVERSE, FAVOURABLE, CLOSE = range(4)
# Columns of a slot's exits: prices in ticks, what is left in steps. NEXT is the nearest target that waits, EVEN
# where a close loses nothing; LOOK says that the next close may move the stop without being the best.
(
    X_DIRECTION, X_REFERENCE, X_STOP, X_CAUSE, X_BEST, X_LEFT, X_REACHED, X_UNTIL, X_CLOSING, X_EVEN, X_NEXT, X_LOOK,
) = range(12)  # fmt: skip
X_TARGETS: Final = 12
X_PARTS: Final = X_TARGETS + MAX_TARGETS
EXIT_COLUMNS: Final = X_PARTS + MAX_TARGETS
# Columns of a fill, and how many a candle may have: each target, and what leaves with the rest.
F_CAUSE, F_PRICE, F_STEPS, F_MOMENT, F_TARGET = range(5)
FILL_COLUMNS: Final = 5
MOST_FILLS: Final = MAX_TARGETS + 1

_UNIT: Final = 100_000_000
_NEVER: Final = 1 << 62


class ExitRules(NamedTuple):
    """
    A profile as numbers: distances in average true ranges, shares and fees in 1e-8.

    `cap` is infinite and `trail` 0 where there is none; `holding_ms` is counted from the close that decided.
    """

    stop: float
    cap: float
    targets: int
    # Tuples, since an array within would be counted at each call.
    multiples: tuple[float, float, float, float]
    shares_e8: tuple[int, int, int, int]
    has_runner: bool
    even_after: int
    fee_e8: int
    margin_e8: int
    trail: float
    trail_after: int
    trail_gain: float
    buffer: float
    buffer_ranges: float
    timeframe_ms: int
    holding_ms: int


def exit_rules(profile: ExitProfile, *, fee: Decimal, timeframe_ms: int, horizon_candles: int) -> ExitRules:
    """
    Return a profile as the compiled engine reads it; `fee` is the taker fee of one side, a share of notional.

    Raises:
        BadInputError: The fee is finer than the venue counts.
    """
    fee_e8 = fee * _UNIT
    if fee_e8 != fee_e8.to_integral_value():
        raise BadInputError(f"fee {fee} is finer than the venue counts; round it")
    none = (0,) * (MAX_TARGETS - len(profile.targets))
    multiples = (*map(float, profile.target_multiples), *map(float, none))
    shares = (*(int(target.share * _UNIT) for target in profile.targets), *none)
    candles = horizon_candles if profile.time_stop_candles is None else profile.time_stop_candles
    return ExitRules(
        stop=float(profile.stop_atr),
        cap=float("inf") if profile.stop_cap_r is None else float(profile.stop_cap_r * profile.stop_atr),
        targets=len(profile.targets),
        multiples=(multiples[0], multiples[1], multiples[2], multiples[3]),
        shares_e8=(shares[0], shares[1], shares[2], shares[3]),
        has_runner=profile.has_runner,
        even_after=profile.break_even_after,
        fee_e8=int(fee_e8),
        margin_e8=int(profile.break_even_margin * _UNIT),
        trail=float(profile.trail_atr or 0),
        trail_after=profile.trail_after_target,
        trail_gain=float(profile.trail_after_r * profile.stop_atr),
        buffer=float(profile.liquidation_buffer),
        buffer_ranges=float(profile.liquidation_buffer_atr),
        timeframe_ms=timeframe_ms,
        holding_ms=candles * timeframe_ms,
    )


@njit(cache=True, error_model="numpy")
def open_exits(
    slot: int,
    exits: Ints,
    direction: int,
    crossed: int,
    reach: float,
    liquidation: float,
    now_ms: int,
    rules: ExitRules,
) -> bool:
    """
    Write the exits of a trade as it is decided; return whether its stop protects anything, as `brain.levels`.

    `crossed` is the reference price, `reach` the average true range, `liquidation` a price or 0, all in ticks.
    """
    exits[slot, :] = 0
    stop, cause = int(np.rint(crossed - direction * rules.stop * reach)), STOP
    away = max(rules.buffer * liquidation, rules.buffer_ranges * reach)
    if liquidation > 0.0 and away > 0.0:
        line = int(np.rint(liquidation + direction * away))
        if direction * line > direction * stop:
            stop, cause = line, LIQUIDATION_BUFFER
    if stop <= 0 or direction * stop >= direction * crossed or 0.0 < rules.trail * reach < 1.0:
        return False
    before = crossed
    for place in range(rules.targets):
        target = int(np.rint(crossed + direction * rules.multiples[place] * reach))
        if target <= 0 or direction * target <= direction * before:
            return False
        exits[slot, X_TARGETS + place] = target
        before = target
    exits[slot, X_DIRECTION], exits[slot, X_REFERENCE], exits[slot, X_BEST] = direction, crossed, crossed
    exits[slot, X_STOP], exits[slot, X_CAUSE], exits[slot, X_NEXT] = stop, cause, direction * _NEVER
    exits[slot, X_UNTIL] = now_ms - now_ms % rules.timeframe_ms + rules.holding_ms
    # From the entry on, the first close may tighten the stop even where it is worse than the entry.
    exits[slot, X_LOOK] = 1
    return True


@njit(cache=True, error_model="numpy")
def hold(
    slot: int, exits: Ints, steps: int, worth: int, reach: float, value_e8: int, smallest_e8: int, rules: ExitRules
) -> None:
    """
    Take in that all of a trade's entry has executed, `worth` the sum of its ticks times steps.

    `value_e8` is the money of one tick times one step, `smallest_e8` the least notional of an order, in 1e-8.
    """
    direction = exits[slot, X_DIRECTION]
    exits[slot, X_LEFT] = steps
    if rules.cap < np.inf:
        line = int(np.rint(worth / steps - direction * rules.cap * reach))
        if direction * line > direction * exits[slot, X_STOP]:
            exits[slot, X_STOP], exits[slot, X_CAUSE] = line, STOP
    if rules.even_after > 0:
        exits[slot, X_EVEN] = even_price(direction, steps, worth, rules)
    _divide(slot, exits, steps, value_e8, smallest_e8, rules)
    _find_next(slot, exits, rules)


@njit(cache=True, error_model="numpy")
def even_price(direction: int, steps: int, worth: int, rules: ExitRules) -> int:
    """Return `brain.break_even_price` in ticks: exact, in parts that fit."""
    if direction > 0:
        above, below = _UNIT + rules.fee_e8 + rules.margin_e8, _UNIT - rules.fee_e8
    else:
        above, below = _UNIT - rules.fee_e8 - rules.margin_e8, _UNIT + rules.fee_e8
    rest = (worth % steps) * above
    whole = (worth // steps) * above + rest // steps
    price: int = whole // below
    if direction > 0 and (whole % below != 0 or rest % steps != 0):
        price += 1
    return price


@njit(inline="always", error_model="numpy")
def exit_candle(
    slot: int, exits: Ints, reach: float, opened: int, high: int, low: int, close: int, close_ms: int, fills: Ints,
    rules: ExitRules,
) -> int:  # fmt: skip
    """Walk a position through a candle as `intrabar.candle_exits`; write what left, and return in how many fills."""
    # Most candles end nothing: three comparisons, and no call.
    direction, count = exits[slot, X_DIRECTION], 0
    hurts, helps = (low, high) if direction > 0 else (high, low)
    if (
        exits[slot, X_CLOSING] > 0
        or direction * hurts <= direction * exits[slot, X_STOP]
        or direction * helps >= direction * exits[slot, X_NEXT]
    ):
        count = _ending_candle(slot, exits, opened, hurts, helps, close, fills, rules)
    candle_closed(slot, exits, reach, close, close_ms, rules)
    return count


@njit(cache=True, error_model="numpy")
def _ending_candle(
    slot: int, exits: Ints, opened: int, hurts: int, helps: int, close: int, fills: Ints, rules: ExitRules
) -> int:
    closing = exits[slot, X_CLOSING]
    count = shown_price(slot, exits, opened, OPEN, fills, 0, rules)
    if closing > 0 and exits[slot, X_LEFT] > 0:
        count = all_out(slot, exits, closing, opened, OPEN, fills, count)
    count = shown_price(slot, exits, hurts, ADVERSE, fills, count, rules)
    count = shown_price(slot, exits, helps, FAVOURABLE, fills, count, rules)
    return shown_price(slot, exits, close, CLOSE, fills, count, rules)


@njit(cache=True, error_model="numpy")
def shown_price(slot: int, exits: Ints, price: int, moment: int, fills: Ints, count: int, rules: ExitRules) -> int:
    """Do what one price does to what the venue holds; return how many fills there are by now."""
    if exits[slot, X_LEFT] == 0:
        return count
    direction = exits[slot, X_DIRECTION]
    if direction * price <= direction * exits[slot, X_STOP]:
        return all_out(slot, exits, exits[slot, X_CAUSE], price, moment, fills, count)
    if direction * price < direction * exits[slot, X_NEXT]:
        return count
    for place in range(exits[slot, X_REACHED], rules.targets):
        steps, target = exits[slot, X_PARTS + place], exits[slot, X_TARGETS + place]
        if steps == 0:
            continue
        if direction * price < direction * target:
            break
        _fill(fills, count, TARGET, target, steps, moment, place + 1)
        count += 1
        exits[slot, X_LEFT] -= steps
        exits[slot, X_PARTS + place] = 0
        exits[slot, X_REACHED] = place + 1
    _find_next(slot, exits, rules)
    _move_to_even(slot, exits, exits[slot, X_TARGETS + exits[slot, X_REACHED] - 1], rules)
    exits[slot, X_LOOK] = 1
    return count


@njit(inline="always", error_model="numpy")
def candle_closed(slot: int, exits: Ints, reach: float, close: int, close_ms: int, rules: ExitRules) -> None:
    """Take in a close, in ticks, 0 where the candle is missing: the stop may follow, the time may be over."""
    if exits[slot, X_LEFT] == 0:
        return
    if close > 0:
        direction = exits[slot, X_DIRECTION]
        is_best = direction * close > direction * exits[slot, X_BEST]
        if is_best:
            exits[slot, X_BEST] = close
        if is_best or exits[slot, X_LOOK]:
            _follow(slot, exits, reach, close, rules)
    if close_ms >= exits[slot, X_UNTIL] and exits[slot, X_CLOSING] == 0:
        exits[slot, X_CLOSING] = TIME_STOP


@njit(error_model="numpy")
def _follow(slot: int, exits: Ints, reach: float, close: int, rules: ExitRules) -> None:
    direction, reached = exits[slot, X_DIRECTION], exits[slot, X_REACHED]
    while reached < rules.targets and exits[slot, X_PARTS + reached] == 0:
        if direction * close < direction * exits[slot, X_TARGETS + reached]:
            break
        reached += 1
    exits[slot, X_REACHED] = reached
    _move_to_even(slot, exits, close, rules)
    # Where the price is not beyond it yet, another close may be.
    exits[slot, X_LOOK] = (
        0 < rules.even_after <= reached and direction * exits[slot, X_EVEN] > direction * exits[slot, X_STOP]
    )
    if rules.trail == 0.0 or reached < rules.trail_after:
        return
    best = exits[slot, X_BEST]
    if direction * (best - exits[slot, X_REFERENCE]) < rules.trail_gain * reach:
        return
    line = int(np.rint(best - direction * rules.trail * reach))
    if direction * line > direction * exits[slot, X_STOP]:
        exits[slot, X_STOP], exits[slot, X_CAUSE] = line, TRAILING_STOP
        if direction * close <= direction * line and exits[slot, X_CLOSING] == 0:
            exits[slot, X_CLOSING] = TRAILING_STOP


@njit(error_model="numpy")
def _move_to_even(slot: int, exits: Ints, known: int, rules: ExitRules) -> None:
    direction, even = exits[slot, X_DIRECTION], exits[slot, X_EVEN]
    is_due = 0 < rules.even_after <= exits[slot, X_REACHED] and direction * known > direction * even
    if is_due and direction * even > direction * exits[slot, X_STOP]:
        exits[slot, X_STOP], exits[slot, X_CAUSE] = even, BREAK_EVEN


@njit(error_model="numpy")
def _divide(slot: int, exits: Ints, steps: int, value_e8: int, smallest_e8: int, rules: ExitRules) -> None:
    """Write the parts of `parts.parts_of`, where the least quantity of an order is one step."""
    count = rules.targets
    if count == 0:
        return
    merged, given, asked, last = 0, 0, 0, -1
    for place in range(count):
        size = rules.shares_e8[place] * steps // _UNIT
        if place == count - 1 and not rules.has_runner:
            size = steps - asked
        asked += size
        whole = size + merged
        if whole > 0 and whole * exits[slot, X_TARGETS + place] * value_e8 >= smallest_e8:
            exits[slot, X_PARTS + place] = whole
            given += whole
            merged, last = 0, place
        else:
            exits[slot, X_PARTS + place] = 0
            merged = whole
    rest = steps - given
    if last >= 0:
        stands = rules.has_runner and rest * exits[slot, X_TARGETS + last] * value_e8 >= smallest_e8
        if not stands:
            exits[slot, X_PARTS + last] += rest
    elif not rules.has_runner:
        exits[slot, X_PARTS + count - 1] = steps


@njit(error_model="numpy")
def _find_next(slot: int, exits: Ints, rules: ExitRules) -> None:
    exits[slot, X_NEXT] = exits[slot, X_DIRECTION] * _NEVER
    for place in range(exits[slot, X_REACHED], rules.targets):
        if exits[slot, X_PARTS + place] > 0:
            exits[slot, X_NEXT] = exits[slot, X_TARGETS + place]
            return


@njit(error_model="numpy")
def all_out(slot: int, exits: Ints, cause: int, price: int, moment: int, fills: Ints, count: int) -> int:
    """Let all that is open leave around a price; return how many fills there are by now."""
    _fill(fills, count, cause, price, exits[slot, X_LEFT], moment, 0)
    exits[slot, X_LEFT] = 0
    return count + 1


@njit(error_model="numpy")
def _fill(fills: Ints, count: int, cause: int, price: int, steps: int, moment: int, target: int) -> None:
    fills[count, F_CAUSE], fills[count, F_PRICE], fills[count, F_STEPS] = cause, price, steps
    fills[count, F_MOMENT], fills[count, F_TARGET] = moment, target
