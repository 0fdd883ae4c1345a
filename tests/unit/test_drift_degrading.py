"""The sequential test of performance speaks as rarely as it says, and finds what was lost."""

from __future__ import annotations

import numpy as np
import pytest

from flows.drifting.degrading import FEWEST_BLOCKS, MEASURES, degradation, e_value
from flows.drifting.performance import BLOCK_HORIZONS, block_measures
from flows.training.dataset import Rows
from flows.training.trading import simulate

HOUR_MS = 3_600_000
NAMES = tuple(one.name for one in MEASURES)


def _blocks(rng: np.random.Generator, count: int, mean: float) -> dict[str, np.ndarray]:
    values = rng.normal(mean, 1.0, count)
    return {name: values + rng.normal(0, 0.3, count) for name in NAMES}


def _ever(seed: int, *, before: float, now: float, count: int = 120) -> bool:
    rng = np.random.default_rng(seed)
    return degradation(_blocks(rng, 24, before), _blocks(rng, count, now), rate=0.05, days=30).found


def test_looking_often_raises_no_more_false_alarms():
    """Looked at after each of 120 blocks, an unchanged champion is called degraded in at most one of twenty lives."""
    alarms = sum(_ever(seed, before=0.0, now=0.0) for seed in range(300))

    assert alarms <= 300 * 0.05 + 2 * np.sqrt(300 * 0.05)


def test_what_was_lost_is_found():
    """A champion whose every figure falls by two deviations is degraded, and the note says which fell most."""
    rng = np.random.default_rng(1)
    found = degradation(_blocks(rng, 24, 1.0), _blocks(rng, 40, -1.0), rate=0.01, days=10)

    assert found.found
    assert any(name in found.note for name in NAMES)
    assert all(one.observed < one.held_to for one in found.measures)


def test_half_of_its_skill_may_go():
    """What a chosen version showed is more than it has: half of it may go before anything is claimed."""
    assert sum(_ever(seed, before=1.0, now=0.6) for seed in range(40)) <= 4


def test_an_e_value_is_worth_one_on_average():
    """Where nothing changed, the evidence after any amount of information averages 1."""
    z = np.linspace(-30, 30, 60_001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)

    for information in (0.5, 5.0, 15.0):
        average = np.trapezoid(e_value(z, np.full(len(z), information)) * density, z)
        assert average == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("before", "now", "state"),
    [
        pytest.param(FEWEST_BLOCKS - 1, 20, "too-few", id="too-little-at-promotion"),
        pytest.param(20, 0, "too-new", id="nothing-matured-yet"),
        pytest.param(20, 20, "judged", id="enough"),
    ],
)
def test_what_cannot_be_judged_is_said(before, now, state):
    """Too few blocks at promotion or since are states of their own, and no alarm."""
    rng = np.random.default_rng(3)
    found = degradation(_blocks(rng, before, 0.5), _blocks(rng, now, 0.5), rate=0.01, days=1)

    assert found.state == state
    assert not found.found
    assert found.note


def test_constant_and_missing_figures_are_left_out():
    """A figure that never varied, as of a champion that never traded, or that has no value, proves nothing."""
    rng = np.random.default_rng(4)
    before, now = _blocks(rng, 20, 0.5), _blocks(rng, 20, 0.5)
    before["net_per_slot_bps"] = np.zeros(20)
    now["ic"] = np.full(20, np.nan)
    found = degradation(before, now, rate=0.01, days=5)

    assert "net_per_slot_bps" not in {one.name for one in found.measures}
    assert {one.name: one.evidence for one in found.measures}["ic"] == 1.0
    assert not found.found


def _rows(hours: int) -> tuple[Rows, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    times = np.repeat(np.arange(hours * 12, dtype=np.int64) * HOUR_MS // 12, 2)
    label = rng.normal(0, 0.01, len(times))
    rows = Rows(np.arange(len(times)), np.tile([0, 1], hours * 12), times, label)
    expected = 0.3 * label + rng.normal(0, 0.002, len(times))
    return rows, expected, 0.5 + np.clip(40 * expected, -0.4, 0.4)


def test_blocks_hold_what_the_whole_says():
    """Blocks add up: net is what the threshold rule earned in all slots, hits what the signs say; a rest is left."""
    rows, expected, up = _rows(50)
    trades = simulate(rows, expected, up, threshold=0.55, cost=0.0014, horizon_ms=HOUR_MS)
    found = block_measures(
        rows, expected, up, trades, start_ms=0, end_ms=50 * HOUR_MS, horizon_ms=HOUR_MS, series=2
    )  # fmt: skip
    whole = rows.open_time_ms < 8 * BLOCK_HORIZONS * HOUR_MS
    early = trades.entry_ms < 8 * BLOCK_HORIZONS * HOUR_MS

    assert set(found) == set(NAMES)
    assert all(len(values) == 8 for values in found.values())
    assert found["net_per_slot_bps"].sum() == pytest.approx(trades.net[early].sum() / (BLOCK_HORIZONS * 2) * 1e4)
    hits = np.sign(expected[whole]) == np.sign(rows.label[whole])
    assert found["hit_rate_above_half"].mean() == pytest.approx(hits.mean() - 0.5)
    assert found["ic"].min() > 0.3
    assert found["brier_gain"].mean() > 0
    first = rows.open_time_ms < BLOCK_HORIZONS * HOUR_MS
    errors = np.sqrt(np.mean((rows.label[first] - expected[first]) ** 2) / np.mean(rows.label[first] ** 2))
    assert found["rmse_skill"][0] == pytest.approx(1 - errors)


def _seen(rows: Rows, expected: np.ndarray, up: np.ndarray, first: int, last: int) -> dict[str, np.ndarray]:
    inside = (rows.open_time_ms >= first * HOUR_MS) & (rows.open_time_ms < last * HOUR_MS)
    some, said, rising = rows.take(inside), expected[inside], up[inside]
    trades = simulate(some, said, rising, threshold=0.55, cost=0.0014, horizon_ms=HOUR_MS)
    return block_measures(
        some, said, rising, trades,
        start_ms=first * HOUR_MS, end_ms=last * HOUR_MS, horizon_ms=HOUR_MS, series=2,
    )  # fmt: skip


def test_errors_that_grow_alone_are_found():
    """Predictions of ten times their size keep their signs, order and probabilities; RMSE skill calls them worse."""
    rows, expected, up = _rows(600)
    before = _seen(rows, expected, up, 0, 120)
    grown, same = (_seen(rows, expected * times, up, 120, 600) for times in (10.0, 1.0))
    found, unchanged = (degradation(before, now, rate=0.01, days=20) for now in (grown, same))

    assert found.found
    assert max(found.measures, key=lambda one: one.evidence).name == "rmse_skill"
    assert "rmse_skill" in found.note
    assert not unchanged.found


def test_a_lively_market_is_no_larger_error():
    """Errors are told against what expecting nothing would have cost: three times the volatility changes nothing."""
    rows, expected, up = _rows(60)
    louder = Rows(rows.index, rows.series, rows.open_time_ms, 3 * rows.label)
    quiet, loud = (_seen(one, said, up, 0, 60) for one, said in ((rows, expected), (louder, 3 * expected)))

    assert loud["rmse_skill"] == pytest.approx(quiet["rmse_skill"])


def test_no_rows_are_no_blocks_of_outcomes():
    """Where nothing matured, every block is missing rather than zero."""
    rows, expected, up = _rows(12)
    nothing = np.zeros(0, np.int64)
    trades = simulate(rows.take(nothing), expected[:0], up[:0], threshold=0.5, cost=0.0, horizon_ms=HOUR_MS)
    found = block_measures(
        rows.take(nothing), expected[:0], up[:0], trades,
        start_ms=0, end_ms=12 * HOUR_MS, horizon_ms=HOUR_MS, series=2,
    )  # fmt: skip

    assert all(np.isnan(values).all() and len(values) == 2 for values in found.values())
