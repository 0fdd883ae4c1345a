"""The races are fair, their ratios are what they say, and each proof can fail."""

from __future__ import annotations

import numpy as np
import pytest

from infra.prove import feature_latency, feature_scale, feature_speed
from infra.prove.feature_races import Cost, fill_lake, markets, ratio, take_turns
from infra.prove.proof import Size
from infra.prove.stage import ProofError
from tests.feature_support import market


def test_all_peers_compute_what_the_kernel_does():
    """TA-Lib, Polars, pandas and FreqAI's style agree on all 49, so that the race is about one thing."""
    assert feature_speed._agree([market(600, seed=seed, flat=0.02) for seed in range(2)]) <= feature_speed.TOLERANCE


def test_a_peer_that_computes_something_else_is_no_peer(monkeypatch):
    """One feature that differs ends the proof."""
    by_arrays = feature_speed.by_arrays
    monkeypatch.setattr(feature_speed, "by_arrays", lambda values: [one * (1 + 1e-8) for one in by_arrays(values)])

    with pytest.raises(ProofError, match="TA-Lib computes another open"):
        feature_speed._agree([market(600)])


def test_a_ratio_is_the_median_of_turns():
    """Each turn is set against the one beside it: a machine that is busy for one turn decides nothing."""
    costs = {
        "a": [Cost(1.0, 1.0), Cost(50.0, 1.0), Cost(2.0, 1.0)],
        "b": [Cost(2.0, 1.0), Cost(100.0, 1.0), Cost(2.0, 1.0)],
    }

    assert ratio(costs, "a", "b") == 0.5


def test_racers_alternate():
    """A, B, A, B."""
    order: list[str] = []

    def racer(name):
        return lambda: order.append(name) or Cost(1.0, 1.0)

    take_turns({"a": racer("a"), "b": racer("b")}, 2)

    assert order == ["a", "b", "a", "b"]


def test_later_symbols_of_a_lake_have_candles_too(tmp_path):
    """A symbol beyond those that differ is a series as any other."""
    lake = fill_lake(tmp_path, 23, 50)

    assert len(lake.series()) == 23
    assert {len(lake.read(series)) for series in lake.series()} == {50}
    assert len(markets(3, 10)) == 3


@pytest.mark.parametrize(
    ("seconds", "peaks", "holds"),
    [((1.0, 9.0), (100, 120), True), ((1.0, 12.0), (100, 120), False), ((1.0, 9.0), (100, 501), False)],
    ids=["held", "slower", "larger"],
)
def test_growth_and_memory_decide(monkeypatch, seconds, peaks, holds):
    """More time than in proportion fails, and so does memory."""
    found = iter([Cost(s, s, m) for s, m in zip(seconds, peaks, strict=True) for _ in range(2)])
    monkeypatch.setattr(feature_scale, "process", lambda *_: next(found))
    monkeypatch.setattr(feature_scale, "fill_lake", lambda *_: None)

    assert feature_scale.prove(Size.CI).holds is holds


def test_live_features_and_handles_agree(monkeypatch):
    """The two that are timed say the same for every candle; where one does not, there is no race."""
    monkeypatch.setattr(feature_latency, "SYMBOLS", 2)
    live = feature_latency.LiveFeatures(("A", "B"))
    measured = feature_latency._follow(live, 80)

    assert len(measured.ours_ms) == len(measured.theirs_ms) == 80
    assert (feature_latency._as_a_worker(("A", "B"), 80) > 0).all()
    update = feature_latency.Handles.update
    monkeypatch.setattr(feature_latency.Handles, "update", lambda self, *row: tuple(np.add(update(self, *row), 1e-3)))
    with pytest.raises(ProofError, match="no fair race"):
        feature_latency._follow(feature_latency.LiveFeatures(("A", "B")), 80)


def test_the_worker_s_path_is_timed_only_where_it_would_decide(monkeypatch):
    """A figure of rows that no model would read is none."""
    monkeypatch.setattr(feature_latency, "_HISTORY", 20)

    with pytest.raises(ProofError, match="its own path is not timed"):
        feature_latency._as_a_worker(("A", "B"), 5)
