"""Profiles of features are what numpy says they are, add up over months, and are made again only where needed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError, CorruptFileError
from feature_store.features.definition import FEATURE_NAMES, INDEX, MODEL_INPUT_NAMES
from feature_store.features.engine import FeatureEngine, model_inputs
from feature_store.lake import CandleLake
from feature_store.profiles import SHARES, ColumnProfile, ProfileStore, measure, month_after, month_start_ms
from feature_store.stability import GRID_ERROR, Sketch
from feature_store.store import FeatureStore
from inference import cli

SERIES = Series("sandbox", "BTC/USDT:USDT", Timeframe.M5)
STEP = Timeframe.M5.milliseconds
START = month_start_ms("2026-02") - 500 * STEP  # 500 candles of January, all of February, some of March.
COUNT = 500 + 28 * 288 + 700

tables = arrays(
    np.float64,
    st.tuples(st.integers(1, 60), st.integers(1, 3)),
    elements=st.floats(-1e9, 1e9) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0]),
)


def _candles(count: int = COUNT, seed: int = 0) -> CandleBlock:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, count)))
    opened = np.append(100.0, close[:-1])
    high, low = np.maximum(opened, close) * 1.0002, np.minimum(opened, close) * 0.9998
    values = np.stack([opened, high, low, close, rng.uniform(1, 2, count)], axis=1)
    return CandleBlock(START + STEP * np.arange(count, dtype=np.int64), values)


@pytest.fixture
def home(tmp_path):
    """Return a home whose lake holds candles of three months."""
    CandleLake(tmp_path / "lake").append(SERIES, _candles())
    return tmp_path


def _update(home) -> tuple[ProfileStore, int]:
    FeatureStore(home / "features").materialize(CandleLake(home / "lake"), [SERIES])
    store = ProfileStore(home / "features" / "profiles")
    return store, store.update(home / "features", SERIES)


def _check(found: ColumnProfile, values: np.ndarray, *, exact_quantiles: bool) -> None:
    """Compare a profile with what numpy says of the values."""
    finite = values[np.isfinite(values)]
    assert (found.candles, found.missing) == (len(values), len(values) - len(finite))
    assert found.zeros == np.count_nonzero(finite == 0)
    assert np.array_equal(found.sketch.counts, Sketch.of(values).counts)
    if not len(finite):
        assert math.isnan(found.mean)
        return
    scale = np.abs(finite).max()
    assert (found.least, found.greatest) == (finite.min(), finite.max())
    assert found.mean == pytest.approx(finite.mean(), rel=1e-9, abs=1e-12 * scale)
    if len(finite) > 1:
        assert found.std == pytest.approx(finite.std(ddof=1), rel=1e-9, abs=1e-9 * scale)
    for share, quantile in zip(SHARES, found.quantiles, strict=True):
        if exact_quantiles:
            assert quantile == pytest.approx(np.quantile(finite, share), rel=1e-9, abs=1e-9 * scale)
        else:
            near = np.quantile(finite, share, method="lower")
            assert abs(quantile - near) <= GRID_ERROR * abs(near) + 2.3e-308


@settings(max_examples=40, deadline=None)
@given(tables)
def test_statistics_are_those_of_numpy(values):
    """Whatever a table holds, each figure of each column is what numpy computes from the values."""
    for number, found in enumerate(measure([f"c{n}" for n in range(values.shape[1])], values)):
        _check(found, values[:, number], exact_quantiles=True)


@settings(max_examples=30, deadline=None)
@given(st.lists(tables.filter(lambda one: one.shape[1] == 1), min_size=2, max_size=4))
def test_merged_profiles_are_those_of_all_values(parts):
    """Merged in any grouping, profiles say of the parts what one profile says of the whole."""
    profiles = [measure(["c"], part)[0] for part in parts]
    whole = np.concatenate(parts)[:, 0]

    _check(ColumnProfile.merged(profiles), whole, exact_quantiles=False)
    _check(
        ColumnProfile.merged([ColumnProfile.merged(profiles[:1]), ColumnProfile.merged(profiles[1:])]),
        whole,
        exact_quantiles=False,
    )


def test_profiles_of_a_series_are_those_of_its_features(home):
    """Each month's profile is of that month's features and model inputs; together they are of all."""
    store, measured = _update(home)
    features = FeatureEngine(Timeframe.M5).advance(_candles())
    february = slice(500, 500 + 28 * 288)

    assert measured == 3
    assert store.months(SERIES) == ["2026-01", "2026-02", "2026-03"]
    for found, column in zip(store.read(SERIES, "2026-02", "feature"), features[february].T, strict=True):
        _check(found, column, exact_quantiles=True)
    together = store.merged({SERIES: store.months(SERIES)}, "input")
    assert [one.name for one in together] == list(MODEL_INPUT_NAMES)
    for found, column in zip(together, model_inputs(features).astype(np.float64).T, strict=True):
        _check(found, column, exact_quantiles=False)


def test_only_what_changed_is_measured_again(home):
    """A second run measures nothing; a corrected candle makes its month and what follows be measured again."""
    store, _ = _update(home)
    before = store.read(SERIES, "2026-01", "feature")[INDEX["close"]].mean
    again = _update(home)[1]
    block = _candles()
    at = 500 + 10
    corrected = CandleBlock(block.open_time_ms[at : at + 1], block.values[at : at + 1] * 1.5)
    CandleLake(home / "lake").append(SERIES, corrected)

    assert again == 0
    assert _update(home)[1] == 2
    assert store.read(SERIES, "2026-02", "feature")[INDEX["close"]].greatest == corrected.values[0, 3]
    assert store.read(SERIES, "2026-01", "feature")[INDEX["close"]].mean == before


def test_a_damaged_profile_is_refused_and_made_again(home):
    """A file that is not whole is named with a way out, and the next update replaces it."""
    store, _ = _update(home)
    path = next(store.root.rglob("2026-02.parquet"))
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(CorruptFileError, match="qtctl features profile"):
        store.read(SERIES, "2026-02", "feature")
    assert store.update(home / "features", SERIES) == 1
    assert len(store.read(SERIES, "2026-02", "feature")) == len(FEATURE_NAMES)


@pytest.mark.parametrize("month", ["2026-07", "../../x", ""])
def test_a_month_that_is_not_there_is_named(home, month):
    """What is asked for and not there is an error that lists what is."""
    store, _ = _update(home)

    with pytest.raises(BadInputError, match="2026-03"):
        store.read(SERIES, month, "feature")


@pytest.mark.parametrize(("month", "following"), [("2026-01", "2026-02"), ("2026-12", "2027-01")])
def test_months_follow_each_other(month, following):
    """The month after December is January, and a month begins when the one before ends."""
    assert month_after(month) == following
    assert month_start_ms(following) > month_start_ms(month)


def test_the_command_shows_and_tells(home, monkeypatch, capsys):
    """`qtctl features profile` needs no stack, shows a table, tells the same as JSON, and names what is not there."""
    monkeypatch.setenv("QUANTUM_HOME", str(home))

    assert cli.run(["features", "profile", "--month", "2026-02"]) == 0
    shown = capsys.readouterr().out
    assert cli.run(["features", "profile", "--symbols", SERIES.symbol, "--inputs", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert cli.run(["features", "profile", "--month", "1999-01"]) == 2
    refused = capsys.readouterr().err

    assert all(name in shown for name in FEATURE_NAMES)
    assert [one["name"] for one in told] == list(MODEL_INPUT_NAMES)
    assert {one["candles"] for one in told} == {COUNT}
    assert "2026-01, 2026-02, 2026-03" in refused
