"""
The exit brain: the one owner of every exit decides when a position, or a part of it, ends.

Pure: `opened`, then `step` for each observation, in whatever order they come. `standing` says what is wanted at any
moment, and actions are what of it changed. What the venue can hold (stop, targets) it holds, and goes on holding when
the worker is gone; what it cannot (following the price, time, nearness of liquidation) the worker watches. The stop
follows closes, never ticks, and by the range of the decision: live, word and sweep see the same numbers at the same
moment, and a candle's inside changes nothing that depends on the order of its prices.

Who asks it:

- `inference.decision` gives an entry its stop and targets by `levels`; approval and plan carry profile and facts.
- `inference.execution.book` keeps a state with each trade: `Held` after each change of its orders, all else by the
  journal's `ExitObserved`, which is written only where it changes something. Folding the journal is stepping live.
- `inference.execution.profiled_exits` turns `standing` into orders, one step at a time: live, and in
  `flows.replay.word` at the matching engine.
- The worker tells the closes of each batch (`inference.feed.seen_closes`), the executor the marks that it reads while
  it reconciles. Closes of while it was down are not told: the stop that rests is never moved back.
- `flows.replay.compiled_exits`, and `compiled_profiles`, are the same in whole ticks and steps.

Digits: prices round to ticks as `Instrument.round_price`, the break-even price to the side that loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor

import msgspec
from msgspec.structs import replace

from feature_store.errors import BadInputError
from inference.domain.exit_profile import ExitProfile
from inference.domain.exit_state import (
    CandleClosed,
    CloseAll,
    DropTarget,
    EmergencyCalled,
    ExitAction,
    ExitCause,
    ExitState,
    Held,
    HoldStop,
    HoldTarget,
    Observation,
    Priced,
    Standing,
    TradeFacts,
)
from inference.exits.parts import parts_of


class Levels(msgspec.Struct, frozen=True, kw_only=True):
    """The prices that a profile gives a trade before it is entered, in ticks of its instrument."""

    stop_price: Decimal
    stop_cause: ExitCause
    target_prices: tuple[Decimal, ...]


def levels(profile: ExitProfile, facts: TradeFacts) -> Levels | None:
    """
    Return the stop and the targets of a trade, the stop no nearer to liquidation than the profile's buffer.

    None when one of them would not be positive or not strictly on its side of the one before it, or when the trail is
    shorter than a tick: such a stop protects nothing.
    """
    sign, reference = facts.sign, facts.reference_price
    rounded = facts.instrument.round_price
    stop, cause = rounded(reference - sign * profile.stop_atr * facts.atr), ExitCause.STOP
    line = _buffer_line(profile, facts, facts.liquidation_price)
    if line is not None and sign * (rounded(line) - stop) > 0:
        stop, cause = rounded(line), ExitCause.LIQUIDATION_BUFFER
    targets = tuple(rounded(reference + sign * multiple * facts.atr) for multiple in profile.target_multiples)
    ladder = (stop, reference, *targets)
    if min(ladder) <= 0 or any(sign * (high - low) <= 0 for low, high in pairwise(ladder)):
        return None
    if profile.trail_atr is not None and profile.trail_atr * facts.atr < facts.instrument.price_tick:
        return None
    return Levels(stop_price=stop, stop_cause=cause, target_prices=targets)


def opened(profile: ExitProfile, facts: TradeFacts) -> ExitState:
    """
    Return what the brain knows of a trade that was approved, and of which nothing has executed.

    Raises:
        BadInputError: The profile gives this trade no usable stop; `levels` says so before it is approved.
    """
    given = levels(profile, facts)
    if given is None:
        raise BadInputError(
            f"Exit profile {profile.name} gives no usable stop at {facts.reference_price} with a range of {facts.atr}"
        )
    zero = Decimal(0)
    candles = facts.horizon_candles if profile.time_stop_candles is None else profile.time_stop_candles
    return ExitState(
        facts=facts,
        target_prices=given.target_prices,
        stop_price=given.stop_price,
        stop_cause=given.stop_cause,
        # From the close of the candle that decided, so that the time held is that of whole candles.
        until_ms=facts.planned_ms - facts.planned_ms % facts.timeframe_ms + candles * facts.timeframe_ms,
        best_close=facts.reference_price,
        seen_ms=facts.planned_ms,
        held=Held(entered=zero, cost=zero, taken=(zero,) * len(profile.targets)),
    )


def step(profile: ExitProfile, state: ExitState, seen: Observation) -> tuple[ExitState, tuple[ExitAction, ...]]:
    """
    Return the state after an observation, and what is to be done that was not before: leaving first, then protection.

    Raises:
        BadInputError: More targets took something than the profile has.
    """
    match seen:
        case Held():
            after = _after_held(profile, state, seen)
        case _ if state.open_quantity == 0:
            after = state
        case CandleClosed():
            after = _after_close(profile, state, seen)
        case Priced():
            after = _after_price(profile, state, seen)
        case EmergencyCalled():
            after = _closing(state, ExitCause.EMERGENCY)
    return after, _changes(standing(profile, state), standing(profile, after))


def folded(profile: ExitProfile, facts: TradeFacts, seen: Iterable[Observation]) -> ExitState:
    """Return the state after all these observations, as a worker that starts again makes it from its journal."""
    state = opened(profile, facts)
    for one in seen:
        state, _ = step(profile, state, one)
    return state


def standing(profile: ExitProfile, state: ExitState) -> Standing:
    """Return what is wanted of a trade now; where something is open there is a stop for all of it, always."""
    left = state.open_quantity
    if left == 0:
        return Standing()
    stop = HoldStop(price=state.stop_price, quantity=left, cause=state.stop_cause)
    if state.closing is not None:
        return Standing(stop=stop, close=CloseAll(cause=state.closing))
    parts, taken = _parts(profile, state), state.held.taken
    # One that was reached and then grew, by a late fill of the entry, is not asked for again.
    waiting = [place for place in range(state.reached, len(parts)) if parts[place] > taken[place]]
    targets = []
    for place in waiting:
        is_rest = place == waiting[-1] and not profile.has_runner
        quantity = left if is_rest else min(parts[place] - taken[place], left)
        if quantity > 0:
            targets.append(HoldTarget(number=place + 1, price=state.target_prices[place], quantity=quantity))
            left -= quantity
    return Standing(stop=stop, targets=tuple(targets))


def break_even_price(profile: ExitProfile, state: ExitState) -> Decimal:
    """
    Return the price, on a tick, at which closing pays the fees of both sides and leaves the profile's margin.

    The average entry price E, fee f and margin m give E (1 + f + m) / (1 - f) for a long position, rounded up, and
    E (1 - f - m) / (1 + f) for a short one, rounded down; exact, since an average has no last digit.
    """
    held, facts = state.held, state.facts
    average = Fraction(held.cost) / Fraction(held.entered)
    fee, margin, tick = Fraction(facts.fee), Fraction(profile.break_even_margin), Fraction(facts.instrument.price_tick)
    if facts.sign > 0:
        return ceil(average * (1 + fee + margin) / (1 - fee) / tick) * facts.instrument.price_tick
    return floor(average * (1 - fee - margin) / (1 + fee) / tick) * facts.instrument.price_tick


def _after_held(profile: ExitProfile, state: ExitState, seen: Held) -> ExitState:
    count = len(profile.targets)
    if len(seen.taken) > count:
        raise BadInputError(f"Exit profile {profile.name} has {count} targets, and {len(seen.taken)} took something")
    taken = (*seen.taken, *(Decimal(0) for _ in range(count - len(seen.taken))))
    exited = max(seen.exited, sum(taken, Decimal(0)))
    held = Held(entered=seen.entered, cost=seen.cost, exited=exited, taken=taken)
    after = replace(state, held=held)
    if held.entered == 0:
        return after
    after = _within_cap(profile, after)
    parts = _parts(profile, after)
    full = [place + 1 for place in range(count) if 0 < parts[place] <= taken[place]]
    reached = max(state.reached, *full, 0)
    if reached == state.reached:
        return after
    after = replace(after, reached=reached)
    return _at_break_even(profile, after, known=state.target_prices[reached - 1])


def _after_close(profile: ExitProfile, state: ExitState, seen: CandleClosed) -> ExitState:
    # What closed before the trade was planned says nothing of it; what is told again, or late, is known already.
    if seen.close_ms <= state.seen_ms:
        return state
    after = replace(state, seen_ms=seen.close_ms)
    if seen.close is not None:
        sign = state.facts.sign
        after = replace(after, best_close=_better(sign, after.best_close, seen.close))
        after = _reached_by(profile, after, seen.close)
        after = _at_break_even(profile, after, known=seen.close)
        after = _trailed(profile, after, seen.close)
    if seen.close_ms >= state.until_ms:
        after = _closing(after, ExitCause.TIME_STOP)
    return after


def _after_price(profile: ExitProfile, state: ExitState, seen: Priced) -> ExitState:
    facts, after = state.facts, state
    line = _buffer_line(profile, facts, seen.liquidation_price or facts.liquidation_price)
    if line is not None and facts.sign * (seen.price - line) <= 0:
        after = _closing(after, ExitCause.LIQUIDATION_BUFFER)
    cap = _cap_line(profile, state)
    if cap is not None and facts.sign * (seen.price - cap) < 0:
        after = _closing(after, ExitCause.EMERGENCY)
    # A close that never came must not hold a position for ever.
    if seen.at_ms >= state.until_ms + facts.timeframe_ms:
        after = _closing(after, ExitCause.TIME_STOP)
    return after


def _within_cap(profile: ExitProfile, state: ExitState) -> ExitState:
    line = _cap_line(profile, state)
    return state if line is None else _tightened(state, line, ExitCause.STOP)


def _cap_line(profile: ExitProfile, state: ExitState) -> Decimal | None:
    if profile.stop_cap_r is None:
        return None
    held, facts = state.held, state.facts
    away = profile.stop_cap_r * profile.stop_atr * facts.atr
    return facts.instrument.round_price(held.cost / held.entered - facts.sign * away)


def _buffer_line(profile: ExitProfile, facts: TradeFacts, liquidation: Decimal | None) -> Decimal | None:
    if liquidation is None:
        return None
    away = max(profile.liquidation_buffer * liquidation, profile.liquidation_buffer_atr * facts.atr)
    return liquidation + facts.sign * away if away > 0 else None


def _reached_by(profile: ExitProfile, state: ExitState, close: Decimal) -> ExitState:
    # A part that was merged into the next has no order whose fill could tell that its target was reached.
    parts, reached = _parts(profile, state), state.reached
    while reached < len(parts) and parts[reached] == 0:
        if state.facts.sign * (close - state.target_prices[reached]) < 0:
            break
        reached += 1
    return state if reached == state.reached else replace(state, reached=reached)


def _at_break_even(profile: ExitProfile, state: ExitState, *, known: Decimal) -> ExitState:
    # Costs may reach beyond a near target, and the price may have come back: no venue holds a stop beyond the price.
    if not 0 < profile.break_even_after <= state.reached:
        return state
    price = break_even_price(profile, state)
    return _tightened(state, price, ExitCause.BREAK_EVEN) if state.facts.sign * (known - price) > 0 else state


def _trailed(profile: ExitProfile, state: ExitState, close: Decimal) -> ExitState:
    facts = state.facts
    if profile.trail_atr is None or state.reached < profile.trail_after_target:
        return state
    gained = facts.sign * (state.best_close - facts.reference_price)
    if gained < profile.trail_after_r * profile.stop_atr * facts.atr:
        return state
    line = facts.instrument.round_price(state.best_close - facts.sign * profile.trail_atr * facts.atr)
    after = _tightened(state, line, ExitCause.TRAILING_STOP)
    is_hit = after is not state and facts.sign * (close - line) <= 0
    return _closing(after, ExitCause.TRAILING_STOP) if is_hit else after


def _tightened(state: ExitState, price: Decimal, cause: ExitCause) -> ExitState:
    if state.facts.sign * (price - state.stop_price) <= 0:
        return state
    return replace(state, stop_price=price, stop_cause=cause)


def _closing(state: ExitState, cause: ExitCause) -> ExitState:
    return state if state.closing is not None else replace(state, closing=cause)


def _better(sign: int, one: Decimal, other: Decimal) -> Decimal:
    return other if sign * (other - one) > 0 else one


def _parts(profile: ExitProfile, state: ExitState) -> tuple[Decimal, ...]:
    return parts_of(profile, state.held.entered, prices=state.target_prices, instrument=state.facts.instrument)


def _changes(before: Standing, after: Standing) -> tuple[ExitAction, ...]:
    earlier = {one.number: one for one in before.targets}
    later = {one.number: one for one in after.targets}
    actions: list[ExitAction] = []
    if after.close is not None and before.close is None:
        actions.append(after.close)
    if after.stop is not None and after.stop != before.stop:
        actions.append(after.stop)
    actions += [one for number, one in later.items() if earlier.get(number) != one]
    actions += [DropTarget(number=number) for number in earlier if number not in later]
    return tuple(actions)
