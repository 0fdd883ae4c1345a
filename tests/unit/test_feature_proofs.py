"""The three proofs of the features hold here, and each finds what it is there to find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.extensions import expansion
from feature_store.features.definition import FEATURE_NAMES, INDEX
from feature_store.features.engine import FeatureEngine
from feature_store.features.live import LiveFeatures
from feature_store.lake import CandleLake
from inference.bootstrap import catch_up
from inference.feed.batches import BatchAssembler
from inference.feed.rebuilding import Behind
from infra.prove import feature_oracle, feature_parity, label_lookahead, no_lookahead
from infra.prove.arrivals import Arrivals, Kind
from infra.prove.comparing import different_cells, relative_error
from infra.prove.feature_oracle import TOLERANCE, Verdicts, compare, longest_unbroken, who_was_asked
from infra.prove.feature_parity import World, through_the_lake, worlds
from infra.prove.label_lookahead import every_label_waits
from infra.prove.markets import gapped, market, synthetic_series
from infra.prove.no_lookahead import (
    cut_and_compare,
    feature_table,
    labels_wait_for_their_outcome,
    reads_know_no_future,
    training_table,
    where_to_cut,
)
from infra.prove.past_training_sets import past_dates_know_no_future
from infra.prove.recorded_markets import FOLDER_VARIABLE, recorded_series
from infra.prove.reference_talib import TALIB
from infra.prove.view_lookahead import added_inputs_know_no_future
from tests.feature_support import BTC, ETH, T0

CUTS = [1, 14, 60, 61, 64, 257, 399]


def test_all_arrives_in_the_end_as_it_truly_was():
    """Whatever comes late or wrong, what is known ends as the truth, and everything that can happen does."""
    kinds = set()
    for seed in range(4):
        truth = gapped(market(3_000), seed)
        arrivals = Arrivals(truth, np.random.default_rng(seed), 5)
        while not arrivals.is_over:
            before = arrivals.known
            delivery = arrivals.next()
            kinds.add(delivery.kind)
            assert delivery.known_before is None or delivery.known_before.equals(before)
        assert arrivals.known.equals(truth)
    assert kinds == set(Kind)


def test_nothing_is_late_or_wrong_beyond_the_patience():
    """With patience, a candle comes, and comes right, before others that open so much later."""
    step, patience = 300_000, 100
    for seed in range(4):
        truth = gapped(market(3_000), seed)
        arrivals = Arrivals(truth, np.random.default_rng(seed), 5, patience * step)
        while not arrivals.is_over:
            arrivals.next()
            known = arrivals.known
            last = int(known.open_time_ms.max(initial=0))
            settled = truth.until(last - patience * step + 1)
            assert known.until(last - patience * step + 1).equals(settled)
        assert arrivals.known.equals(truth)


def test_live_equals_batch_on_worlds_with_restarts(tmp_path):
    """Parity holds on series of several timeframes, and is compared on every one of the 49."""
    tally = feature_parity.Tally()
    for number, world in enumerate(worlds(synthetic_series(400, 8))):
        World(world, 3, 0.1, number, tmp_path / str(number), tally).play()
    through_the_lake({BTC: market(400)}, 3, tmp_path / "lake", tally)
    assert tally.differing == {}
    assert tally.events["restarts"] > 0
    assert tally.events["rebuilt"] > 0
    assert tally.values > 8 * 300 * 49


def test_one_bit_between_live_and_batch_is_found(tmp_path, monkeypatch):
    """A live value that differs in its last bit is named, in the one call that a worker makes for all symbols."""
    advance = LiveFeatures.advance_rows

    def nearly(self, *given):
        features, taken = advance(self, *given)
        features[:, INDEX["close"]] = np.nextafter(features[:, INDEX["close"]], np.inf)
        return features, taken

    monkeypatch.setattr(LiveFeatures, "advance_rows", nearly)
    tally = feature_parity.Tally()
    World({BTC: market(400), ETH: market(400, seed=2)}, 0, 0.0, 0, tmp_path, tally).play()
    assert set(tally.differing) == {"close"}


def test_a_state_that_a_restart_spoils_is_found(tmp_path, monkeypatch):
    """A worker that forgets what its averages were when it restarts does not pass."""
    take_over = LiveFeatures.take_over

    def forgetful(self, stored, symbols):
        found = take_over(self, stored, symbols)
        self._states.recursions[:, :3] = 1.0
        return found

    monkeypatch.setattr(LiveFeatures, "take_over", forgetful)
    tally = feature_parity.Tally()
    World({BTC: market(2_000)}, 0, 0.5, 0, tmp_path, tally).play()
    assert tally.differing


@pytest.mark.parametrize(
    ("where", "name", "instead"),
    [
        pytest.param(BatchAssembler, "recheck", lambda *_: None, id="looks-never-again"),
        pytest.param(Behind, "rebuild", lambda *_: {}, id="rebuilds-nothing"),
        pytest.param(catch_up, "_outdated", lambda *_: "", id="starts-from-any-state"),
    ],
)
def test_a_worker_that_ignores_what_has_changed_is_found(tmp_path, monkeypatch, where, name, instead):
    """Without any of its parts a worker's features of late and corrected candles differ from batch, and it is seen."""
    monkeypatch.setattr(where, name, instead)
    tally = feature_parity.Tally()
    for number, world in enumerate(worlds(synthetic_series(2_500, 24))):
        World(world, 6, 0.05, number, tmp_path / str(number), tally).play()

    assert tally.differing


def test_no_feature_and_no_label_looks_ahead(tmp_path):
    """Features, inputs, what training reads, labels and reads of the store hold, on candles with gaps."""
    tally, rng = no_lookahead.Tally(), np.random.default_rng(0)
    block = gapped(market(400), 1)
    cuts = where_to_cut(BTC, block, 5, rng)
    cut_and_compare(feature_table, BTC, block, cuts, tally)
    cut_and_compare(training_table, BTC, block, cuts, tally)
    labels_wait_for_their_outcome(BTC, block, cuts, tally)
    reads_know_no_future(BTC, block, tmp_path, 5, rng, tally)
    assert tally.changed == {}


def test_a_feature_that_looks_ahead_is_found():
    """Centering on the whole series, as careless normalising does, is named."""

    def leaking(series: Series, block: CandleBlock):
        table = feature_table(series, block)
        return table | {"rsi_14": table["rsi_14"] - np.nanmean(table["rsi_14"])} if len(block) > 20 else table

    tally = no_lookahead.Tally()
    cut_and_compare(leaking, BTC, market(400), CUTS, tally)
    assert set(tally.changed) == {"rsi_14"}


def test_no_label_of_any_kind_looks_ahead():
    """Net labels, barriers and uniqueness wait for their last candle, on candles with gaps too."""
    tally = no_lookahead.Tally()
    for series, block in synthetic_series(400, 4):
        every_label_waits(series, block, where_to_cut(series, block, 3, np.random.default_rng(1)), tally, horizon=12)

    assert tally.values > 50_000
    assert not tally.changed


def test_a_barrier_that_knows_tomorrow_is_found(monkeypatch):
    """The check bites: barriers placed by the range of all candles there are move with candles to come."""
    honest = label_lookahead.triple_barrier

    def knowing(block, atr, *rest, **more):
        return honest(block, np.full(len(block), np.nanmean(atr)), *rest, **more)

    monkeypatch.setattr(label_lookahead, "triple_barrier", knowing)
    tally = no_lookahead.Tally()
    series, block = next(synthetic_series(400, 2))
    every_label_waits(series, block, CUTS[2:], tally, horizon=12)

    assert any("barriers" in name for name in tally.changed)


def test_no_added_input_looks_ahead():
    """Inputs of one's own, of others and of longer timeframes are the same without what came later."""
    tally = no_lookahead.Tally()
    added_inputs_know_no_future(dict(synthetic_series(600, 4)), (40, 80), tally)

    assert tally.values > 10_000
    assert not tally.changed


def test_an_added_input_that_knows_tomorrow_is_found(monkeypatch):
    """The check bites: an hour that counts before it has closed moves with candles to come."""
    honest = expansion.coarsened

    def early(block, timeframe, *, whole_from_ms):
        longer = honest(block, timeframe, whole_from_ms=whole_from_ms)
        return CandleBlock(longer.open_time_ms, np.roll(longer.values, -1, axis=0))

    monkeypatch.setattr(expansion, "coarsened", early)
    tally = no_lookahead.Tally()
    added_inputs_know_no_future(dict(synthetic_series(600, 2)), (40, 80), tally)

    assert any("@1h" in name for name in tally.changed)


def test_references_agree_and_every_feature_has_one():
    """No feature goes without a reference, and on lively markets every error is within the bar."""
    verdicts = Verdicts()
    compare({BTC: market(600, flat=0.02), ETH: market(600, seed=2, flat=0.02)}, verdicts)
    assert [(name, error, said) for name, error, said in verdicts.ranked if not 0 <= error <= TOLERANCE] == []
    assert len(verdicts.ranked) == len(FEATURE_NAMES) == 49


def test_the_oracle_says_who_was_asked():
    """A market that stands still often is counted, and every feature that only our SQL knows is named."""
    verdicts = Verdicts()
    compare({BTC: market(600, flat=0.02), ETH: market(600, seed=2, flat=0.5)}, verdicts)
    asked, alone = who_was_asked(verdicts)
    assert asked.startswith("TA-Lib was asked of 1 of 2 series; 1 stand still in more than 5%")
    named = alone.partition("(")[2].rstrip(")").split(", ")
    assert named == [name for name in FEATURE_NAMES if name not in TALIB.keys() | feature_oracle.EXACT.keys()]
    assert "vpt" in named
    assert "rsi_14" not in named


@pytest.mark.parametrize("found", [[np.nan, 1.0], [1.0, np.nan], [np.nan, np.nan]])
def test_a_number_on_one_side_only_is_infinitely_wrong(found):
    """Where one side says nothing the error is infinite, whichever side it is; NaN beside NaN is none."""
    there = np.array([1.0, 1.0])
    assert relative_error(np.array(found), there) == np.inf
    assert relative_error(there, np.array(found)) == np.inf
    assert relative_error(np.array(found), np.array(found)) == 0.0


@pytest.mark.parametrize("feature", ["close", "vpt", "cci_20", "rsi_14"])
def test_a_wrong_feature_is_over_the_bar(feature, monkeypatch):
    """An error of one in a hundred million, in any kind of feature, is found by its reference."""
    advance = FeatureEngine.advance

    def wrong(self, block):
        features = advance(self, block)
        features[:, INDEX[feature]] *= 1 + 1e-8
        return features

    monkeypatch.setattr(FeatureEngine, "advance", wrong)
    verdicts = Verdicts()
    compare({BTC: market(600, flat=0.02)}, verdicts)
    assert [name for name, error, _ in verdicts.ranked if error > TOLERANCE] == [feature]


def test_another_warm_up_is_an_infinite_error():
    """A value where the reference has none, or none where it has one, is over any bar."""
    verdicts = Verdicts()
    verdicts.judge("rsi_14", np.array([np.nan, 1.0, 2.0]), np.array([np.nan, np.nan, 2.0]), "TA-Lib")
    assert verdicts.ranked[0] == ("rsi_14", float("inf"), "TA-Lib")


def test_references_are_given_series_without_long_gaps():
    """The longest stretch in which no gap begins the series afresh is compared."""
    block = market(500)
    parts = np.r_[0:100, 170:500]
    part = longest_unbroken(CandleBlock(block.open_time_ms[parts], block.values[parts]), BTC)
    assert part.equals(block[170:])


def test_proofs_say_that_nothing_is_recorded(monkeypatch):
    """Without MARKET_DATA_DIR there are no recorded series, and that is no error."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    assert list(recorded_series()) == []


def test_recorded_series_are_those_that_a_market_could_have_made(tmp_path, monkeypatch):
    """Impossible candles are left out, other files passed over, and only the last candles kept."""
    (tmp_path / "trades.csv").write_text("exchange,symbol,ts,price\nx,BTCUSDT,1,2\n")
    rows = [f"x,BTCUSDT,5m,{T0 + 300_000 * n},1,2,{'3' if n == 5 else '1'},1,1" for n in range(10)]
    (tmp_path / "x_5m.csv").write_text("\n".join(["exchange,symbol,timeframe,ts,open,high,low,close,volume", *rows]))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    ((series, block),) = recorded_series(limit=6)
    assert (series.venue, series.timeframe) == ("x", Timeframe.M5)
    assert [(time - T0) // 300_000 for time in block.open_time_ms.tolist()] == [3, 4, 6, 7, 8, 9]


def test_bits_count():
    """A negative zero differs from zero, and nothing from itself."""
    left = np.array([0.0, np.nan, 1.0])
    assert different_cells(left, np.array([-0.0, np.nan, 1.0])).tolist() == [True, False, False]


def test_talib_is_asked_only_where_it_has_a_word():
    """Each feature that TA-Lib answers for is one of the 49."""
    assert TALIB.keys() <= set(FEATURE_NAMES)
    assert feature_oracle.EXACT.keys() <= TALIB.keys()


def test_past_dates_equal_a_store_cut_off_then(tmp_path):
    """Training sets and universes of past dates show nothing of what arrived later, corrections included."""
    tally = no_lookahead.Tally()
    past_dates_know_no_future(tmp_path, 4, np.random.default_rng(5), tally)

    assert tally.changed == {}
    assert tally.values > 50_000


class _WithoutMemory(CandleLake):
    """A lake that has forgotten when candles arrived: it says that each was known at its close."""

    def read_rows(self, series, start_ms=None, end_ms=None):
        rows = super().read_rows(series, start_ms, end_ms)
        known_ms = rows.block.open_time_ms + series.timeframe.milliseconds
        return replace(rows, available_at_ms=known_ms)


def test_a_store_that_forgets_arrivals_is_found(tmp_path):
    """Where late candles and corrections count as known from the start, past training sets and universes differ."""
    tally = no_lookahead.Tally()
    past_dates_know_no_future(tmp_path, 4, np.random.default_rng(5), tally, make_lake=_WithoutMemory)

    assert {"features of a past training set", "moment of decision", "rows of universe of a past moment"} & set(
        tally.changed
    )
