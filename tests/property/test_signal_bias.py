"""The watch of one-sided signals: what it counts, what it calls a bias, and what an enforced one refuses."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import comb

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.candle import Timeframe
from inference.bootstrap.reporting import bias_status
from inference.decision import decide
from inference.domain.bias import BiasMode, BiasRules, SignalBias
from inference.domain.decision import Approved, Denied, DenyCode
from inference.domain.events import CandlesDecided
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.journal.codec import GENESIS, canonical, chained, event_data, event_of
from inference.journal.replay import replay_decisions
from inference.supervision.model_supervisor import ModelSupervisor
from inference.supervision.signal_bias import SignalCandle, signal_bias, signal_candle
from infra.stack.overview import bias_told
from tests.worker_support import FIVE_MINUTES_MS
from tests.worker_values import T0, make_candidate, make_snapshot

LONG, SHORT = Direction.LONG, Direction.SHORT
OPPOSITE = {LONG: SHORT, SHORT: LONG}
counts = st.integers(0, 50)
remembered = st.lists(
    st.builds(
        SignalCandle,
        close_ms=st.just(T0),
        model_version=st.sampled_from(["1", "2"]),
        regime=st.sampled_from(["trending_calm", "ranging_wild"]),
        longs=counts,
        shorts=counts,
        rose=counts,
        fell=counts,
    ),
    max_size=80,
)
rules = st.builds(BiasRules, window=st.integers(1, 40), share=st.floats(0.5, 0.99))


def candle(longs: int, shorts: int, **changes: object) -> SignalCandle:
    values = {"model_version": "1", "regime": "ranging_calm", "rose": 0, "fell": 0, **changes}
    return SignalCandle(close_ms=T0, longs=longs, shorts=shorts, **values)


def scored(close_ms: int, direction: Direction, *, version: str = "1") -> tuple:
    return (make_candidate(direction=direction, feature_time_ms=close_ms, model_version=version),)


@given(remembered, rules)
def test_a_bias_is_a_majority_above_its_limit_over_a_whole_window(candles, given_rules):
    """Shares are those of the side that leads, no limit is below what was asked, half a window is never a bias."""
    found = signal_bias(candles, given_rules)

    assert found is None or 0.5 <= found.share <= 1
    assert found is None or given_rules.share <= found.limit <= 1
    assert found is None or found.candles <= given_rules.window
    assert found is None or not found.is_bias or (found.candles == given_rules.window and found.share > found.limit)


@given(remembered, rules, st.integers(2, 9))
def test_a_candle_counts_once_however_many_symbols_moved_as_one(candles, given_rules, times):
    """Twenty signals of one candle are one observation: more symbols that say the same change nothing."""
    more = [replace(one, longs=times * one.longs, shorts=times * one.shorts) for one in candles]

    assert signal_bias(more, given_rules) == signal_bias(candles, given_rules)


@given(remembered, rules)
def test_long_and_short_are_treated_alike(candles, given_rules):
    """A mirrored market with mirrored signals leans as much, to the other side."""
    mirrored = [replace(one, longs=one.shorts, shorts=one.longs, rose=one.fell, fell=one.rose) for one in candles]
    found, other = signal_bias(candles, given_rules), signal_bias(mirrored, given_rules)

    assert (found is None) == (other is None)
    assert found is None or found.share == pytest.approx(other.share)
    # Where both sides are equal there is no side to mirror.
    assert (
        found is None
        or found.share == 0.5
        or (other.side, other.limit)
        == (
            OPPOSITE[found.side],
            pytest.approx(found.limit),
        )
    )


@given(st.permutations(range(6)), st.lists(st.sampled_from(list(Direction)), min_size=6, max_size=6))
def test_the_order_of_symbols_changes_nothing(order, sides):
    """What a candle adds to the watch does not depend on which symbol comes first."""
    given_candidates = [
        make_candidate(f"S{row}/USDT:USDT", direction=side, regime=f"regime{row % 3}") for row, side in enumerate(sides)
    ]
    earlier = {f"S{row}/USDT:USDT": 50_000.0 + row - 3 for row in range(5)}
    shuffled = [given_candidates[row] for row in order]

    found = signal_candle(given_candidates, Policy(), close_ms=T0, earlier=earlier)

    assert signal_candle(shuffled, Policy(), close_ms=T0, earlier=earlier) == found
    assert (found.longs, found.shorts, found.rose, found.fell) == (sides.count(LONG), sides.count(SHORT), 3, 1)


def test_only_signals_that_passed_the_threshold_count():
    """Who is not sure enough to trade has no side, and the policy's threshold goes before the bundle's."""
    unsure, sure = make_candidate(probability=0.55), make_candidate("ETH/USDT:USDT", probability=0.75)

    found = signal_candle([unsure, sure], Policy(), close_ms=T0, earlier={})
    stricter = signal_candle([unsure, sure], Policy(confidence_threshold=0.8), close_ms=T0, earlier={})

    assert (found.longs, stricter.longs) == (1, 0)
    assert signal_candle([], Policy(), close_ms=T0, earlier={}) is None


@pytest.mark.parametrize(
    ("longs", "biased"),
    [
        pytest.param(14, False, id="exactly-the-limit"),
        pytest.param(15, True, id="one-more"),
        pytest.param(6, False, id="short-exactly"),
        pytest.param(5, True, id="short-one-more"),
    ],
)
def test_more_than_seventy_in_a_hundred_of_twenty(longs, biased):
    """By default fifteen of twenty candles on one side are a bias and fourteen are not."""
    found = signal_bias([candle(1, 0)] * longs + [candle(0, 1)] * (20 - longs), BiasRules())

    assert found.is_bias is biased


def test_fair_coins_pass_the_default_in_four_of_a_hundred_cases():
    """Why a bias is only observed by default, and the figure that the README gives."""
    passing = [
        longs
        for longs in range(21)
        if signal_bias([candle(1, 0)] * longs + [candle(0, 1)] * (20 - longs), BiasRules()).is_bias
    ]

    assert round(100 * sum(comb(20, longs) for longs in passing) / 2**20, 1) == 4.1


def test_whoever_is_long_in_a_rising_market_is_not_biased_yet():
    """Where prices of a regime rise in nine of ten cases, 94 of 100 longs are what is usual; so many shorts are not."""
    rising = {"regime": "trending_calm", "rose": 9, "fell": 1}
    longs = [candle(94, 6, **rising)] * 20
    shorts = [candle(6, 94, **rising)] * 20

    assert not signal_bias(longs, BiasRules()).is_bias
    assert signal_bias(longs, BiasRules()).limit == pytest.approx(0.94)
    assert signal_bias(shorts, BiasRules()).is_bias
    # Nineteen candles of a regime say too little of it.
    assert signal_bias([*longs[:19], candle(94, 6)], BiasRules()).is_bias


def test_another_model_begins_afresh():
    """What the last model said is not held against the next."""
    found = signal_bias([candle(1, 0)] * 30 + [candle(1, 0, model_version="2")], BiasRules())

    assert (found.candles, found.is_bias) == (1, False)
    assert signal_bias([candle(1, 0), candle(0, 0, model_version="2")], BiasRules()) is None


@given(st.lists(st.sampled_from([LONG, SHORT, Direction.FLAT]), max_size=60), st.integers(1, 6))
def test_each_change_is_one_event_and_no_candle_is(sides, window):
    """Events are exactly the moments at which the biased side changes, and the last one says what is the case."""
    events: list[tuple[str, str]] = []
    supervisor = ModelSupervisor(
        BiasRules(window=window),
        Policy(),
        timeframe=Timeframe.M5,
        on_event=lambda kind, detail: events.append((kind, detail["side"])),
    )
    seen: list[Direction | None] = [None]
    for place, side in enumerate(sides):
        supervisor.watch(scored(T0 + place * FIVE_MINUTES_MS, side), close_ms=T0 + place * FIVE_MINUTES_MS, horizon=1)
        bias = supervisor.bias
        seen.append(bias.side if bias is not None and bias.is_bias else None)

    changes = [(before, after) for before, after in pairwise(seen) if before is not after]
    assert events == [
        ("model.bias_found", after.value) if after else ("model.bias_ended", before.value) for before, after in changes
    ]


def test_a_candle_that_comes_again_counts_once():
    """Repeated and older candles, and candles without an opinion, add nothing."""
    supervisor = ModelSupervisor(BiasRules(), Policy(), timeframe=Timeframe.M5, on_event=lambda *_: None)
    supervisor.watch(scored(T0, LONG), close_ms=T0, horizon=1)
    once = supervisor.bias
    supervisor.watch(scored(T0, SHORT), close_ms=T0, horizon=1)
    supervisor.watch(scored(T0, SHORT), close_ms=T0 - FIVE_MINUTES_MS, horizon=1)
    supervisor.watch((), close_ms=T0 + FIVE_MINUTES_MS, horizon=1)

    assert supervisor.bias == once
    assert once.candles == 1


@pytest.mark.parametrize(("mode", "is_set"), [(BiasMode.OBSERVE, False), (BiasMode.ENFORCE, True)])
def test_only_an_enforced_bias_reaches_the_decision(mode, is_set):
    """Observing refuses nothing; enforcing hands the decision what it refuses, and status says which it is."""
    supervisor = ModelSupervisor(
        BiasRules(mode=mode, window=3), Policy(), timeframe=Timeframe.M5, on_event=lambda *_: None
    )
    empty = bias_status(supervisor)
    for place in range(3):
        assert supervisor.enforced is msgspec.UNSET
        supervisor.watch(scored(T0 + place, LONG), close_ms=T0 + place, horizon=1)
    told = bias_told(msgspec.to_builtins(bias_status(supervisor)))

    assert (supervisor.enforced is not msgspec.UNSET) is is_set
    assert (empty.side, empty.found, bias_told(msgspec.to_builtins(empty))) == (None, False, "")
    assert told.startswith("signals: BIASED to LONG, 100% over 3 candles (limit 70%)")
    assert ("refused" in told) is is_set
    assert bias_told({}) == ""


@given(
    st.lists(st.sampled_from(list(Direction)), min_size=1, max_size=12),
    st.sampled_from([LONG, SHORT]),
    st.booleans(),
)
def test_an_enforced_bias_refuses_its_side_and_nothing_else(sides, side, is_bias):
    """No entry on the biased side is left, the other side is decided as ever, and each refusal has its numbers."""
    candidates = tuple(
        make_candidate(
            f"S{row}/USDT:USDT",
            direction=one,
            expected_return={LONG: 0.01, SHORT: -0.01}.get(one, 0.0),
            trace_id=str(row),
        )
        for row, one in enumerate(sides)
    )
    bias = SignalBias(side=side, share=0.9 if is_bias else 0.6, usual=0.5, limit=0.7, candles=20, window=20)
    free = make_snapshot(tuple(one for one in candidates if not (is_bias and one.signal.direction is side)))
    decisions = decide(make_snapshot(candidates, bias=bias), Policy(), T0)

    refused = [one for one in decisions if isinstance(one, Denied) and one.code is DenyCode.SIGNALS_BIASED]
    others = tuple(one for one in decisions if one not in refused)
    assert {one.signal.direction for one in refused} <= {side}
    assert len(refused) == (sides.count(side) if is_bias else 0)
    assert not (is_bias and any(isinstance(one, Approved) and one.direction is side for one in decisions))
    assert others == decide(free, Policy(), T0)
    assert all(one.context["share"] == "0.9" for one in refused)


def test_journals_without_an_enforced_bias_stay_as_they_were():
    """The field is not written where there is nothing to say, and replaying a journal with one decides the same."""
    bias = SignalBias(side=LONG, share=0.8, usual=0.5, limit=0.7, candles=20, window=20)
    snapshots = [make_snapshot(), make_snapshot(bias=bias)]
    events = [CandlesDecided.of(one, Policy(), T0, decide(one, Policy(), T0)) for one in snapshots]
    entries = [chained(one, seq=0, timestamp_ms=T0, trace_id="", previous=GENESIS) for one in events]

    assert b'"bias"' not in event_data(events[0])
    assert [event_of(one) for one in entries] == events
    assert events[1].denied[0].code is DenyCode.SIGNALS_BIASED
    assert replay_decisions(entries) == (2, [])


@pytest.mark.parametrize(
    "changes",
    [
        {"side": "FLAT"},
        {"share": 1.5},
        {"share": -0.1},
        {"limit": "nan"},
        {"usual": None},
        {"window": 0},
        {"side": "UP"},
    ],
)
def test_a_journal_that_tells_an_impossible_bias_is_refused(changes):
    """What is read back is held to the same bounds as what is made."""
    bias = SignalBias(side=LONG, share=0.8, usual=0.5, limit=0.7, candles=20, window=20)
    written = msgspec.json.decode(canonical(bias)) | changes

    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(written, SignalBias)


@pytest.mark.parametrize(
    "changes", [{"window": 0}, {"window": 289}, {"share": 0.4}, {"share": 1.0}, {"share": float("nan")}]
)
def test_rules_that_cannot_be_meant_are_refused(changes):
    """A window that is none or beyond memory, or a share that is no majority or never passed, is an error."""
    with pytest.raises(ValueError, match="Bias"):
        BiasRules(**changes)
