"""What trees can learn: the forward return, the same net of costs, or what the exit rules made of each candle."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from msgspec.structs import replace

from feature_store.errors import BadInputError
from feature_store.features.definition import INDEX
from feature_store.features.engine import FeatureEngine
from feature_store.kinds.definition import FUNDING, Subject
from feature_store.kinds.records import Records
from feature_store.kinds.store import KindStore
from feature_store.lake import CandleLake
from flows import model_commands
from flows.frames import frames_between
from flows.settings import FlowSettings
from flows.sizes import training_config
from flows.training.config import BarrierSizes, TreeConfig
from flows.training.costs import TradingCosts
from flows.training.dataset import Dataset
from flows.training.members.catalogue import trainer
from flows.training.overlap import average_uniqueness, row_weights
from flows.training.pipeline import train_candidate
from flows.training.splits import plan_splits
from flows.training.triple_barrier import BarrierRule, triple_barrier
from tests.feature_support import BTC, ETH, STEP, market, without
from tests.training_support import silent, small_config

# The second series has a gap, and so rows whose trades nobody knows the end of.
BLOCKS = {BTC: market(2600, seed=31), ETH: without(market(2600, seed=32), np.r_[1200:1206])}
SIZES = BarrierSizes(stop_atr_multiple=5.0, target_atr_multiple=8.0, holding_candles=30)
COSTS = TradingCosts(taker_fee=0.0005, slippage=0.0002, half_spread=0.0)
TREES = TreeConfig(rounds=8, depth=2, min_leaf_rows=40)
CONFIG = small_config(
    members=("xgboost", "lightgbm"), xgboost=TREES, lightgbm=TREES, summarised_inputs=("rsi",), barriers=SIZES
)


@pytest.fixture
def lake(tmp_path):
    lake = CandleLake(tmp_path / "lake")
    for series, block in BLOCKS.items():
        lake.append(series, block)
    return lake


def _frames(tmp_path, lake, config=None, series=(BTC, ETH)):
    times = BLOCKS[BTC].open_time_ms
    span = {"start_ms": int(times[200]), "end_ms": int(times[-1]) + STEP, "horizon": 12}
    return frames_between(tmp_path / "features", lake, list(series), learns=config, **span)


def _dataset(frames):
    return Dataset(frames, horizon=12, window=64)


def test_barrier_labels_are_the_exits_of_the_rules(tmp_path, lake):
    """Each row's label is the net log return of the trade that the exit rules make of it, and ends where that ended."""
    frames = _frames(tmp_path, lake, replace(CONFIG, label="barrier"))
    rule = BarrierRule(stop_atr_multiple=5.0, target_atr_multiple=8.0, holding_candles=30)
    for frame, (series, block) in zip(frames.frames, BLOCKS.items(), strict=True):
        atr = np.ascontiguousarray(FeatureEngine(series.timeframe).advance(block)[:, INDEX["atr_14"]])
        expected = triple_barrier(block, atr, rule, direction=1, costs=COSTS, timeframe_ms=STEP)
        kept = np.isin(block.open_time_ms, frame.open_time_ms)
        np.testing.assert_array_equal(frame.learned.value, expected.net_log_return[kept])
        np.testing.assert_array_equal(frame.learned.end_ms, expected.end_ms[kept])


@pytest.mark.parametrize("holding", [30, 96])
def test_rows_are_purged_by_the_latest_end_of_what_is_learned(tmp_path, lake, holding):
    """Near the end of fit no row is learned from, whatever soon came of it; what is judged is as without barriers."""
    near = BarrierSizes(stop_atr_multiple=2.0, target_atr_multiple=3.0, holding_candles=holding)
    config = replace(CONFIG, label="barrier", barriers=near)
    plain, dataset = (_dataset(_frames(tmp_path, lake, one)) for one in (None, config))
    splits = plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=STEP)
    rows, more = dataset.learned_rows(splits), plain.learned_rows(splits)
    dropped = np.setdiff1d(more.index, rows.index)
    last_ms = splits.fit.end_ms - (holding + 1) * STEP
    beyond = dataset.open_time_ms[dropped] > last_ms

    assert rows.open_time_ms.max() == last_ms
    assert (dataset.learned_end_ms[rows.index] <= splits.fit.end_ms).all()
    assert set(np.flatnonzero(beyond)) >= set(np.flatnonzero(np.isfinite(dataset.learned[dropped])))
    # Some of those had met a barrier in time: that is known of them only by what came.
    assert (dataset.learned_end_ms[dropped[beyond]] <= splits.fit.end_ms).any()
    np.testing.assert_array_equal(rows.label, plain.label[rows.index])
    for window in (splits.validation, splits.calibration):
        judged, expected = dataset.rows(window, splits), plain.rows(window, splits)
        np.testing.assert_array_equal(judged.index, expected.index)
        np.testing.assert_array_equal(judged.label, expected.label)
        assert judged.open_time_ms.max() == window.end_ms - 13 * STEP


def test_net_of_constant_costs_is_a_shift_and_funding_is_not(tmp_path, lake):
    """Without funding the net label is the forward return less a constant; with it, rows that pay differ."""
    config = replace(CONFIG, label="net")
    forward = _dataset(_frames(tmp_path, lake)).label
    net = _dataset(_frames(tmp_path, lake, config)).learned
    known = np.isfinite(forward)
    np.testing.assert_allclose(net[known] - forward[known], np.log1p(-0.0014), rtol=1e-9)
    assert np.isnan(net[~known]).all()

    hours = np.arange(BLOCKS[BTC].open_time_ms[0] // 3_600_000 + 1, BLOCKS[BTC].open_time_ms[-1] // 3_600_000, 8)
    records = Records.of(FUNDING, hours * 3_600_000, funding_rate=np.full(len(hours), 1e-3))
    KindStore(lake.root).append(Subject.of(FUNDING, BTC), records, arrived_ms=int(BLOCKS[BTC].open_time_ms[-1]))
    paid = _dataset(_frames(tmp_path, lake, config)).learned[known] - net[known]
    assert sorted(set(np.round(paid, 4))) == [-0.001, 0.0]


def _predictions(dataset, config):
    splits = plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=STEP)
    rows, judged = dataset.learned_rows(splits), dataset.rows(splits.validation, splits)
    judged = judged.take(judged.open_time_ms < splits.validation.end_ms - 40 * STEP)
    return {name: trainer(name)(dataset, rows, config, silent).predict(dataset, judged) for name in config.members}


def test_trees_learn_the_label_that_is_chosen(tmp_path, lake):
    """Forward is what was always learned, a shift that all rows share changes nothing, barriers make other trees."""
    plain = _predictions(_dataset(_frames(tmp_path, lake, series=[BTC])), CONFIG)
    chosen = {}
    for label in ("forward", "net", "barrier"):
        config = replace(CONFIG, label=label)
        chosen[label] = _predictions(_dataset(_frames(tmp_path, lake, config, [BTC])), config)
    for name, expected in plain.items():
        assert np.ptp(expected) > 0
        np.testing.assert_array_equal(chosen["forward"][name], expected)
        np.testing.assert_allclose(chosen["net"][name], expected, rtol=1e-3, atol=1e-9)
        assert np.ptp(chosen["barrier"][name]) > 0
        assert np.corrcoef(chosen["barrier"][name], expected)[0, 1] < 0.99


def test_weights_follow_the_ends_of_what_is_learned(tmp_path, lake):
    """With `uniqueness` a row counts by how much of its own trade is its own, and trees come out otherwise."""
    config = replace(CONFIG, label="barrier", row_weighting="uniqueness")
    dataset = _dataset(_frames(tmp_path, lake, config))
    splits = plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=STEP)
    rows = dataset.learned_rows(splits)
    ends = dataset.learned_end_ms[rows.index]
    weights = row_weights(rows, config, timeframe_ms=STEP, end_ms=ends)
    own = rows.series == 0
    unique = average_uniqueness(rows.open_time_ms[own] + STEP, ends[own], step_ms=STEP)

    np.testing.assert_allclose(weights[own] / weights[own].mean(), unique / unique.mean())
    assert np.ptp(unique) > 0.01
    equal = _predictions(dataset, replace(config, row_weighting="equal"))
    assert all((values != equal[name]).any() for name, values in _predictions(dataset, config).items())


@pytest.mark.parametrize("label", ["forward", "net", "barrier"])
def test_a_bundle_comes_of_each_label(tmp_path, lake, label):
    """Tiny trees train to a verified bundle with any label; what is judged is the forward return in each."""
    config = replace(CONFIG, label=label)
    report = train_candidate(_frames(tmp_path, lake, config), config, tmp_path / "bundle", silent)

    assert report.rows["fit"] > 1_000
    assert np.isfinite(report.metrics["calibration/ensemble/rmse"])
    # Of a net or a barrier label the mean would lie near the costs.
    assert abs(report.metrics["calibration/zero/rmse"] - report.metrics["calibration/ensemble/rmse"]) < 1e-3


def test_a_run_records_label_and_exits(tmp_path, monkeypatch):
    """The configuration holds the label and where barriers are: of the policy file, or the built-in ones."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    rules, moment = tmp_path / "policy.toml", datetime(2026, 1, 1, tzinfo=UTC)
    rules.write_text("max_holding_candles = 7\n")
    settings = FlowSettings.of()

    assert training_config(settings, moment).label == "forward"
    assert training_config(settings, moment).barriers is None
    built_in = training_config(settings, moment, label="barrier").barriers
    assert training_config(settings, moment, label="barrier", policy=str(rules)).barriers == replace(
        built_in, holding_candles=7
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--policy", "absent.toml"], "choose that label too"),
        (["--label", "barrier", "--policy", "no.toml"], "no.toml"),
    ],
)
@pytest.mark.parametrize("command", [model_commands.train, model_commands.retrain], ids=["train", "retrain"])
def test_exits_that_cannot_be_used_are_told_first(tmp_path, monkeypatch, command, options, said):
    """A policy that no label asks, or that cannot be read, is refused before anybody has to start a server."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(BadInputError, match=said):
        command(options, exit_on_error=False, result_action="return_value")
