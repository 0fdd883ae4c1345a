"""What a drift check looks at: inputs, predictions and outcomes of equal stretches, and what was earned since."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from feature_store.errors import BadInputError
from flows.drifting.check import Performance, Stretches
from flows.drifting.performance import block_measures
from flows.drifting.stretches import MOST_STRETCHES, stretches_of
from flows.frames import frames_between, newest_close_ms, stored_series
from flows.live_predictions import LivePredictions
from flows.replay.shadow import Predicted, score_rows
from flows.settings import FlowSettings
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, FrameSet, Rows
from flows.training.report import TrainingReport
from flows.training.splits import Splits
from flows.training.trading import simulate
from flows.universes import members_of
from flows.wording import moment
from inference.models.bundle import Bundle
from inference.models.manifest import TimeWindow, TrainingWindows

HOUR_MS = 3_600_000
# Every third candle is scored, at promotion and since: neighbours share nearly all of their inputs and labels.
STRIDE = 3
_SHOWN_ROWS = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Rows for people to look at, [rows, columns]: of the reference, and of now."""

    columns: tuple[str, ...]
    before: npt.NDArray[np.float64]
    now: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """All that one check needs, and a sample of it to draw."""

    groups: tuple[Stretches, ...]
    performance: Performance
    sample: Sample
    end_ms: int
    notes: tuple[str, ...] = field(default=())


def observe(
    settings: FlowSettings,
    bundle: Bundle,
    training: TrainingReport,
    config: TrainingConfig,
    hours: int,
    live: LivePredictions,
) -> Observed:
    """
    Read what the champion saw when it was made and sees now, and score both with its own bundle.

    Where a worker recorded what the champion said live, that is taken instead of what it would have said.

    Raises:
        BadInputError: The newest hours reach into the window that members were fitted on, or too little is stored.
    """
    _check(hours)
    frames, end_ms = _frames(settings, training, config, hours, who="champion")
    dataset = Dataset(frames, horizon=training.horizon, window=bundle.manifest.window)
    notes = []

    def said(rows: Rows) -> Predicted:
        replayed = score_rows(bundle, dataset, rows)
        expected, up, count = live.over(dataset, rows, replayed.expected, replayed.probability_up)
        notes.append(f"{count} of {len(rows)} scored rows are what a worker said live; the rest is replayed")
        return replace(replayed, expected=expected, probability_up=up)

    seen = observed_in(
        dataset, training.windows, said,
        end_ms=end_ms, hours=hours, threshold=bundle.threshold, cost=config.round_trip_cost,
    )  # fmt: skip
    return replace(seen, notes=tuple(notes))


def observe_inputs(
    settings: FlowSettings, training: TrainingReport, config: TrainingConfig, hours: int
) -> tuple[Stretches, int]:
    """
    Read what a challenger saw when it was made and sees now; return it with the close of the newest candle.

    Raises:
        BadInputError: The newest hours reach into the window that members were fitted on, or too little is stored.
    """
    _check(hours)
    frames, end_ms = _frames(settings, training, config, hours, who="challenger")
    dataset = Dataset(frames, horizon=training.horizon, window=config.window)
    return _read(dataset, training.windows, end_ms=end_ms, length_ms=hours * HOUR_MS), end_ms


def _check(hours: int) -> None:
    if hours < 1:
        raise BadInputError(f"Drift is looked for in one hour at least, was {hours}")


def _read(dataset: Dataset, windows: TrainingWindows, *, end_ms: int, length_ms: int) -> Stretches:
    there = ~dataset.excluded
    whole = TimeWindow(start_ms=windows.fit.start_ms, end_ms=windows.shadow.end_ms)
    inputs, times = dataset.inputs_all[there], dataset.open_time_ms[there]
    return stretches_of(
        "inputs", dataset.input_names, inputs, times, reference=whole, end_ms=end_ms, length_ms=length_ms
    )


def observed_in(
    dataset: Dataset,
    windows: TrainingWindows,
    said: Callable[[Rows], Predicted],
    *,
    end_ms: int,
    hours: int,
    threshold: float,
    cost: float,
) -> Observed:
    """
    Cut what is in a dataset into what a check compares.

    Inputs and outcomes are held against all windows of the training, predictions against those that no member was
    fitted on, and performance against the locked window that the champion was promoted on.

    Args:
        dataset: Candles from the training on, up to now.
        windows: Of the champion's training.
        said: What the champion says of rows.
        end_ms: Close of the newest candle.
        hours: How long a stretch is.
        threshold: The champion's, from which it trades.
        cost: Of a round trip, as a fraction of notional.

    Raises:
        BadInputError: No row can be scored.
    """
    length_ms, horizon_ms = hours * HOUR_MS, dataset.horizon * dataset.timeframe_ms
    whole = TimeWindow(start_ms=windows.fit.start_ms, end_ms=windows.shadow.end_ms)
    unseen = TimeWindow(start_ms=windows.validation.start_ms, end_ms=end_ms)
    there = ~dataset.excluded
    read = _read(dataset, windows, end_ms=end_ms, length_ms=length_ms)
    known = there & np.isfinite(dataset.label)
    # The newest outcomes end where candles do: their stretch is a horizon earlier than that of the inputs.
    matured_ms = end_ms - horizon_ms
    came = stretches_of(
        "outcomes", ("forward_log_return",), dataset.label[known][:, None], dataset.open_time_ms[known],
        reference=whole, end_ms=matured_ms, length_ms=length_ms,
    )  # fmt: skip
    splits = Splits(fit=windows.fit, validation=unseen, calibration=unseen, shadow=unseen, horizon_ms=horizon_ms)
    rows = dataset.rows(unseen, splits, stride=STRIDE)
    if not len(rows):
        raise BadInputError(f"No candle since {moment(unseen.start_ms)} has all inputs and its outcome; ingest candles")
    predicted = said(rows)
    names = ("expected_return", "probability_up", *predicted.members)
    answers = np.stack([predicted.expected, predicted.probability_up, *predicted.members.values()], axis=1)
    reference = TimeWindow(start_ms=unseen.start_ms, end_ms=windows.shadow.end_ms)
    answered = stretches_of(
        "predictions", names, answers, rows.open_time_ms, reference=reference, end_ms=matured_ms, length_ms=length_ms
    )
    promoted, since = (
        _measured(dataset, rows, predicted, threshold, cost, start_ms, stop_ms)
        # What was locked away ends a horizon before what came after it begins: no outcome counts twice.
        for start_ms, stop_ms in ((windows.shadow.start_ms, windows.shadow.end_ms), (windows.shadow.end_ms, end_ms))
    )
    earned = Performance(promoted, since, max(end_ms - windows.shadow.end_ms, 0) / 86_400_000)
    inputs, times = dataset.inputs_all[there], dataset.open_time_ms[there]
    sample = _sample(dataset.input_names, inputs, times, rows, predicted.expected, whole, end_ms - length_ms)
    return Observed((read, answered, came), earned, sample, end_ms)


def _frames(
    settings: FlowSettings, training: TrainingReport, config: TrainingConfig, hours: int, *, who: str
) -> tuple[FrameSet, int]:
    lake = settings.candle_lake()
    chosen = FlowSettings.of(venue=settings.venue, symbols=",".join(training.symbols), timeframe=training.timeframe)
    series = stored_series(lake, chosen)
    end_ms = newest_close_ms(lake, series)
    seen, fit = training.windows, training.windows.fit
    if end_ms - hours * HOUR_MS < fit.end_ms:
        raise BadInputError(
            f"The last {hours} hours of stored candles reach into the window the {who} was fitted on, which ends "
            f"{moment(fit.end_ms)}; ingest newer candles, or compare fewer hours"
        )
    oldest = max(
        seen.fit.start_ms, min(seen.validation.start_ms, seen.shadow.end_ms - MOST_STRETCHES * hours * HOUR_MS)
    )
    members = members_of(chosen, config.universe, config.universe_filters) if config.universe else None
    frames = frames_between(
        settings.features, lake, series, start_ms=oldest, end_ms=end_ms, horizon=training.horizon, members=members
    )
    if frames.feature_fingerprint != training.feature_fingerprint:
        raise BadInputError(
            f"The {who} reads another feature set than this environment makes; run drift with the settings "
            "(QT_EXTENSIONS, QT_INCLUDE_*) that it was trained with"
        )
    return frames, end_ms


def _measured(
    dataset: Dataset, rows: Rows, predicted: Predicted, threshold: float, cost: float, start_ms: int, end_ms: int
) -> dict[str, npt.NDArray[np.float64]]:
    horizon_ms = dataset.horizon * dataset.timeframe_ms
    inside = (rows.open_time_ms >= start_ms) & (rows.open_time_ms < end_ms - horizon_ms)
    some, expected, up = rows.take(inside), predicted.expected[inside], predicted.probability_up[inside]
    trades = simulate(some, expected, up, threshold=threshold, cost=cost, horizon_ms=horizon_ms)
    return block_measures(
        some, expected, up, trades,
        start_ms=start_ms, end_ms=end_ms, horizon_ms=horizon_ms, series=len(dataset.symbols),
    )  # fmt: skip


def _sample(
    names: tuple[str, ...],
    inputs: npt.NDArray[np.float32],
    times: npt.NDArray[np.int64],
    rows: Rows,
    expected: npt.NDArray[np.float64],
    whole: TimeWindow,
    since_ms: int,
) -> Sample:
    columns = (*names, "expected_return", "forward_log_return")

    def drawn(of_inputs: npt.NDArray[np.bool_], of_rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        chosen, said = _spread(of_inputs), _spread(of_rows)
        table = np.full((max(len(chosen), len(said)), len(columns)), np.nan)
        table[: len(chosen), :-2] = inputs[chosen]
        table[: len(said), -2] = expected[said]
        table[: len(said), -1] = rows.label[said]
        return table

    before_ms = min(whole.end_ms, since_ms)
    return Sample(
        columns,
        drawn(times < before_ms, rows.open_time_ms < before_ms),
        drawn(times >= since_ms, rows.open_time_ms >= since_ms),
    )


def _spread(marks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    places = np.flatnonzero(marks)
    if len(places) <= _SHOWN_ROWS:
        return places
    return places[np.linspace(0, len(places) - 1, _SHOWN_ROWS).round().astype(np.int64)]
