"""
The rules of `replay.word` compiled: one account, all symbols, candle by candle, in whole ticks, steps and 1e-8 units.

What the venue rounds is integer arithmetic here and equal to the last digit. What the worker decides on real numbers is
float64; it differs from the worker's decimals only where two sides of a comparison agree to some fourteen digits. Numba
keeps what it compiled by the date of this file: where `fills` changed, empty `__pycache__`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from flows.replay.fills import (
    CLOSE,
    END,
    HIGH,
    LEVELS,
    LOW,
    MAX_STEPS,
    MIN_NOTIONAL_E8,
    OPEN,
    PRICE_UNITS,
    QUANTITY_UNITS,
    STOP,
    TARGET,
    TIME,
    VALUE_E8,
    Floats,
    Ints,
    Rules,
    exit_inside,
    half_even,
    half_spread,
    last_price,
    leave,
    walk,
)
from infra.sandbox.engine import path

# Codes of denials, as counted.
(
    DRAWDOWN, CONFIDENCE, EDGE, HELD, COOLDOWN, SLOTS, EXPOSURE, HEAT, STOP_UNUSABLE, BELOW_STEP, BELOW_NOTIONAL,
) = range(11)  # fmt: skip
DENIALS: Final = 11

_DAY_MS: Final = 86_400_000


@njit(cache=True, nogil=True, error_model="numpy")
def simulate(  # noqa: C901, PLR0911, PLR0912, PLR0915, PLR0917 - one pass over memory, without keywords
    times: Ints,
    prices: Ints,
    atr: Floats,
    expected: Floats,
    probability: Floats,
    funding_ms: Ints,
    funding_rate: Ints,
    instruments: Ints,
    rules: Rules,
    trades: Ints,
    equity: Ints,
    exposure: Floats,
    denied: Ints,
) -> tuple[int, int, int, int]:
    """
    Walk through a market once.

    Writes trades [n, 10], `equity` (1e-8) and `exposure` [candles + 1] and `denied` [11] where they are given to it.

    Returns:
        How many trades there are, -1 where `trades` is too short; rows walked; approvals; when it was liquidated, or 0.
    """
    symbols = prices.shape[1]
    book = np.zeros((rules.max_positions, 11), np.int64)
    risk = np.zeros(rules.max_positions)
    carried = np.zeros(rules.max_positions)
    held = np.zeros(symbols, np.bool_)
    last_entry = np.full(symbols, -rules.cooldown_ms - 1 - (1 << 60), np.int64)
    fills = np.zeros((LEVELS, 2), np.int64)
    wanted = np.zeros(symbols, np.int64)
    edges = np.zeros(symbols)
    plans = np.zeros((rules.max_positions, 5), np.int64)
    plan_risk = np.zeros(rules.max_positions)
    open_count, count, approved, boundary = 0, 0, 0, 0
    wallet = rules.balance_e8
    balance, day_start, previous, previous_ms = rules.balance_e8, 0, 0, -1
    equity[0] = wallet
    exposure[0] = 0.0
    round_trip = 2 * rules.side_costs
    threshold = rules.threshold
    for row in range(1, len(times)):
        now_ms = times[row]
        # The first price of the candle may lie beyond a stop or a target.
        slot = 0
        while slot < open_count:
            place, direction = book[slot, 0], book[slot, 1]
            price = prices[row, place, OPEN]
            if price > 0:
                stopped = direction * price <= direction * book[slot, 7]
                if stopped or direction * price >= direction * book[slot, 8]:
                    if count == len(trades):
                        return -1, row, approved, 0
                    reference = price if stopped else book[slot, 8]
                    wallet += leave(
                        slot, reference, STOP if stopped else TARGET, now_ms,
                        book, rules, instruments, fills, trades, count,
                    )  # fmt: skip
                    count += 1
                    held[place] = False
                    open_count -= 1
                    book[slot], risk[slot], carried[slot] = book[open_count], risk[open_count], carried[open_count]
                    continue
            slot += 1
        while boundary < len(funding_ms) and funding_ms[boundary] < now_ms:
            boundary += 1
        pays = boundary < len(funding_ms) and funding_ms[boundary] == now_ms
        # Marks.
        balance, gross, heat, at_risk = wallet, 0.0, 0.0, 0.0
        initial = 0.0
        for slot in range(open_count):
            place, direction, steps = book[slot, 0], book[slot, 1], book[slot, 2]
            price = last_price(prices, row, place)
            notional = steps * price * instruments[place, VALUE_E8]
            if pays and funding_rate[boundary, place] != 0:
                paid = half_even(-direction * notional * funding_rate[boundary, place], 100_000_000)
                book[slot, 6] += paid
                wallet += paid
                balance += paid
            balance += direction * notional - book[slot, 4]
            at_risk += notional * 1e-8
            gross += carried[slot]
            heat += risk[slot]
        initial = at_risk / rules.leverage
        if open_count > 0 and balance * 1e-8 <= 0.01 * at_risk:
            # The venue closes everything; what it would have left is not worth modelling.
            for slot in range(open_count):
                if count == len(trades):
                    return -1, row, approved, 0
                place = book[slot, 0]
                wallet += leave(
                    slot, last_price(prices, row, place), END, now_ms,
                    book, rules, instruments, fills, trades, count,
                )  # fmt: skip
                count += 1
            equity[row] = wallet
            exposure[row] = 0.0
            return count, row, approved, now_ms
        if previous_ms < 0:
            day_start = balance
        elif previous_ms // _DAY_MS != now_ms // _DAY_MS:
            day_start = previous
        previous, previous_ms = balance, now_ms
        equity[row] = balance
        exposure[row] = at_risk
        money = balance * 1e-8
        refused = balance <= 0 or 1.0 - balance / day_start >= rules.max_drawdown
        # Candidates that are confident, worth their costs and free.
        found = 0
        before = row - 1
        said = probability[before]
        scored, confident = 0, 0
        for place in range(symbols):
            rises = said[place]
            confidence = rises if rises >= 0.5 else 1.0 - rises
            scored += confidence >= 0.0
            confident += confidence >= threshold
        if refused:
            denied[DRAWDOWN] += scored
            confident = 0
        else:
            denied[CONFIDENCE] += scored - confident
        for place in range(symbols if confident else 0):
            rises = said[place]
            confidence = rises if rises >= 0.5 else 1.0 - rises
            if not confidence >= threshold:
                continue
            last = last_price(prices, row, place)
            half = half_spread(last, rules.spread_e4)
            direction = 1 if rises > 0.5 else -1
            edge = direction * expected[before, place] - (round_trip + (2 * half) / last)
            if not edge > 0:
                denied[EDGE] += 1
            elif held[place]:
                denied[HELD] += 1
            elif now_ms - last_entry[place] < rules.cooldown_ms:
                denied[COOLDOWN] += 1
            else:
                # Best edge first; equal ones by name.
                at = found
                while at > 0 and edges[at - 1] < edge:
                    edges[at], wanted[at] = edges[at - 1], wanted[at - 1]
                    at -= 1
                edges[at], wanted[at] = edge, place
                found += 1
        planned = 0
        for rank in range(found):
            place = wanted[rank]
            if open_count + planned >= rules.max_positions:
                denied[SLOTS] += found - rank
                break
            smallest = max(rules.min_notional, (instruments[place, MIN_NOTIONAL_E8] * 1e-8))
            if gross + smallest > rules.max_exposure * money:
                denied[EXPOSURE] += 1
                continue
            if heat > rules.max_heat * money:
                denied[HEAT] += 1
                continue
            units = instruments[place, PRICE_UNITS]
            last = last_price(prices, row, place)
            direction = 1 if probability[before, place] > 0.5 else -1
            crossed = last + direction * half_spread(last, rules.spread_e4)
            price = crossed / units
            reference = price * (1.0 + rules.slippage) if direction > 0 else price
            reach = atr[before, place] * units
            stop = int(np.rint(crossed - direction * rules.stop_multiple * reach))
            target = int(np.rint(crossed + direction * rules.target_multiple * reach))
            if min(stop, target) <= 0 or not (direction * stop < direction * crossed < direction * target):
                denied[STOP_UNUSABLE] += 1
                continue
            stop_price = stop / units
            unit_loss = abs(reference - stop_price) + (reference + stop_price) * rules.side_costs
            size = min(money * rules.risk_per_trade / unit_loss, rules.max_notional / reference)
            size *= instruments[place, QUANTITY_UNITS]
            steps = int(np.floor(size))
            # A whole number of steps may come out a hair below.
            if size - steps > 1.0 - (4e-15 * size + 1e-12):
                steps += 1
            steps = min(steps, instruments[place, MAX_STEPS])
            if steps < 1:
                denied[BELOW_STEP] += 1
                continue
            quantity = steps / instruments[place, QUANTITY_UNITS]
            notional = quantity * reference
            if notional < smallest:
                denied[BELOW_NOTIONAL] += 1
                continue
            loss = quantity * unit_loss
            if gross + notional > rules.max_exposure * money:
                denied[EXPOSURE] += 1
                continue
            if heat + loss > rules.max_heat * money:
                denied[HEAT] += 1
                continue
            gross += notional
            heat += loss
            plans[planned, 0], plans[planned, 1], plans[planned, 2] = place, direction, steps
            plans[planned, 3], plans[planned, 4] = stop, target
            plan_risk[planned] = loss
            planned += 1
        approved += planned
        # Entries, as far as the venue takes them.
        for plan in range(planned):
            place, direction, steps = plans[plan, 0], plans[plan, 1], plans[plan, 2]
            stop, target = plans[plan, 3], plans[plan, 4]
            last_entry[place] = now_ms
            last = last_price(prices, row, place)
            value = instruments[place, VALUE_E8]
            asked = steps * last * value * 1e-8
            free = max(0.0, money - initial)
            if asked < (instruments[place, MIN_NOTIONAL_E8] * 1e-8) or (
                asked / rules.leverage + asked * rules.fee_e8 * 1e-8 > free
            ):
                continue
            filled = walk(last, direction, steps, place, rules, instruments, fills)
            slot = open_count
            book[slot] = 0
            book[slot, 0], book[slot, 1], book[slot, 2] = place, direction, steps
            book[slot, 7], book[slot, 8], book[slot, 9] = stop, target, now_ms
            notional, fees = 0, 0
            for fill in range(filled):
                worth = fills[fill, 0] * fills[fill, 1]
                notional += worth
                fees += half_even(worth * value * rules.fee_e8, 100_000_000)
            book[slot, 3], book[slot, 4], book[slot, 5] = notional, direction * notional * value, fees
            risk[slot], carried[slot] = plan_risk[plan], notional * value * 1e-8
            wallet -= fees
            money += (direction * steps * last * value - direction * notional * value - fees) * 1e-8
            initial += asked / rules.leverage
            if direction * last <= direction * stop:
                # Already through the stop: the venue takes none, and the worker leaves.
                if count == len(trades):
                    return -1, row, approved, 0
                brought = leave(slot, last, STOP, now_ms, book, rules, instruments, fills, trades, count)
                wallet += brought
                count += 1
                money = money - (direction * steps * last * value - direction * notional * value - brought) * 1e-8
                initial -= asked / rules.leverage
                continue
            held[place] = True
            open_count += 1
        # What was held long enough, then what the candle's further prices end.
        slot = 0
        while slot < open_count:
            place, direction = book[slot, 0], book[slot, 1]
            step, reason, reference = 0, TIME, 0
            if now_ms >= book[slot, 9] + rules.holding_ms:
                reference = last_price(prices, row, place)
            elif prices[row, place, OPEN] > 0:
                step, reason, reference = exit_inside(
                    direction, book[slot, 7], book[slot, 8],
                    prices[row, place, OPEN], prices[row, place, HIGH], prices[row, place, LOW],
                    prices[row, place, CLOSE], rules,
                )  # fmt: skip
            if reference == 0:
                slot += 1
                continue
            if count == len(trades):
                return -1, row, approved, 0
            wallet += leave(
                slot, reference, reason, now_ms + step * path.STEP_MS,
                book, rules, instruments, fills, trades, count,
            )  # fmt: skip
            count += 1
            held[place] = False
            open_count -= 1
            book[slot], risk[slot], carried[slot] = book[open_count], risk[open_count], carried[open_count]
    end = len(times)
    for slot in range(open_count):
        if count == len(trades):
            return -1, end, approved, 0
        place = book[slot, 0]
        reference = prices[end - 1, place, CLOSE]
        if reference == 0:
            reference = last_price(prices, end - 1, place)
        wallet += leave(
            slot, reference, END, times[end - 1] + rules.timeframe_ms,
            book, rules, instruments, fills, trades, count,
        )  # fmt: skip
        count += 1
    equity[end] = wallet
    exposure[end] = 0.0
    return count, end, approved, 0
