"""Regimes of stored candles are those that a worker tells: at each candle, after gaps, and in a backtest's sizes."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.errors import BadInputError
from feature_store.features.definition import MODEL_INPUT_NAMES, WINDOW
from feature_store.features.live import LatestFeatures
from flows.replay.fast import FastEngine
from flows.replay.market import Opinions
from flows.replay.told_regimes import told_regimes
from flows.replay.word import replay
from flows.training.dataset import Dataset, FrameSet, Rows, TrainingFrame
from inference.domain.policy import Policy
from inference.models.followed_regimes import FollowedRegimes
from inference.regime.market import MarketRegime
from infra.prove.backtest_market import make_market
from tests.regime_support import plausible_inputs, small_model
from tests.training_support import FINGERPRINT, FIVE_MINUTES_MS, START_MS

SYMBOLS = ("A/USDT:USDT", "B/USDT:USDT", "C/USDT:USDT")
CANDLES = 2 * WINDOW + 40


def _dataset(seed: int, gaps: list[tuple[int, int]]) -> Dataset:
    """Return three series of which some candles are not there: a symbol and a place of each."""
    rng = np.random.default_rng(seed)
    inputs = np.nan_to_num(plausible_inputs(rng, CANDLES, len(SYMBOLS)), nan=0.001)
    frames = []
    for number, symbol in enumerate(SYMBOLS):
        here = np.array([place for place in range(CANDLES) if (number, place) not in gaps])
        times = START_MS + FIVE_MINUTES_MS * here
        close = 100 + rng.standard_normal(len(here))
        frames.append(TrainingFrame(symbol, times, inputs[here, number], np.full(len(here), 0.001), close))
    return Dataset(FrameSet(tuple(frames), MODEL_INPUT_NAMES, FINGERPRINT, FIVE_MINUTES_MS), horizon=2, window=WINDOW)


def _ready(dataset: Dataset) -> Rows:
    index = np.flatnonzero(dataset.complete)
    return Rows(index, dataset.series[index], dataset.open_time_ms[index], dataset.label[index])


def _bundle(model) -> SimpleNamespace:
    said = (MarketRegime.RANGING_CALM, MarketRegime.UNKNOWN)
    return SimpleNamespace(
        manifest=SimpleNamespace(regime_model=model),
        regimes=lambda returns, symbols: tuple(said[one == SYMBOLS[1]] for one in symbols),
    )


@given(
    seed=st.integers(0, 1000),
    gaps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, CANDLES - 1)), max_size=3),
    data=st.data(),
)
@settings(max_examples=20, deadline=None)
def test_stored_candles_are_told_as_a_worker_tells_them(seed, gaps, data):
    """Candle by candle the labels are those of the worker's own reader, whatever is missing and in whatever order."""
    dataset = _dataset(seed, gaps)
    rows = _ready(dataset)
    model = small_model(SYMBOLS)
    reader = FollowedRegimes(model, MODEL_INPUT_NAMES, step_ms=FIVE_MINUTES_MS)
    expected = {}
    for at_ms in np.unique(rows.open_time_ms).tolist():
        mine = rows.take(rows.open_time_ms == at_ms)
        windows = np.zeros((len(SYMBOLS), WINDOW, len(MODEL_INPUT_NAMES)), np.float32)
        windows[mine.series] = dataset.windows(mine)
        times = np.full(len(SYMBOLS), -1, np.int64)
        times[mine.series] = at_ms
        latest = LatestFeatures(
            SYMBOLS, times, windows[:, -1], windows, np.zeros((len(SYMBOLS), WINDOW)), np.ones(len(SYMBOLS), bool)
        )
        said = reader.read(latest, mine.series.tolist())
        expected |= {(number, at_ms): label for number, label in zip(mine.series.tolist(), said.label, strict=True)}
    shuffled = rows.take(np.array(data.draw(st.permutations(range(len(rows))))))

    told = told_regimes(_bundle(model), dataset, shuffled)

    keys = zip(shuffled.series.tolist(), shuffled.open_time_ms.tolist(), strict=True)
    assert told.tolist() == [str(expected[key]) for key in keys]


def test_a_bundle_without_a_model_is_told_by_its_thresholds():
    """What a worker with an older bundle says is what its replay says."""
    dataset = _dataset(1, [])
    rows = _ready(dataset)

    told = told_regimes(_bundle(None), dataset, rows)

    assert set(told[rows.series == 0]) == {"ranging_calm"}
    assert set(told[rows.series == 1]) == {"unknown"}
    assert told_regimes(_bundle(None), dataset, rows.take(np.empty(0, np.int64))).tolist() == []


def _market():
    market = make_market(symbols=4, candles=300, seed=3)
    shape = market.probability_up.shape
    labels = np.where(np.arange(shape[0])[:, None] % 2 == 0, "crash", "unknown").astype("<U32")
    return replace(market, regimes=np.broadcast_to(labels, shape).copy())


def _opened(run) -> dict[tuple[str, int], Decimal]:
    return {(one.symbol, one.opened_ms): one.quantity for one in run.trades}


def test_a_backtest_sizes_by_regimes():
    """Where nothing is left of a size in a crash, no candle of one is entered; the default asks for no regime."""
    market = _market()
    terms = {"balance": Decimal(10_000)}
    plain = replay(market, Policy(), **terms)
    silent = replay(replace(market, regimes=None), Policy(), **terms)
    known = replay(market, Policy(regime_sizes=("crash=0",)), **terms)
    unknown = replay(market, Policy(unknown_regime_size=Decimal(0)), **terms)

    assert plain.trades == silent.trades == FastEngine(market).run(Policy(), **terms).trades
    assert len(plain.trades) > 10
    for run, even in ((known, False), (unknown, True)):
        assert run.trades
        # A trade opens at the first price of the candle after the one that was decided on.
        places = {(at_ms - market.start_ms) // market.timeframe_ms - 1 for _, at_ms in _opened(run)}
        assert {place % 2 == 0 for place in places} == {even}


def test_the_sweep_engine_refuses_what_it_cannot_tell_apart():
    """It knows no regimes: rules of them are refused there rather than applied to every candle."""
    engine = FastEngine(_market())
    for policy in (Policy(unknown_regime_size=Decimal("0.5")), Policy(regime_sizes=("crash=0",))):
        with pytest.raises(BadInputError, match="engine word"):
            engine.run(policy, balance=Decimal(10_000))


def test_opinions_bring_their_regimes_and_cuts_keep_them():
    """A market holds the regime of each opinion; another model's opinions that tell none leave none behind."""
    market = make_market(symbols=2, candles=60, seed=1)
    times = market.open_time_ms[10:20]
    said = Opinions(times, np.full(10, 0.001), np.full(10, 0.6), np.array(["trend"] * 10))
    told = market.with_opinions({market.symbols[0]: said}, threshold=0.6)

    assert told.regimes is not None
    assert set(told.regimes[10:20, 0]) == {"trend"}
    assert set(told.regimes[:, 1]) == {"unknown"}
    assert told.between(int(times[0]), int(times[-1])).regimes.shape == (9, 2)
    assert told.with_opinions({}, threshold=0.6).regimes is None
