"""Compiled pieces of `replay.kernel`: whether a candidate is entered, with how much, and where it ends."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from flows.replay.compiled_exits import X_STOP, X_TARGETS, ExitRules, open_exits
from flows.replay.compiled_risk import share_at_risk, volatility_of
from flows.replay.fills import (
    MAX_STEPS,
    PRICE_UNITS,
    QUANTITY_UNITS,
    Floats,
    Ints,
    Rules,
    half_spread,
    last_price,
)

# Codes of denials, as counted.
(
    DRAWDOWN, CONFIDENCE, EDGE, HELD, COOLDOWN, SLOTS, EXPOSURE, HEAT, STOP_UNUSABLE, BELOW_STEP, BELOW_NOTIONAL,
    STOPPED, WEEKLY, CONCENTRATION, LIQUIDATION, UNSURE, WILD, FALLEN, NO_EDGE,
) = range(19)  # fmt: skip
DENIALS: Final = 19


@njit(inline="always", error_model="numpy")
def room_to_liquidation(direction: int, rules: Rules) -> float:
    """Return how far from its entry a position is liquidated that has its own margin only, as a share of the price."""
    margin, maintenance = 1.0 / rules.leverage, rules.maintenance_margin
    if direction > 0:
        return 1.0 - (1.0 - margin) / (1.0 - maintenance)
    return (1.0 + margin) / (1.0 + maintenance) - 1.0


@njit(inline="always", error_model="numpy")
def liquidation_ticks(direction: int, reference: float, units: int, rules: Rules) -> float:
    """Return where a position with its own margin only is liquidated, in ticks, 0 where it cannot be."""
    room = room_to_liquidation(direction, rules)
    return max(0.0, reference * (1.0 - direction * room) * units)


@njit(error_model="numpy")
def mean_gain(exits: Ints, reference: float, units: int, rules: Rules, exit_rules: ExitRules) -> float:
    """Return what a unit gains at the targets of the first row, the mean by their shares."""
    gain, whole = 0.0, 0
    for place in range(exit_rules.targets):
        aim = exits[0, X_TARGETS + place] / units
        share = exit_rules.shares_e8[place]
        gain += (abs(aim - reference) - (reference + aim) * rules.side_costs) * share
        whole += share
    return gain / whole


@njit(cache=True, error_model="numpy")
def plan_entry(  # noqa: C901, PLR0911, PLR0912, PLR0917 - one return per denial, and no keywords
    place: int, row: int, money: float, gross: float, heat: float, smallest: float, fallen: bool,  # noqa: FBT001
    prices: Ints, atr: Floats, probability: Floats, instruments: Ints, rules: Rules,
    profiled: bool, now_ms: int, exits: Ints, exit_rules: ExitRules,  # noqa: FBT001 - as above
) -> tuple[int, int, int, int, int, float, float]:  # fmt: skip
    """
    Return the code of a candidate's denial, -1 if there is none, then its side, steps, stop, target, notional and risk.

    With `profiled`, stop and targets are those of `exit_rules`, written to the first row of `exits`.
    `money` is equity, `gross` and `heat` what is carried, `smallest` the least notional, all in quote currency.
    """
    before = row - 1
    units = instruments[place, PRICE_UNITS]
    last = last_price(prices, row, place)
    rises = probability[before, place]
    direction = 1 if rises > 0.5 else -1
    crossed = last + direction * half_spread(last, rules.spread_e4)
    price = crossed / units
    reference = price * (1.0 + rules.slippage) if direction > 0 else price
    reach = atr[before, place] * units
    stop = int(np.rint(crossed - direction * rules.stop_multiple * reach))
    target = int(np.rint(crossed + direction * rules.target_multiple * reach))
    if profiled:
        # Written where no position lies, to be read below.
        liquidation = liquidation_ticks(direction, reference, units, rules)
        if not open_exits(0, exits, direction, crossed, reach, liquidation, now_ms, exit_rules):
            return STOP_UNUSABLE, 0, 0, 0, 0, 0.0, 0.0
        stop, target = exits[0, X_STOP], exits[0, X_TARGETS]
    elif min(stop, target) <= 0 or not (direction * stop < direction * crossed < direction * target):
        return STOP_UNUSABLE, 0, 0, 0, 0, 0.0, 0.0
    stop_price = stop / units
    away = reference * room_to_liquidation(direction, rules)
    if away < rules.min_liquidation_stops * abs(reference - stop_price):
        return LIQUIDATION, 0, 0, 0, 0, 0.0, 0.0
    confidence = rises if rises >= 0.5 else 1.0 - rises
    if confidence < rules.governor_confidence:
        return UNSURE, 0, 0, 0, 0, 0.0, 0.0
    volatility = volatility_of(atr[before, place], prices, before, place, instruments, rules)
    if volatility > rules.governor_volatility:
        return WILD, 0, 0, 0, 0, 0.0, 0.0
    if fallen:
        return FALLEN, 0, 0, 0, 0, 0.0, 0.0
    unit_loss = abs(reference - stop_price) + (reference + stop_price) * rules.side_costs
    aim = target / units
    gain = abs(aim - reference) - (reference + aim) * rules.side_costs
    if profiled:
        gain = mean_gain(exits, reference, units, rules, exit_rules)
    share = share_at_risk(confidence, volatility, gain, unit_loss, rules)
    if share < 0.0:
        return NO_EDGE, 0, 0, 0, 0, 0.0, 0.0
    size = min(money * share / unit_loss, rules.max_notional / reference)
    size *= instruments[place, QUANTITY_UNITS]
    steps = int(np.floor(size))
    # A whole number of steps may come out a hair below.
    if size - steps > 1.0 - (4e-15 * size + 1e-12):
        steps += 1
    steps = min(steps, instruments[place, MAX_STEPS])
    if steps < 1:
        return BELOW_STEP, 0, 0, 0, 0, 0.0, 0.0
    quantity = steps / instruments[place, QUANTITY_UNITS]
    notional = quantity * reference
    if notional < smallest:
        return BELOW_NOTIONAL, 0, 0, 0, 0, 0.0, 0.0
    loss = quantity * unit_loss
    if gross + notional > rules.max_exposure * money:
        return EXPOSURE, 0, 0, 0, 0, 0.0, 0.0
    if heat + loss > rules.max_heat * money:
        return HEAT, 0, 0, 0, 0, 0.0, 0.0
    if notional > rules.max_concentration * money:
        return CONCENTRATION, 0, 0, 0, 0, 0.0, 0.0
    return -1, direction, steps, stop, target, notional, loss
