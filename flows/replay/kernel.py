"""
The rules of `replay.word` compiled: one account, all symbols, candle by candle, in whole ticks, steps and 1e-8 units.

What the venue rounds is integer arithmetic here and equal to the last digit. What the worker decides on real numbers is
float64; it differs from the worker's decimals only where two sides of a comparison agree to some fourteen digits. Numba
keeps what it compiled by the date of this file: where the modules it imports changed, empty `__pycache__`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from flows.replay.compiled_entry import (
    CONCENTRATION,
    CONFIDENCE,
    COOLDOWN,
    DRAWDOWN,
    EDGE,
    EXPOSURE,
    HEAT,
    HELD,
    SLOTS,
    STOPPED,
    WEEKLY,
    plan_entry,
)
from flows.replay.compiled_exits import EXIT_COLUMNS, FILL_COLUMNS, MOST_FILLS, ExitRules, shown_price
from flows.replay.compiled_profiles import enter_profiled, inside_profiled, take_parts
from flows.replay.compiled_risk import (
    choose_to_close,
    close_chosen,
    day_of,
    fall,
    is_walled,
    week_of,
)
from flows.replay.fills import (
    BOOK_COLUMNS,
    CLOSE,
    END,
    HIGH,
    LEVELS,
    LOW,
    MIN_NOTIONAL_E8,
    OPEN,
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
from flows.replay.resting import (
    MARKET,
    R_DIRECTION,
    R_LIMIT,
    R_STEPS,
    R_STOP,
    R_SYMBOL,
    R_TARGET,
    REST_COLUMNS,
    work,
)
from infra.sandbox.engine import path


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
    profiled: bool,  # noqa: FBT001 - as above
    exit_rules: ExitRules,
) -> tuple[int, int, int, int, int]:
    """
    Walk through a market once.

    `prices` holds ticks [symbols, candles, 4]; other tables are [candles, symbols].

    With `profiled`, positions end by `exit_rules`: their exits are kept in further columns of the book, so that they
    move with it, and stop and nearest target where those of the barriers are.

    Writes trades [n, 10], `equity` (1e-8) and `exposure` [candles + 1] and `denied` [19] where they are given to it.

    Returns:
        How many trades there are, -1 where `trades` is too short; rows walked; approvals; when it was liquidated, and
        when its emergency stop was set off, or 0.
    """
    symbols = prices.shape[0]
    book = np.zeros((rules.max_positions, BOOK_COLUMNS + (1 + EXIT_COLUMNS if profiled else 0)), np.int64)
    exits = book[:, BOOK_COLUMNS + 1 :]
    planned_exits = np.zeros((1, EXIT_COLUMNS), np.int64)
    parts = np.zeros((MOST_FILLS, FILL_COLUMNS), np.int64)
    risk = np.zeros(rules.max_positions)
    carried = np.zeros(rules.max_positions)
    held = np.zeros(symbols, np.bool_)
    last_entry = np.full(symbols, -rules.cooldown_ms - 1 - (1 << 60), np.int64)
    fills = np.zeros((LEVELS, 2), np.int64)
    wanted = np.zeros(symbols, np.int64)
    edges = np.zeros(symbols)
    plans = np.zeros((rules.max_positions, 5), np.int64)
    plan_risk = np.zeros(rules.max_positions)
    rest = np.zeros((rules.max_positions, REST_COLUMNS), np.int64)
    rest_risk = np.zeros(rules.max_positions)
    open_count, count, approved, boundary = 0, 0, 0, 0
    wallet = rules.balance_e8
    balance, day_start, week_start, peak, previous, previous_ms = rules.balance_e8, 0, 0, 0, 0, -1
    stopped_ms = 0
    chosen = np.zeros(rules.max_positions, np.bool_)
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
            price = prices[place, row, OPEN]
            if price > 0:
                stopped = direction * price <= direction * book[slot, 7]
                if stopped or direction * price >= direction * book[slot, 8]:
                    if count == len(trades):
                        return -1, row, approved, 0, 0
                    if profiled:
                        brought, count, is_over = take_parts(
                            slot, shown_price(slot, exits, price, 0, parts, 0, exit_rules), parts, now_ms,
                            book, exits, risk, carried, rules, instruments, fills, trades, count,
                        )  # fmt: skip
                        wallet += brought
                        if not is_over:
                            slot += 1
                            continue
                        held[place] = False
                        open_count -= 1
                        book[slot], risk[slot], carried[slot] = book[open_count], risk[open_count], carried[open_count]
                        continue
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
                    return -1, row, approved, 0, 0
                place = book[slot, 0]
                wallet += leave(
                    slot, last_price(prices, row, place), END, now_ms,
                    book, rules, instruments, fills, trades, count,
                )  # fmt: skip
                count += 1
            equity[row] = wallet
            exposure[row] = 0.0
            return count, row, approved, now_ms, stopped_ms
        if previous_ms < 0:
            day_start, week_start, peak = balance, balance, balance
        else:
            if day_of(previous_ms) != day_of(now_ms):
                day_start = previous
            if week_of(previous_ms) != week_of(now_ms):
                week_start = previous
            peak = max(peak, balance)
        previous, previous_ms = balance, now_ms
        equity[row] = balance
        exposure[row] = at_risk
        money = balance * 1e-8
        if stopped_ms == 0 and is_walled(balance, day_start, week_start, peak, rules):
            stopped_ms = now_ms
            choose_to_close(book, risk, open_count, prices, row, rules, instruments, chosen)
            wallet, open_count, count = close_chosen(
                chosen, row, now_ms, wallet, prices, book, risk, carried, held, open_count,
                rules, instruments, fills, trades, count,
            )  # fmt: skip
            if count < 0:
                return -1, row, approved, 0, 0
        lost, lost_week = fall(balance, day_start), fall(balance, week_start)
        refusal = -1
        if stopped_ms > 0:
            refusal = STOPPED
        elif lost >= rules.max_drawdown:
            refusal = DRAWDOWN
        elif lost_week >= rules.max_weekly_drawdown:
            refusal = WEEKLY
        fallen = max(lost / rules.max_drawdown, lost_week / rules.max_weekly_drawdown) >= rules.governor_drawdown
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
        if refusal >= 0:
            denied[refusal] += scored
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
            if smallest > rules.max_concentration * money:
                denied[CONCENTRATION] += 1
                continue
            code, direction, steps, stop, target, notional, loss = plan_entry(
                place, row, money, gross, heat, smallest, fallen, prices, atr, probability, instruments, rules,
                profiled, now_ms, planned_exits, exit_rules,
            )  # fmt: skip
            if code >= 0:
                denied[code] += 1
                continue
            gross += notional
            heat += loss
            plans[planned, 0], plans[planned, 1], plans[planned, 2] = place, direction, steps
            plans[planned, 3], plans[planned, 4] = stop, target
            plan_risk[planned] = loss
            planned += 1
        approved += planned
        resting = 0
        # Entries, as far as the venue takes them.
        for plan in range(planned):
            place, direction, steps = plans[plan, 0], plans[plan, 1], plans[plan, 2]
            stop, target = plans[plan, 3], plans[plan, 4]
            last_entry[place] = now_ms
            last = last_price(prices, row, place)
            value = instruments[place, VALUE_E8]
            ordered = last
            if rules.style != MARKET:
                ordered = last - direction * half_spread(last, rules.spread_e4)
            asked = steps * ordered * value * 1e-8
            free = max(0.0, money - initial)
            if asked < (instruments[place, MIN_NOTIONAL_E8] * 1e-8) or (
                asked / rules.leverage + asked * rules.fee_e8 * 1e-8 > free
            ):
                continue
            if rules.style != MARKET:
                initial += asked / rules.leverage
                at = resting
                while at > 0 and rest[at - 1, R_SYMBOL] > place:
                    rest[at], rest_risk[at] = rest[at - 1], rest_risk[at - 1]
                    at -= 1
                rest[at, R_SYMBOL], rest[at, R_DIRECTION], rest[at, R_STEPS] = place, direction, steps
                rest[at, R_LIMIT], rest[at, R_STOP], rest[at, R_TARGET] = ordered, stop, target
                rest_risk[at] = plan_risk[plan]
                resting += 1
                continue
            filled = walk(last, direction, steps, place, rules, instruments, fills)
            slot = open_count
            book[slot] = 0
            book[slot, 0], book[slot, 1], book[slot, 2] = place, direction, steps
            book[slot, 7], book[slot, 8], book[slot, 9], book[slot, 10] = stop, target, now_ms, now_ms
            notional, fees = 0, 0
            for fill in range(filled):
                worth = fills[fill, 0] * fills[fill, 1]
                notional += worth
                fees += half_even(worth * value * rules.fee_e8, 100_000_000)
            book[slot, 3], book[slot, 4], book[slot, 5] = notional, direction * notional * value, fees
            risk[slot], carried[slot] = plan_risk[plan], notional * value * 1e-8
            reason = STOP
            if profiled:
                stop, reason = enter_profiled(
                    slot, row, now_ms, notional, prices, atr, book, exits, rules, instruments, exit_rules
                )
            wallet -= fees
            money += (direction * steps * last * value - direction * notional * value - fees) * 1e-8
            initial += asked / rules.leverage
            if direction * last <= direction * stop:
                # Already through the stop: the venue takes none, and the worker leaves.
                if count == len(trades):
                    return -1, row, approved, 0, 0
                brought = leave(slot, last, reason, now_ms, book, rules, instruments, fills, trades, count)
                wallet += brought
                count += 1
                money = money - (direction * steps * last * value - direction * notional * value - brought) * 1e-8
                initial -= asked / rules.leverage
                continue
            held[place] = True
            open_count += 1
        # What was held long enough, then what the candle's further prices end.
        if resting > 0:
            wallet, open_count, count = work(
                row, now_ms, wallet, prices, rest, rest_risk, resting, book, risk, carried, held, open_count,
                rules, instruments, fills, trades, count,
            )  # fmt: skip
            if count < 0:
                return -1, row, approved, 0, 0
            continue
        if profiled:
            wallet, open_count, count = inside_profiled(
                row, now_ms, wallet, prices, atr, book, exits, risk, carried, held, open_count,
                rules, instruments, fills, trades, count, parts, exit_rules,
            )  # fmt: skip
            if count < 0:
                return -1, row, approved, 0, 0
            continue
        slot = 0
        while slot < open_count:
            place, direction = book[slot, 0], book[slot, 1]
            step, reason, reference = 0, TIME, 0
            if now_ms >= book[slot, 10] + rules.holding_ms:
                reference = last_price(prices, row, place)
            elif prices[place, row, OPEN] > 0:
                step, reason, reference = exit_inside(
                    direction, book[slot, 7], book[slot, 8],
                    prices[place, row, OPEN], prices[place, row, HIGH], prices[place, row, LOW],
                    prices[place, row, CLOSE], rules,
                )  # fmt: skip
            if reference == 0:
                slot += 1
                continue
            if count == len(trades):
                return -1, row, approved, 0, 0
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
            return -1, end, approved, 0, 0
        place = book[slot, 0]
        reference = prices[place, end - 1, CLOSE]
        if reference == 0:
            reference = last_price(prices, end - 1, place)
        wallet += leave(
            slot, reference, END, times[end - 1] + rules.timeframe_ms,
            book, rules, instruments, fills, trades, count,
        )  # fmt: skip
        count += 1
    equity[end] = wallet
    exposure[end] = 0.0
    return count, end, approved, 0, stopped_ms
