"""Replays by an exit profile: the worker's own orders at the engine end every part when and why the brain ends it."""

from __future__ import annotations

from dataclasses import replace as with_fields
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from feature_store.errors import BadInputError
from flows.replay.fast import FastEngine
from flows.replay.fills import half_spread
from flows.replay.market import Intrabar
from flows.replay.outcome import END_OF_DATA
from flows.replay.sweep import swept_policies
from flows.replay.ways import holding_way
from flows.replay.word import replay as replayed
from flows.training.config import BarrierSizes
from flows.training.triple_barrier import BarrierRule
from flows.tuning.exits import policy_with
from inference.domain.errors import PolicyError
from inference.domain.exit_profile import BUILT_IN, ExitProfile, Target, barriers_profile
from inference.domain.exit_state import CandleClosed, ExitCause, Held, TradeFacts
from inference.domain.policy import EntryStyle, Policy
from inference.domain.signal import Direction
from inference.exits.brain import opened, step
from inference.exits.intrabar import OPEN, shown_price
from inference.risk.tiers import liquidation_price
from infra.prove.backtest_market import make_market
from infra.sandbox.engine import path
from tests.exit_support import instrument, profiles

D = Decimal
BALANCE = D(10_000)
LADDER = ExitProfile(
    name="LADDER",
    stop_atr=D("1.5"),
    targets=tuple(Target(share=D("0.2"), r=D(one)) for one in ("0.4", "0.8", "1.2", "1.6")),
    break_even_after=1,
    trail_atr=D("1.2"),
    trail_after_target=2,
    time_stop_candles=30,
)
TIGHT = ExitProfile(name="TIGHT", stop_atr=D(1), targets=(Target(share=D(1), atr=D("0.6")),), trail_atr=D("0.8"))
PROFILES = {**BUILT_IN, "LADDER": LADDER, "TIGHT": TIGHT}
ENDS = {
    "DEFAULT": {"STOP", "TARGET", "TIME_BARRIER"},
    "CHALLENGE_100": {"STOP", "TARGET", "TIME_BARRIER", "TRAILING_STOP"},
    "LADDER": {"STOP", "TARGET", "BREAK_EVEN"},
    "TIGHT": {"TARGET", "TRAILING_STOP"},
}
STYLES = {
    "market": Policy(confidence_threshold=0.55),
    "resting": Policy(confidence_threshold=0.55, entry_style=EntryStyle.LIMIT, entry_patience_seconds=120),
}


def the_market(seed=5):
    return make_market(symbols=4, candles=300, seed=seed, missing=0.02)


@pytest.mark.parametrize("intrabar", list(Intrabar))
@pytest.mark.parametrize("style", STYLES)
def test_barriers_written_as_a_profile_make_the_same_trades(style, intrabar):
    """The brain with today's rules is today's exits, to the last digit of every trade."""
    market, policy = the_market(), with_fields(STYLES[style], stop_atr_multiple=D(1), target_atr_multiple=D("1.5"))
    today = replace(barriers_profile(policy), name="TODAY")

    usual = replayed(market, policy, balance=BALANCE, intrabar=intrabar)
    profiled = replayed(
        market, with_fields(policy, exit_profile="TODAY"), balance=BALANCE, intrabar=intrabar, exits={"TODAY": today}
    )

    assert len(usual.trades) > 30
    assert profiled.trades == usual.trades
    assert dict(profiled.denied) == dict(usual.denied)
    np.testing.assert_array_equal(profiled.equity, usual.equity)


def _newest(market, row, place):
    if market.open[row, place]:
        return int(market.open[row, place])
    return next(int(one) for one in market.close[:row, place][::-1] if one)


def _entered(profile, market, policy, trade, row, place):
    traded, sign = market.instruments[place], 1 if trade.direction is Direction.LONG else -1
    last = _newest(market, row, place)
    crossed = traded.price(last + sign * half_spread(last, 10_000))
    reference = crossed * (1 + policy.slippage) if sign > 0 else crossed
    facts = TradeFacts(
        direction=trade.direction,
        reference_price=crossed,
        atr=D(str(float(market.atr[row - 1, place]))),
        instrument=with_fields(
            instrument(), price_tick=traded.tick, quantity_step=traded.step, min_quantity=traded.step,
            min_notional=traded.min_notional,
        ),
        fee=policy.taker_fee,
        timeframe_ms=market.timeframe_ms,
        horizon_candles=policy.max_holding_candles,
        planned_ms=int(market.open_time_ms[row]),
        liquidation_price=liquidation_price(direction=trade.direction, entry_price=reference, policy=policy),
    )  # fmt: skip
    entry = Held(entered=trade.quantity, cost=trade.quantity * trade.entry_price)
    return step(profile, opened(profile, facts), entry)[0]


def _fills(profile, state, market, row, place, intrabar):
    """Return what left: why, how much, when; and whether all did before the candles ended."""
    traded, left = market.instruments[place], []
    first = True
    while row < len(market) and state.open_quantity > 0:
        now_ms = int(market.open_time_ms[row])
        closing, price = state.closing, traded.price(_newest(market, row, place))
        if not first:
            state, fills = shown_price(profile, replace(state, closing=None), price, OPEN)
            left += [(one.cause, one.quantity, now_ms) for one in fills]
            if closing is not None and state.open_quantity > 0:
                return [*left, (closing, state.open_quantity, now_ms)], True
        first = False
        stop = int(state.stop_price / traded.tick)
        way = holding_way(market, row, place, state.facts.direction, intrabar, stop_ticks=lambda _, stop=stop: stop)
        for number, ticks in way:
            state, fills = shown_price(profile, state, traded.price(ticks), number)
            left += [(one.cause, one.quantity, now_ms + number * path.STEP_MS) for one in fills]
        close = traded.price(int(market.close[row, place])) if market.open[row, place] else None
        state, _ = step(profile, state, CandleClosed(close_ms=now_ms + market.timeframe_ms, close=close))
        row += 1
    return left, state.open_quantity == 0 or state.closing is not None


def _reason(left):
    by_order: dict[str, Decimal] = {}
    for cause, quantity, _ in left:
        order = {ExitCause.TARGET: "target", ExitCause.TIME_STOP: "exit"}.get(cause, "stop")
        by_order[order] = by_order.get(order, D(0)) + quantity
    most = max(sorted(by_order), key=lambda one: by_order[one])
    return {cause.reason.value for cause, _, _ in left if (cause is ExitCause.TARGET) == (most == "target")}


@pytest.mark.parametrize("intrabar", [Intrabar.PATH, Intrabar.PESSIMISTIC])
@pytest.mark.parametrize("name", PROFILES)
def test_the_worker_ends_each_trade_as_the_brain_says(name, intrabar):
    """Why and when the last part leaves, gaps and missing candles included, whatever orders it took on the way."""
    profile, market = PROFILES[name], the_market()
    policy = Policy(confidence_threshold=0.55, exit_profile=name, max_notional=D(1500))
    run = replayed(market, policy, balance=BALANCE, intrabar=intrabar, exits=PROFILES)
    seen, parts = set(), 0
    for trade in run.trades:
        row = int(np.searchsorted(market.open_time_ms, trade.opened_ms))
        place = market.symbols.index(trade.symbol)
        state = _entered(profile, market, policy, trade, row, place)
        left, is_over = _fills(profile, state, market, row, place, intrabar)

        assert is_over == (trade.reason != END_OF_DATA)
        if is_over:
            assert left[-1][2] == trade.closed_ms
            assert trade.reason in _reason(left)
            seen.add(trade.reason)
            parts = max(parts, len(left))

    assert seen >= ENDS[name]
    assert parts >= min(3, len(profile.targets))


def test_a_profile_that_there_is_not_stops_a_replay():
    """A replay never goes by other exits than those that are named."""
    with pytest.raises(PolicyError, match="MINE"):
        replayed(the_market(), Policy(exit_profile="MINE"), balance=BALANCE)


def assert_same(word, fast):
    assert fast.trades == word.trades
    assert dict(fast.denied) == dict(word.denied)
    assert fast.approved == word.approved
    np.testing.assert_allclose(fast.equity, word.equity, rtol=0, atol=1e-6)
    np.testing.assert_allclose(fast.exposure, word.exposure, rtol=1e-9)


@pytest.mark.parametrize("intrabar", list(Intrabar))
@pytest.mark.parametrize("name", PROFILES)
def test_the_compiled_engine_ends_each_part_as_the_worker_does(name, intrabar):
    """Every trade of a profile, to the last digit, whatever path prices take in a candle."""
    market = make_market(symbols=4, candles=250, seed=3, missing=0.02)
    policy = Policy(confidence_threshold=0.55, exit_profile=name, max_notional=D(1500), max_daily_drawdown=D("0.15"))

    word = replayed(market, policy, balance=BALANCE, intrabar=intrabar, exits=PROFILES)

    assert len(word.trades) > 20
    assert_same(word, FastEngine(market).run(policy, balance=BALANCE, intrabar=intrabar, exits=PROFILES))


def test_a_wall_closes_what_is_left_of_parts():
    """The emergency stop counts and closes what targets left, in both engines alike."""
    market = make_market(symbols=6, candles=300, seed=3)
    policy = Policy(
        max_daily_drawdown=D("0.01"), wall_daily_drawdown=D("0.01"), confidence_threshold=0.55,
        emergency_reduce_share=D("0.5"), max_notional=D(3000), exit_profile="LADDER",
    )  # fmt: skip
    word = replayed(market, policy, balance=BALANCE, exits=PROFILES)
    assert word.stopped_ms is not None
    assert_same(word, FastEngine(market).run(policy, balance=BALANCE, exits=PROFILES))


@settings(max_examples=12)
@given(
    profile=profiles(),
    seed=st.integers(0, 10**6),
    intrabar=st.sampled_from(Intrabar),
    leverage=st.sampled_from([1, 3, 20]),
    fee=st.sampled_from([D(0), D("0.0005"), D("0.004")]),
    kelly=st.sampled_from([None, None, D("0.3")]),
)
def test_both_engines_agree_on_any_profile(profile, seed, intrabar, leverage, fee, kelly):
    """Whatever a profile says, the worker's own decisions and the compiled ones make the same trades of it."""
    assume(profile.targets)
    market = make_market(symbols=2, candles=80, seed=seed, missing=0.03, confident=0.6)
    policy = Policy(
        confidence_threshold=0.52, exit_profile=profile.name, leverage=leverage, taker_fee=fee, max_notional=D(1000),
        min_liquidation_stops=D(1), max_portfolio_heat=D("0.2"), cooldown_seconds=0, kelly_fraction=kelly,
    )  # fmt: skip
    named = {profile.name: profile}
    word = replayed(market, policy, balance=BALANCE, intrabar=intrabar, exits=named)
    assert_same(word, FastEngine(market).run(policy, balance=BALANCE, intrabar=intrabar, exits=named))


def test_the_compiled_engine_refuses_what_it_does_not_know():
    """A profile where entries rest, and one that there is not, are refused by name."""
    engine = FastEngine(the_market())
    with pytest.raises(BadInputError, match="exit_profile DEFAULT"):
        engine.run(Policy(exit_profile="DEFAULT", entry_style=EntryStyle.LIMIT), balance=BALANCE)
    with pytest.raises(PolicyError, match="MINE"):
        engine.run(Policy(exit_profile="MINE"), balance=BALANCE)


def test_what_looks_at_barriers_alone_says_so():
    """Sweeps of barriers that no trade has, and exits that were searched as barriers, are refused; labels follow."""
    policy = Policy(exit_profile="CHALLENGE_100")
    with pytest.raises(BadInputError, match="no effect by exit_profile CHALLENGE_100"):
        swept_policies(policy, ["stop_atr_multiple=1,2"])
    assert len(swept_policies(policy, ["max_holding_candles=6,12"])) == 2
    with pytest.raises(PolicyError, match="CHALLENGE_100"):
        policy_with(policy, BarrierSizes(stop_atr_multiple=1.0, target_atr_multiple=1.0, holding_candles=3))
    rule = BarrierRule.of(policy, timeframe_ms=300_000)
    assert (rule.stop_atr_multiple, rule.target_atr_multiple, rule.holding_candles) == (3.0, 3.0, 24)
    with pytest.raises(PolicyError, match="MINE"):
        BarrierRule.of(Policy(exit_profile="MINE"), timeframe_ms=300_000)
