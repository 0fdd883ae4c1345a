"""What holds of every profile, trade and path: stops tighten, parts add up, all ends in time, nothing is foreseen."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from inference.domain.exit_profile import ExitProfile, barriers_profile
from inference.domain.exit_state import (
    CandleClosed,
    CloseAll,
    DropTarget,
    EmergencyCalled,
    ExitCause,
    ExitState,
    Held,
    HoldStop,
    HoldTarget,
    Observation,
    Priced,
)
from inference.domain.policy import Policy
from inference.domain.position import Position
from inference.domain.signal import Direction
from inference.exits.barriers import barriers, is_held_too_long
from inference.exits.brain import break_even_price, folded, levels, opened, standing, step
from inference.exits.intrabar import OPEN, Prices, candle_exits
from inference.exits.parts import parts_of
from tests.exit_support import (
    MIDDLE,
    SIGNS,
    START_MS,
    STEP_MS,
    D,
    candles,
    entries,
    facts,
    in_prices,
    instrument,
    only_tightens,
    profiles,
    trades,
    walked,
)


@st.composite
def scenes(draw, *, free=False, of=None):
    """Return a profile, and a trade for which it gives a usable stop."""
    profile = draw(profiles(free=free))
    trade = draw(trades(free=free) if of is None else trades(free=free, of=of))
    assume(levels(profile, trade) is not None)
    return profile, trade


@st.composite
def journals(draw, profile: ExitProfile, trade) -> list[Observation]:
    """Return anything that may be seen of a trade, fills growing as they do, all else in any order."""
    tick, size = trade.instrument.price_tick, trade.instrument.quantity_step
    entry, left, taken = D(0), D(0), [D(0)] * len(profile.targets)
    cost = D(0)
    seen: list[Observation] = []
    for _ in range(draw(st.integers(1, 14))):
        kind = draw(st.sampled_from(["enter", "take", "leave", "close", "missing", "price", "emergency", "again"]))
        price = (MIDDLE + draw(st.integers(-900, 900))) * tick
        at_ms = START_MS + draw(st.integers(0, 16)) * STEP_MS
        quantity = draw(st.integers(1, 900)) * size
        match kind:
            case "enter":
                entry, cost = entry + quantity, cost + quantity * price
                seen.append(Held(entered=entry, cost=cost, exited=left, taken=tuple(taken)))
            case "take" | "leave" if entry > left:
                quantity = min(quantity, entry - left)
                left += quantity
                if kind == "take" and taken:
                    taken[draw(st.integers(0, len(taken) - 1))] += quantity
                seen.append(Held(entered=entry, cost=cost, exited=left, taken=tuple(taken)))
            case "close":
                seen.append(CandleClosed(close_ms=at_ms, close=price))
            case "missing":
                seen.append(CandleClosed(close_ms=at_ms, close=None))
            case "price":
                seen.append(
                    Priced(at_ms=at_ms, price=price, liquidation_price=draw(st.sampled_from([None, price / 2])))
                )
            case "emergency" if draw(st.integers(0, 3)) == 0:
                seen.append(EmergencyCalled(at_ms=at_ms))
            case "again" if seen:
                seen.append(draw(st.sampled_from(seen[-1:])))
            case _:
                pass
    return seen


def check_wanted(profile: ExitProfile, state: ExitState) -> None:
    """Check that what is wanted protects all that is open, and would turn nothing over."""
    wanted, left = standing(profile, state), state.open_quantity
    if left == 0:
        assert wanted.stop is None
        assert wanted.targets == ()
        assert wanted.close is None
        return
    assert wanted.stop is not None
    assert wanted.stop.quantity == left
    assert (wanted.close is not None) == (state.closing is not None)
    resting = sum((one.quantity for one in wanted.targets), D(0))
    assert all(one.quantity > 0 for one in wanted.targets)
    assert resting <= left
    if wanted.targets and not profile.has_runner:
        assert resting == left


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_position_is_never_without_a_stop_that_only_tightens(data):
    """Whatever is seen in whatever order: all that is open has a stop, it never loosens, and exits exceed nothing."""
    profile, trade = data.draw(scenes())
    states = [opened(profile, trade)]
    for seen in data.draw(journals(profile, trade)):
        state, actions = step(profile, states[-1], seen)
        states.append(state)
        check_wanted(profile, state)
        left = state.open_quantity
        for action in actions:
            if isinstance(action, HoldStop | HoldTarget):
                assert 0 < action.quantity <= left
            else:
                assert isinstance(action, CloseAll | DropTarget)

    assert only_tightens(states)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_actions_and_states_say_the_same(data):
    """Who carries out the actions as they come holds at the end what the state wants."""
    profile, trade = data.draw(scenes())
    state = opened(profile, trade)
    stop: HoldStop | None = None
    targets: dict[int, HoldTarget] = {}
    leaving = False
    for seen in data.draw(journals(profile, trade)):
        state, actions = step(profile, state, seen)
        for action in actions:
            match action:
                case HoldStop():
                    stop = action
                case HoldTarget():
                    targets[action.number] = action
                case DropTarget():
                    del targets[action.number]
                case CloseAll():
                    leaving = True
        wanted = standing(profile, state)
        if wanted.stop is not None:
            assert stop == wanted.stop
            assert leaving == (wanted.close is not None)

        assert tuple(targets[number] for number in sorted(targets)) == wanted.targets


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_worker_that_starts_again_knows_what_it_knew(data):
    """Observations, written and read, fold to the state that stepping gave; hearing one twice changes nothing."""
    profile, trade = data.draw(scenes())
    seen = data.draw(journals(profile, trade))
    state = opened(profile, trade)
    for one in seen:
        state, _ = step(profile, state, one)
        again, actions = step(profile, state, one)

        assert again == state
        assert actions == ()

    written = msgspec.json.encode([profile, trade, seen])
    read = msgspec.json.decode(written, type=tuple[ExitProfile, type(trade), list[Observation]])

    assert folded(*read) == state
    assert msgspec.json.decode(msgspec.json.encode(state), type=ExitState) == state
    assert len(msgspec.json.encode(state)) < 1500


@settings(max_examples=300, deadline=None)
@given(profiles(), st.integers(1, 20_000), st.sampled_from(["0", "5", "100"]), st.sampled_from(["0.001", "1"]))
def test_parts_add_up_on_steps_and_stand_at_the_venue(profile, steps, least, size):
    """Parts are whole steps that together are the quantity, none below a minimum unless all of it is."""
    traded = instrument(step=size, min_notional=least)
    quantity = steps * traded.quantity_step
    prices = [D(100) + place for place in range(len(profile.targets))]
    parts = parts_of(profile, quantity, prices=prices, instrument=traded)
    rest = quantity - sum(parts, D(0))

    assert all(part % traded.quantity_step == 0 for part in parts)
    assert rest >= 0
    assert rest == 0 or profile.has_runner or not parts
    for part, price in zip(parts, prices, strict=True):
        assert part in (0, quantity) or part * price >= traded.min_notional
    if parts and rest not in (0, quantity):
        assert rest * max(prices) >= traded.min_notional
    for part, target in zip(parts[:1], profile.targets[:1], strict=True):
        assert part == 0 or part >= traded.round_quantity(quantity * target.share)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_path_ends_in_time_and_all_of_it_leaves_once(data):
    """All that was entered leaves, and no more, by the first price after the time stop; the stop only tightens."""
    profile, trade = data.draw(scenes())
    entry = data.draw(entries(trade))
    state, _ = step(profile, opened(profile, trade), entry)
    states, fills = walked(profile, state, in_prices(data.draw(candles()), trade))
    last = max(number for number, _ in fills)
    begins_ms = START_MS + last * STEP_MS

    assert sum((fill.quantity for _, fill in fills), D(0)) == entry.entered
    assert states[-1].open_quantity == 0
    assert begins_ms <= state.until_ms
    assert only_tightens([state, *states])
    lefts = [one.open_quantity for one in states]
    assert lefts == sorted(lefts, reverse=True)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_close_at_break_even_loses_nothing(data):
    """The stop of the break-even pays both fees and the margin, exactly; one tick nearer to the loss would not."""
    profile, trade = data.draw(scenes())
    entry = data.draw(entries(trade))
    state, _ = step(profile, opened(profile, trade), entry)
    price, sign = Fraction(break_even_price(profile, state)), trade.sign
    average, fee = Fraction(entry.cost) / Fraction(entry.entered), Fraction(trade.fee)
    margin = Fraction(profile.break_even_margin)

    def net(at: Fraction) -> Fraction:
        return sign * (at - average) - fee * (at + average)

    assert net(price) >= margin * average
    assert net(price - sign * Fraction(trade.instrument.price_tick)) < margin * average
    states, _ = walked(profile, state, in_prices(data.draw(candles()), trade))
    for one in states:
        if one.stop_cause is ExitCause.BREAK_EVEN:
            assert net(Fraction(one.stop_price)) >= 0


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_future_changes_nothing(data):
    """Two futures after a common past: the past's fills and states are the same, and so is what the next open does."""
    profile, trade = data.draw(scenes())
    state, _ = step(profile, opened(profile, trade), data.draw(entries(trade)))
    rows, others = data.draw(candles()), data.draw(candles())
    cut = data.draw(st.integers(0, 12))
    begin = rows[cut][0]
    high, low, close = begin + others[cut][1] % 300, begin - others[cut][2] % 300, begin
    changed = [*rows[:cut], (begin, high, low, close), *others[cut + 1 :]]
    states, fills = walked(profile, state, in_prices(rows, trade))
    after, others_fills = walked(profile, state, in_prices(changed, trade))

    assert states[:cut] == after[:cut]

    def past(found):
        return [(n, fill) for n, fill in found if n < cut or (n == cut and fill.moment == OPEN)]

    assert past(fills) == past(others_fills)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_long_and_short_are_mirror_images(data):
    """Without costs, which are shares of prices, a path turned upside down ends at the mirrored prices."""
    profile, trade = data.draw(scenes(free=True, of=st.builds(instrument, step=st.sampled_from(["0.001", "1"]))))
    entry = data.draw(entries(trade))
    top = 2 * trade.reference_price
    turned = Direction.SHORT if trade.direction is Direction.LONG else Direction.LONG
    mirrored = replace(trade, direction=turned)
    rows = data.draw(candles())
    upside_down = [tuple(2 * MIDDLE - row[column] for column in (0, 2, 1, 3)) for row in rows]
    state, _ = step(profile, opened(profile, trade), entry)
    other, _ = step(profile, opened(profile, mirrored), replace(entry, cost=top * entry.entered - entry.cost))
    states, fills = walked(profile, state, in_prices(rows, trade))
    others, mirrored_fills = walked(profile, other, in_prices(upside_down, mirrored))

    assert [one.stop_price for one in states] == [top - one.stop_price for one in others]
    assert [(one.stop_cause, one.reached, one.closing) for one in states] == [
        (one.stop_cause, one.reached, one.closing) for one in others
    ]
    assert [(n, fill) for n, fill in fills] == [
        (n, replace(fill, price=top - fill.price)) for n, fill in mirrored_fills
    ]


@settings(max_examples=300, deadline=None)
@given(
    st.builds(
        Policy,
        stop_atr_multiple=st.decimals("0.01", "9", places=2),
        target_atr_multiple=st.decimals("0.01", "9", places=2),
        max_holding_candles=st.integers(1, 40),
    ),
    SIGNS,
    st.decimals("0.0001", "40", places=4),
    st.decimals("0.01", "100", places=3),
    st.integers(0, STEP_MS - 1),
)
def test_the_profile_of_barriers_is_todays_rule(policy, direction, atr, reference, late_ms):
    """Stop, target, refusal and the end of time are those of `exits.barriers`, to the last digit."""
    profile, traded = barriers_profile(policy), instrument()
    today = barriers(direction=direction, reference_price=reference, atr=atr, policy=policy, instrument=traded)
    trade = replace(facts(direction=direction, reference=str(reference), atr=str(atr)), planned_ms=START_MS + late_ms)
    given_levels = levels(profile, trade)
    if today is None:
        assert given_levels is None
        return
    assert given_levels is not None
    assert given_levels.stop_price == today.stop_price
    assert given_levels.target_prices == (today.target_price,)

    state, _ = step(profile, opened(profile, trade), Held(entered=D(1), cost=reference))
    position = Position(
        symbol="A", direction=direction, quantity=D(1), entry_price=reference, entry_time_ms=trade.planned_ms,
        trade_id="t",
    )  # fmt: skip
    for number in range(1, 42):
        close_ms = START_MS + number * STEP_MS
        state, _ = step(profile, state, CandleClosed(close_ms=close_ms, close=reference))
        late = is_held_too_long(position, candle_close_ms=close_ms, policy=policy, timeframe_ms=STEP_MS)

        assert (state.closing is ExitCause.TIME_STOP) == late
        assert state.stop_price == today.stop_price


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_candle_is_its_prices_in_order(data):
    """A candle that shows one price four times does what that price does once: nothing inside it counts twice."""
    profile, trade = data.draw(scenes())
    state, _ = step(profile, opened(profile, trade), data.draw(entries(trade)))
    price = (MIDDLE + data.draw(st.integers(-900, 900))) * trade.instrument.price_tick
    flat = Prices(open=price, high=price, low=price, close=price, close_ms=START_MS + STEP_MS)
    _, fills = candle_exits(profile, state, flat)

    assert all(fill.moment == OPEN for fill in fills)
    assert sum((fill.quantity for fill in fills), Decimal(0)) <= state.open_quantity
