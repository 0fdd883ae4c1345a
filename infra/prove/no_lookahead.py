"""What was known is never changed by what came after: features, what models read, labels, and reads of the store."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.candle import CandleBlock, Series
from feature_store.features.definition import FEATURE_NAMES, MODEL_INPUT_NAMES, WARM_UP, WINDOW
from feature_store.features.engine import FeatureEngine, model_inputs
from feature_store.lake import CandleLake
from feature_store.store import FeatureStore
from flows.training.dataset import Dataset, FrameSet
from inference.models.market_move import without_market
from infra.prove.arrivals import Arrivals
from infra.prove.comparing import different_cells
from infra.prove.label_lookahead import every_label_waits
from infra.prove.markets import synthetic_series
from infra.prove.past_training_sets import past_dates_know_no_future
from infra.prove.proof import Proof, Size
from infra.prove.recorded_markets import recorded_series, what_was_used
from infra.prove.view_lookahead import added_inputs_know_no_future

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt

    Table = dict[str, npt.NDArray[Any]]
    Compute = Callable[[Series, CandleBlock], Table]

HORIZON = 12
_MARKET_SHARE = 0.5
_EDGES = (*sorted(set(WARM_UP)), 61, 63, 64, 65, 124, 255, 256, 257, 512)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is cut, and how often."""

    synthetic: int
    synthetic_series: int
    recorded: int
    per_file: int | None
    random_cuts: int
    stored_moments: int
    past_dates: int


EXTENTS = {Size.FULL: Extent(5_000, 24, 3_000, None, 25, 120, 60), Size.CI: Extent(1_500, 12, 2_000, 1, 10, 30, 12)}


@dataclass(slots=True)
class Tally:
    """How many values were compared, and which of them the future changed."""

    values: int = 0
    cuts: int = 0
    changed: Counter[str] = field(default_factory=Counter)

    def compare(self, name: str, before: npt.NDArray[Any], after: npt.NDArray[Any]) -> None:
        """Compare what was known with what is said of it later."""
        self.values += before.size
        if before.shape != after.shape:
            self.changed[f"rows of {name}"] += 1
        elif before.size:
            different = different_cells(before, after) if before.dtype.kind == "f" else before != after
            self.changed += Counter({name: int(different.sum())})


def prove(size: Size) -> Proof:
    """Cut series at many places and compare each beginning with the same rows of the whole, exactly."""
    extent, tally, real = EXTENTS[size], Tally(), 0
    rng = np.random.default_rng(3)
    synthetic = synthetic_series(extent.synthetic, extent.synthetic_series)
    for series, block in chain(synthetic, recorded_series(extent.recorded, extent.per_file)):
        real += series.venue != "synthetic"
        cuts = where_to_cut(series, block, extent.random_cuts, rng)
        cut_and_compare(feature_table, series, block, cuts, tally)
        cut_and_compare(training_table, series, block, cuts, tally)
        labels_wait_for_their_outcome(series, block, cuts[::2], tally)
        every_label_waits(series, block, cuts[::4], tally, horizon=HORIZON)
    stored = dict(synthetic_series(1_200, 4))
    labels_without_the_market(stored, tally, rng)
    added_inputs_know_no_future(stored, (7, 33, 61, 90), tally)
    with tempfile.TemporaryDirectory() as folder:
        for number, (series, truth) in enumerate(stored.items()):
            reads_know_no_future(series, truth, Path(folder) / str(number), extent.stored_moments, rng, tally)
        tally.cuts += past_dates_know_no_future(Path(folder) / "past", extent.past_dates, rng, tally)
    wrong = ", ".join(f"{name} {count}" for name, count in tally.changed.most_common(5)) or "0 changed"
    return Proof(
        name="no-lookahead",
        figure=(
            f"{tally.values:,} values at {tally.cuts:,} cuts and past dates, {len(FEATURE_NAMES)} features, labels, "
            f"training sets and universes: {wrong}"
        ),
        bar="a prefix gives what the whole gives, and a past date what a store cut off then gives, exactly",
        holds=not tally.changed,
        details=(f"on {what_was_used(real)}",),
    )


def where_to_cut(series: Series, block: CandleBlock, count: int, rng: np.random.Generator) -> list[int]:
    """Return lengths to cut a series to: around every warm-up and block, around gaps, and random ones."""
    gaps = np.flatnonzero(np.diff(block.open_time_ms) > series.timeframe.milliseconds)[:5] + 1
    wanted = {*_EDGES, *(gaps + 1).tolist(), *gaps.tolist(), *rng.integers(1, len(block) + 1, count).tolist()}
    return sorted(one for one in (*wanted, len(block) - 1) if 0 < one <= len(block))


def feature_table(series: Series, block: CandleBlock) -> Table:
    """Return every feature and every model input by name, one row for each candle."""
    features = FeatureEngine(series.timeframe).advance(block)
    inputs = model_inputs(features)
    columns: Table = {name: features[:, column] for column, name in enumerate(FEATURE_NAMES)}
    return columns | {f"input {name}": inputs[:, column] for column, name in enumerate(MODEL_INPUT_NAMES)}


def training_table(series: Series, block: CandleBlock) -> Table:
    """Return what training reads of each candle beside its label."""
    dataset = _dataset(series, block)
    names = {"inputs of training": dataset.inputs_all, "returns of training": dataset.returns_all}
    return names | {"complete": dataset.complete, "times": dataset.open_time_ms}


def cut_and_compare(compute: Compute, series: Series, block: CandleBlock, cuts: Iterable[int], tally: Tally) -> None:
    """Compare what a prefix gives with the same rows of the whole."""
    whole = compute(series, block)
    for cut in cuts:
        tally.cuts += 1
        for name, column in compute(series, block[:cut]).items():
            tally.compare(name, column, whole[name][:cut])


def labels_wait_for_their_outcome(series: Series, block: CandleBlock, cuts: Iterable[int], tally: Tally) -> None:
    """A label is there with the candle that completes its horizon and never before, and then it stays."""
    whole = _dataset(series, block).label
    outcome_ms = block.open_time_ms + HORIZON * series.timeframe.milliseconds
    for cut in cuts:
        known = outcome_ms[:cut] <= block.open_time_ms[cut - 1]
        tally.compare("label", _dataset(series, block[:cut]).label, np.where(known, whole[:cut], np.nan))


def labels_without_the_market(blocks: dict[Series, CandleBlock], tally: Tally, rng: np.random.Generator) -> None:
    """What the whole market did is taken off a label with outcomes of that same moment only."""
    pairs = [(block.open_time_ms, _dataset(series, block).label) for series, block in blocks.items()]
    times, label = np.concatenate([one[0] for one in pairs]), np.concatenate([one[1] for one in pairs])
    times, label = times[np.isfinite(label)], label[np.isfinite(label)]
    whole = without_market(label, times, _MARKET_SHARE)
    for moment in rng.choice(times, 30).tolist():
        early = times <= moment
        tally.compare("label without market", without_market(label[early], times[early], _MARKET_SHARE), whole[early])


def reads_know_no_future(
    series: Series, truth: CandleBlock, folder: Path, moments: int, rng: np.random.Generator, tally: Tally
) -> None:
    """Features as of a moment, and frames that end at one, come from what had arrived by then; corrections wait."""
    lake, store = CandleLake(folder / "lake"), FeatureStore(folder / "features")
    arrivals, now = Arrivals(truth, rng, 5), 0
    then: list[tuple[int, CandleBlock]] = []
    while not arrivals.is_over:
        delivery = arrivals.next()
        newest = delivery.block.last_open_time_ms
        now = max(now + 1_000, 0 if newest is None else newest + series.timeframe.milliseconds)
        lake.append(series, delivery.block, available_at_ms=now)
        then.append((now, arrivals.known))
    for place in rng.permutation(len(then))[:moments].tolist():
        moment, known = then[place]
        if len(known) == 0:
            continue
        found = store.features_as_of(lake, [series], moment)[series]
        expected = FeatureEngine(series.timeframe).advance(known)[-1]
        tally.compare("features as of a moment", expected, np.empty(0) if found is None else found.features)
    whole = store.training_frame(lake, [series], 0, int(truth.open_time_ms[-1]) + 1, HORIZON)[series]
    for cut in rng.integers(1, len(truth), moments).tolist():
        end_ms = int(truth.open_time_ms[cut])
        frame = store.training_frame(lake, [series], 0, end_ms, HORIZON)[series]
        known_label = truth.open_time_ms[:cut] + HORIZON * series.timeframe.milliseconds < end_ms
        tally.compare("frame", frame.features, whole.features[:cut])
        expected = np.where(known_label, whole.forward_log_return[:cut], np.nan)
        tally.compare("label of the frame", frame.forward_log_return, expected)
    tally.cuts += 2 * moments


def _dataset(series: Series, block: CandleBlock) -> Dataset:
    frame = FeatureStoreFrame.of(series, block)
    return Dataset(FrameSet.of_store({series: frame}), horizon=HORIZON, window=WINDOW)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureStoreFrame:
    """A frame as training asks for it, made from candles at hand."""

    open_time_ms: npt.NDArray[np.int64]
    inputs: npt.NDArray[np.float32]
    log_return: npt.NDArray[np.float64]
    close: npt.NDArray[np.float64]

    @classmethod
    def of(cls, series: Series, block: CandleBlock) -> FeatureStoreFrame:
        """Return the frame of all candles of a block."""
        features = FeatureEngine(series.timeframe).advance(block)
        log_return = features[:, FEATURE_NAMES.index("log_return_1")]
        return cls(block.open_time_ms, model_inputs(features), log_return, block.close)
