"""Look-ahead of six kinds, planted into the code that trains: each is what a wrong line there would do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from feature_store.extensions.expansion import Source, SourceRows, as_of
from feature_store.universe.facts import facts_at
from feature_store.universe.selection import WEEK_MS
from flows.training import pipeline
from flows.training.combine import Combined
from flows.training.dataset import Dataset, Rows
from flows.training.pack import predict_members
from flows.training.splits import Splits

if TYPE_CHECKING:
    import numpy.typing as npt

    from flows.training.config import TrainingConfig
    from flows.training.dataset import Floats


@dataclass(frozen=True, slots=True)
class Planted:
    """One look-ahead: its kind, what it is in a few words, the wires one of which must name it, and how it gets in."""

    kind: str
    what: str
    wires: tuple[str, ...]
    plant: Callable[[], Any]
    # Whether it is in what the lake is read for, and so needs a lake.
    in_lake: bool = False
    follows_universe: bool = False


@contextmanager
def _labels_begin_early() -> Iterator[None]:
    """Labels that start one candle before the decision: part of them is known."""
    from flows.training import dataset  # noqa: PLC0415 - patched by name

    honest = dataset.forward_log_return

    def early(close: Floats, times: npt.NDArray[np.int64], *, horizon: int, timeframe_ms: int) -> Floats:
        label = honest(close, times, horizon=horizon, timeframe_ms=timeframe_ms)
        return np.concatenate([[np.nan], label[:-1]])

    with patch.object(dataset, "forward_log_return", early):
        yield


@contextmanager
def _label_in_an_input(share: float = 0.8) -> Iterator[None]:
    """An input that holds the outcome, with noise over it."""

    def spoil(data: Dataset) -> None:
        rng = np.random.default_rng(5)
        came = np.nan_to_num(data.label) / np.nanstd(data.label)
        noise = rng.standard_normal(len(came))
        data.inputs_all[:, 3] = share * came + np.sqrt(1 - share**2) * noise

    with _spoilt(spoil):
        yield


@contextmanager
def _input_of_the_next_candle() -> Iterator[None]:
    """All inputs stand one row too early: each candle shows the one after it."""

    def spoil(data: Dataset) -> None:
        data.inputs_all[:-1] = data.inputs_all[1:].copy()

    with _spoilt(spoil):
        yield


@contextmanager
def _inputs_scaled_by_everything() -> Iterator[None]:
    """Inputs standardised by the whole stretch, the locked window included."""

    def spoil(data: Dataset) -> None:
        centre, spread = np.nanmean(data.inputs_all, axis=0), np.nanstd(data.inputs_all, axis=0)
        data.inputs_all[:] = (data.inputs_all - centre) / np.maximum(spread, 1e-9)

    with _spoilt(spoil):
        yield


@contextmanager
def _spoilt(spoil: Callable[[Dataset], None]) -> Iterator[None]:
    honest = Dataset.__init__

    def init(self: Dataset, *args: Any, **named: Any) -> None:
        honest(self, *args, **named)
        self.inputs_all = self.inputs_all.copy()
        spoil(self)

    with patch.object(Dataset, "__init__", init):
        yield


class _ScaledByEverything:
    """A member whose target was scaled by the labels of all windows."""

    def __init__(self, fitted: Any, factor: float) -> None:
        self.fitted, self.factor, self.name = fitted, factor, fitted.name

    def predict(self, dataset: Dataset, rows: Rows) -> Floats:
        return np.asarray(self.fitted.predict(dataset, rows) * self.factor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fitted, name)


@contextmanager
def _targets_scaled_by_everything() -> Iterator[None]:
    """Members whose targets are scaled by the spread of all labels."""
    honest = pipeline.spec

    def spec(name: str) -> Any:
        found = honest(name)

        def fitted(dataset: Dataset, rows: Rows, config: TrainingConfig, progress: Any) -> Any:
            factor = float(np.nanstd(dataset.label) / rows.label.std())
            return _ScaledByEverything(found.fit(dataset, rows, config, progress), factor)

        return replace(found, fit=fitted)

    with patch.object(pipeline, "spec", spec):
        yield


@contextmanager
def _universe_of_later_volumes() -> Iterator[None]:
    """Universes chosen by what is traded a week later."""
    from feature_store.universe import building  # noqa: PLC0415 - patched by name

    def later(lake: Any, series: Any, moments: Any, listings: Any = ()) -> Iterator[Any]:
        for at_ms, facts in facts_at(lake, series, [one + WEEK_MS for one in moments], listings):
            yield at_ms - WEEK_MS, facts

    with patch.object(building, "facts_at", later):
        yield


@contextmanager
def _newest_universe_always() -> Iterator[None]:
    """Today's universe taken for that of every day."""
    from flows import universes  # noqa: PLC0415 - patched by name

    def always(stored: Any, symbol: str, times_ms: Any) -> Any:
        newest = max(stored, key=lambda one: one.universe.at_ms)
        return np.full(len(times_ms), symbol in newest.universe.symbols)

    with patch.object(universes, "was_included", always):
        yield


@contextmanager
def _bars_known_at_their_open() -> Iterator[None]:
    """Longer candles stamped at their open, so that they are read while they are under way."""
    honest = Source.advance

    def advance(self: Source, fresh: Any, known_ms: Any) -> SourceRows:
        rows = honest(self, fresh, known_ms)
        early = self._timeframe.milliseconds - self._own.milliseconds
        return SourceRows(rows.close_ms - early, rows.known_ms - early, rows.values)

    with patch.object(Source, "advance", advance):
        yield


@contextmanager
def _corrections_known_before_they_came() -> Iterator[None]:
    """Features of the newest revisions, whenever those arrived."""
    from feature_store import store  # noqa: PLC0415 - patched by name

    def newest(engine: Any, block: Any, *_: Any) -> Any:
        return engine.advance(block)

    with patch.object(store, "features_as_decided", newest):
        yield


@contextmanager
def _peers_known_at_their_close() -> Iterator[None]:
    """Other symbols' candles read as soon as they have closed, whether they had arrived or not."""
    from feature_store import decided_added  # noqa: PLC0415 - patched by name

    def closed(rows: SourceRows, close_ms: Any, decided_ms: Any, timeframe: Any, max_age: int) -> Any:
        known = replace(rows, known_ms=rows.close_ms)
        return as_of(known, close_ms, np.maximum(decided_ms, close_ms), timeframe, max_age)

    with patch.object(decided_added, "as_of", closed):
        yield


@contextmanager
def _calibrated_on_the_locked_window() -> Iterator[None]:
    """The calibration window taken from the candles that are to judge."""
    honest = pipeline._judging_rows  # noqa: SLF001 - a plant

    def rows(dataset: Dataset, splits: Splits, config: TrainingConfig) -> tuple[Rows, Rows]:
        validation, calibration = honest(dataset, splits, config)
        locked = dataset.rows(splits.shadow, splits, stride=config.evaluation_stride)
        return validation, locked if len(locked) else calibration

    with patch.object(pipeline, "_judging_rows", rows):
        yield


@contextmanager
def _calibration_knows_the_locked_drift() -> Iterator[None]:
    """Probabilities of a rise moved by how often prices rose in the locked window."""
    seen: list[Dataset] = []
    honest = pipeline.combine

    def remember(members: Mapping[str, Any], dataset: Dataset, rows: Rows, market_share: float) -> dict[str, Floats]:
        seen[:] = [dataset]
        return predict_members(members, dataset, rows, market_share)

    def combine(scored: Any, validation: Rows, calibration: Rows, *rest: Any) -> Combined:
        done = honest(scored, validation, calibration, *rest)
        (dataset,) = seen
        later = dataset.label[dataset.open_time_ms > calibration.open_time_ms.max() + dataset.timeframe_ms]
        rose = float((later[np.isfinite(later)] > 0).mean())
        moved = tuple(min(max(one + rose - 0.5, 0.02), 0.98) for one in done.table.probability_up)
        import msgspec  # noqa: PLC0415 - a plant

        return replace(done, table=msgspec.structs.replace(done.table, probability_up=moved))

    with ExitStack() as stack:
        stack.enter_context(patch.object(pipeline, "predict_members", remember))
        stack.enter_context(patch.object(pipeline, "combine", combine))
        yield


PLANTED = (
    Planted("label", "labels begin a candle early", ("label",), _labels_begin_early),
    Planted("label", "an input holds the label", ("label_in_input", "future_input"), _label_in_an_input),
    Planted("label", "inputs show the next candle", ("future_input",), _input_of_the_next_candle),
    Planted("scaler", "inputs scaled by all windows", ("scaler",), _inputs_scaled_by_everything),
    Planted("scaler", "targets scaled by all windows", ("scaler",), _targets_scaled_by_everything),
    Planted(
        "universe", "chosen by later volumes", ("universe",), _universe_of_later_volumes,
        in_lake=True, follows_universe=True,
    ),
    Planted(
        "universe", "today's for every day", ("universe",), _newest_universe_always,
        in_lake=True, follows_universe=True,
    ),
    Planted("resampling", "bars stamped at their open", ("resampling",), _bars_known_at_their_open, in_lake=True),
    Planted(
        "as-of join", "corrections before they came", ("as_of_join",), _corrections_known_before_they_came,
        in_lake=True,
    ),
    Planted("as-of join", "peers before they came", ("as_of_join",), _peers_known_at_their_close, in_lake=True),
    Planted("calibration", "on the locked window", ("calibration",), _calibrated_on_the_locked_window),
    Planted("calibration", "moved by the locked drift", ("calibration",), _calibration_knows_the_locked_drift),
)  # fmt: skip
"""Twelve plants of six kinds."""
KINDS = tuple(dict.fromkeys(one.kind for one in PLANTED))
