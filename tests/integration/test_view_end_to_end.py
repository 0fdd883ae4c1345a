"""Features of one's own and of others, from the lake through training into a bundle, and live to the same inputs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from feature_store.candle import CLOSE, OPEN, VOLUME, CandleBlock, Timeframe
from feature_store.errors import BadInputError, UnknownSymbolError
from feature_store.extensions.expansion import Expansion, Known
from feature_store.extensions.live import ViewedFeatures, live_features
from feature_store.extensions.settings import ViewSettings
from feature_store.extensions.view import DEFAULT_INCLUDED, FeatureView
from feature_store.features.definition import INPUT_BOUND, MODEL_INPUT_NAMES, WINDOW, fingerprint
from feature_store.features.live import LiveFeatures
from feature_store.lake import CandleLake
from flows.frames import frames_between
from flows.training.pipeline import train_candidate
from inference.bootstrap.catch_up import history_candles
from inference.cli import run
from inference.domain.errors import BundleError
from inference.models.bundle import load_bundle
from tests.extension_support import PLAIN_NUMPY, loaded, written
from tests.feature_support import BTC, ETH, STEP, market, same, without
from tests.training_support import silent, small_config

EXPANSION = Expansion(names=("rsi", "log_return_6"), symbols=(BTC.symbol,), timeframes=(Timeframe.M15, Timeframe.H1))
PAIR = (BTC.symbol, ETH.symbol)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), chunks=st.lists(st.integers(1, 200), min_size=1, max_size=6), late=st.integers(0, 3))
def test_live_rows_are_those_of_batch(tmp_path, seed, chunks, late):
    """However candles come in batches, the last 64 rows of all inputs equal those that training computes."""
    view = FeatureView(loaded(tmp_path, PLAIN_NUMPY), EXPANSION)
    blocks = {BTC.symbol: market(900, seed=seed), ETH.symbol: without(market(900, seed=seed + 1), slice(500, 503))}
    closed = {one: Known.at_close(block, Timeframe.M5) for one, block in blocks.items()}
    expected = {one: view.extra_inputs(one, Timeframe.M5, closed) for one in PAIR}
    live, place = ViewedFeatures(PAIR, Timeframe.M5, view), 0
    for size in [*chunks, *[1] * late, 900]:
        place = min(place + size, 900)
        until = int(blocks[BTC.symbol].open_time_ms[place - 1]) + 1
        for symbol in PAIR:
            live.advance(symbol, blocks[symbol].until(until))
        latest = live.latest()
        for row, symbol in enumerate(PAIR):
            known = len(blocks[symbol].until(until))
            mine = expected[symbol][max(known - WINDOW, 0) : known]
            assert same(latest.windows[row][WINDOW - len(mine) :, len(MODEL_INPUT_NAMES) :], mine)
            assert same(
                latest.model_inputs[row][: len(MODEL_INPUT_NAMES)], latest.windows[row][-1][: len(MODEL_INPUT_NAMES)]
            )


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), share=st.sampled_from([0.0, 0.05, 0.3]))
def test_frames_hold_what_a_worker_had_when_candles_came(seed, share):
    """Candles that came late, even after later ones, count in frames from when and as far as they did live."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("QT_INCLUDE_SYMBOLS", ",".join(PAIR))
        patch.setenv("QT_INCLUDE_TIMEFRAMES", "15m")
        patch.setenv("QT_INCLUDE_INPUTS", "rsi,log_return_6")
        view = ViewSettings.of().view()
        lake, known = CandleLake(Path(folder) / "lake"), {}
        for number, one in enumerate((BTC, ETH)):
            block = market(320, seed=seed + number)
            late = np.where(rng.random(320) < share, rng.integers(1, 6 * STEP, 320), 0)
            known[one.symbol] = Known(block, block.open_time_ms + STEP + 1_000 + late)
            lake.append(one, block, available_at_ms=known[one.symbol].known_ms)
        start_ms = int(known[BTC.symbol].block.open_time_ms[0])
        frames = frames_between(
            Path(folder), lake, [BTC, ETH], start_ms=start_ms, end_ms=start_ms + 320 * STEP, horizon=12
        )
    batch = {frame.symbol: frame.inputs[:, len(MODEL_INPUT_NAMES) :] for frame in frames.frames}
    live, compared = ViewedFeatures(PAIR, Timeframe.M5, view), 0
    for moment in np.unique(np.concatenate([one.known_ms for one in known.values()])).tolist():
        taken = {}
        for symbol, one in known.items():
            now = np.flatnonzero(one.known_ms == moment)
            block = CandleBlock(one.block.open_time_ms[now], one.block.values[now])
            taken[symbol] = now[len(now) - len(live.advance(symbol, block)) :]
        latest = live.latest()
        for row, (symbol, places) in enumerate(taken.items()):
            added = latest.windows[row][WINDOW - len(places) :, len(MODEL_INPUT_NAMES) :]
            assert same(added, batch[symbol][places])
            compared += len(places)
    # Of those that came after a later one a worker never made a row.
    assert compared == sum(len(one.taken_in().block) for one in known.values())
    assert (compared == 640) == (share == 0.0)


def test_a_view_is_ready_once_the_longest_window_is_full(tmp_path):
    """With hours included a series waits for them, and a start reads as many candles as that takes."""
    view = FeatureView(loaded(tmp_path, PLAIN_NUMPY), EXPANSION)
    live, plain = live_features(PAIR, Timeframe.M5, view), live_features(PAIR, Timeframe.M5, FeatureView())
    needed = view.ready_after(Timeframe.M5)
    for symbol in PAIR:
        live.advance(symbol, market(needed, seed=4))

    assert type(plain) is LiveFeatures
    assert history_candles(plain) == 499
    assert history_candles(live) >= needed
    assert live.latest().ready.all()
    assert not live.load(tmp_path / "nothing.npz", BTC)


@pytest.mark.parametrize("late", PAIR)
def test_a_series_that_is_rebuilt_is_what_training_reads(tmp_path, late):
    """With late candles built in, the rows of both series are those of training, which knows when each was known."""
    view = FeatureView(loaded(tmp_path, PLAIN_NUMPY), EXPANSION)
    blocks = {symbol: market(1000, seed=seed) for seed, symbol in enumerate(PAIR)}
    known = {symbol: block.open_time_ms + STEP for symbol, block in blocks.items()}
    known[late][970:972] = known[late][989] + 1
    live = ViewedFeatures(PAIR, Timeframe.M5, view)
    for symbol, block in blocks.items():
        live.advance(symbol, (without(block, slice(970, 972)) if symbol == late else block)[:980])
    live.latest()

    live.rebuild(late, blocks[late][:982])
    for symbol, block in blocks.items():
        live.advance(symbol, block)

    latest = live.latest()
    told = {symbol: Known(block, known[symbol]) for symbol, block in blocks.items()}
    for row, symbol in enumerate(PAIR):
        expected = view.extra_inputs(symbol, Timeframe.M5, told)
        assert same(latest.windows[row, :, len(MODEL_INPUT_NAMES) :], expected[-WINDOW:])


@pytest.mark.parametrize("corrected", PAIR)
def test_a_series_that_is_rebuilt_is_as_after_a_start(tmp_path, corrected):
    """With a candle corrected, all rows that hold anything of its series are those of a start from all candles."""
    view = FeatureView(loaded(tmp_path, PLAIN_NUMPY), EXPANSION)
    blocks = {symbol: market(1000, seed=seed) for seed, symbol in enumerate(PAIR)}
    live, fresh = ViewedFeatures(PAIR, Timeframe.M5, view), ViewedFeatures(PAIR, Timeframe.M5, view)
    for symbol, block in blocks.items():
        wrong = block.values.copy()
        wrong[970, VOLUME] *= 2 if symbol == corrected else 1
        wrong[970, CLOSE] = wrong[970, OPEN] if symbol == corrected else wrong[970, CLOSE]
        live.advance(symbol, CandleBlock(block.open_time_ms, wrong)[:990])
        fresh.advance(symbol, block)
    assert not same(live.latest().windows[:, :-10], fresh.latest().windows[:, :-10])

    live.rebuild(corrected, blocks[corrected][:990])
    for symbol, block in blocks.items():
        live.advance(symbol, block)

    assert live.latest().ready.all()
    for found, wanted in zip(live.latest()[1:], fresh.latest()[1:], strict=True):
        assert same(found, wanted)


def stored(tmp_path) -> tuple[CandleLake, dict[str, int]]:
    """Return a lake with 400 candles of BTC, and the stretch that they fill."""
    lake, block = CandleLake(tmp_path / "home" / "lake"), market(400, seed=1)
    lake.append(BTC, block)
    start_ms = int(block.open_time_ms[0])
    return lake, {"start_ms": start_ms, "end_ms": start_ms + 400 * STEP, "horizon": 12}


def test_an_included_symbol_that_is_not_stored_is_named(tmp_path, monkeypatch, capsys):
    """Frames and the catalogue refuse it by its setting, and say what is stored; an empty lake refuses nothing."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("QT_INCLUDE_SYMBOLS", f"{BTC.symbol},FOO/USDT:USDT")
    monkeypatch.delenv("QT_EXTENSIONS", raising=False)
    assert run(["features", "catalogue", "--out", str(tmp_path / "page")]) == 0
    lake, stretch = stored(tmp_path)
    with pytest.raises(UnknownSymbolError, match=r"'FOO/USDT:USDT'; set QT_INCLUDE_SYMBOLS .*BTC/USDT:USDT"):
        frames_between(tmp_path / "features", lake, [BTC], **stretch)
    capsys.readouterr()
    assert run(["features", "catalogue", "--out", str(tmp_path / "other")]) == 2
    assert "QT_INCLUDE_SYMBOLS" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_an_input_that_never_has_a_value_is_named(tmp_path, monkeypatch):
    """An included symbol whose candles lie elsewhere in time leaves no row complete: training says which inputs."""
    monkeypatch.setenv("QT_INCLUDE_SYMBOLS", ETH.symbol)
    monkeypatch.setenv("QT_INCLUDE_INPUTS", "rsi")
    lake, stretch = stored(tmp_path)
    early = market(3, seed=2)
    lake.append(ETH, CandleBlock(early.open_time_ms - 10_000 * STEP, early.values))
    frames = frames_between(tmp_path / "features", lake, [BTC], **stretch)
    with pytest.raises(BadInputError, match=r"No candle has all inputs .* rsi@ETH/USDT:USDT never had a value"):
        train_candidate(frames, small_config(), tmp_path / "out", silent)


def test_a_symbol_that_falls_silent_keeps_others_from_trading():
    """Where an included symbol has no candle for too long, rows are undefined, so that nothing is decided on them."""
    view = FeatureView(None, Expansion(names=("rsi",), symbols=(BTC.symbol,), max_age=2))
    live = ViewedFeatures(PAIR, Timeframe.M5, view)
    block = market(200, seed=5)
    live.advance(BTC.symbol, block[:190])
    live.advance(ETH.symbol, block[:192])
    assert live.latest().ready.tolist() == [True, True]
    live.advance(ETH.symbol, block[192:193])

    assert live.latest().ready.tolist() == [True, False]


def test_a_gap_keeps_its_own_series_from_trading():
    """With inputs added, too, a series waits after a gap until its window is whole; the other one does not."""
    view = FeatureView(None, Expansion(names=("rsi",), symbols=(BTC.symbol,)))
    live, block = ViewedFeatures(PAIR, Timeframe.M5, view), market(400, seed=5)
    live.advance(BTC.symbol, block)
    live.advance(ETH.symbol, without(block, slice(300, 330))[:-6])
    assert live.latest().ready.tolist() == [True, False]
    live.advance(ETH.symbol, block[394:])

    assert live.latest().ready.tolist() == [True, True]


def test_included_symbols_must_be_followed():
    """A worker that does not follow BTC cannot include it: it says so at the start."""
    with pytest.raises(BadInputError, match="QT_SYMBOLS"):
        ViewedFeatures([ETH.symbol], Timeframe.M5, FeatureView(None, EXPANSION))


def test_a_bundle_trained_on_a_view_scores_live_rows_and_nothing_else_loads_it(tmp_path, monkeypatch):
    """Lake to frames to a bundle with the view's fingerprint; live inputs equal the frames' and are scored."""
    monkeypatch.setenv("QT_EXTENSIONS", str(written(tmp_path, PLAIN_NUMPY)))
    monkeypatch.setenv("QT_INCLUDE_SYMBOLS", BTC.symbol)
    monkeypatch.setenv("QT_INCLUDE_TIMEFRAMES", "15m")
    monkeypatch.setenv("QT_INCLUDE_INPUTS", "rsi,log_return_6")
    lake, view = CandleLake(tmp_path / "lake"), ViewSettings.of().view()
    blocks = {one: market(2600, seed=number, flat=0.02) for number, one in enumerate((BTC, ETH))}
    for one, block in blocks.items():
        lake.append(one, block)
    end_ms = int(blocks[BTC].open_time_ms[-1]) + STEP
    start_ms = end_ms - 2200 * STEP
    frames = frames_between(tmp_path / "features", lake, [BTC, ETH], start_ms=start_ms, end_ms=end_ms, horizon=12)
    config = replace(
        small_config(members=("xgboost",)), summarised_inputs=("z_score_20",), created_at="2026-01-01T00:00:00Z"
    )
    train_candidate(frames, config, tmp_path / "bundle", silent)
    bundle = load_bundle(tmp_path / "bundle", expected_fingerprint=view.fingerprint())
    live = live_features(frames.symbols, Timeframe.M5, view)
    for one, block in blocks.items():
        live.advance(one.symbol, block)
    latest = live.latest()

    assert frames.input_names == (*MODEL_INPUT_NAMES, *view.extra_names)
    assert bundle.manifest.model_inputs == frames.input_names
    for row, frame in enumerate(frames.frames):
        assert same(latest.windows[row], frame.inputs[-WINDOW:])
    scored = bundle.score(latest.model_inputs, latest.windows, latest.returns.astype(np.float32))
    assert np.isfinite(scored.expected_return).all()
    assert (np.abs(latest.model_inputs) <= INPUT_BOUND).all()
    with pytest.raises(BundleError, match="was trained on features"):
        load_bundle(tmp_path / "bundle", expected_fingerprint=fingerprint())


def test_settings_choose_the_view(monkeypatch):
    """Nothing set is the 49 alone, with their fingerprint; lists choose, and the default inputs have no unit."""
    for name in ("QT_EXTENSIONS", "QT_INCLUDE_SYMBOLS", "QT_INCLUDE_TIMEFRAMES", "QT_INCLUDE_INPUTS"):
        monkeypatch.delenv(name, raising=False)
    plain = ViewSettings.of().view()
    monkeypatch.setenv("QT_INCLUDE_TIMEFRAMES", "1h, 15m")
    chosen = ViewSettings.of().view()

    assert plain.input_names == MODEL_INPUT_NAMES
    assert plain.fingerprint() == fingerprint()
    assert chosen.expansion.timeframes == (Timeframe.H1, Timeframe.M15)
    assert chosen.expansion.names == DEFAULT_INCLUDED
    assert chosen.fingerprint() != fingerprint()


@pytest.mark.parametrize(
    "chosen",
    [
        {"include_timeframes": "7m"}, {"include_symbols": BTC.symbol, "include_inputs": "nothing"},
        {"include_symbols": BTC.symbol, "include_inputs": "close"}, {"extensions": "/nowhere/at/all.py"},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used_are_refused(chosen):
    """An unknown timeframe, an unknown input, a raw price of another symbol, a file that is not there."""
    with pytest.raises(BadInputError):
        ViewSettings.of(**chosen).view()
