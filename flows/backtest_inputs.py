"""From stored candles and a bundle to the market that a backtest walks through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from feature_store.candle import Series
from feature_store.errors import BadInputError
from feature_store.extensions.settings import ViewSettings
from flows.frames import frames_between, lake_as_of, stored_series
from flows.replay.market import Opinions, ScoredMarket
from flows.replay.shadow import score_rows
from flows.replay.told_regimes import told_regimes
from flows.replay.worker_account import opinions_of, traded_market
from flows.settings import FlowSettings
from flows.training.dataset import Dataset, FrameSet, Rows
from flows.wording import moment
from inference.domain.errors import BundleError
from inference.models.bundle import Bundle, load_bundle
from inference.models.manifest import Manifest, TimeWindow

_DAY_MS = 86_400_000


def open_bundle(path: Path, digest: str | None = None) -> Bundle:
    """
    Return the model in a folder, checked as the worker checks it; `digest` is what the registry says that it has.

    Raises:
        BadInputError: The folder holds none that can be used with the features of this program, or another one.
    """
    try:
        fingerprint = ViewSettings.of().view().fingerprint()
        return load_bundle(path, expected_fingerprint=fingerprint, expected_digest=digest)
    except BundleError as error:
        raise BadInputError(str(error)) from error


def series_of(settings: FlowSettings, manifest: Manifest) -> list[Series]:
    """
    Return the series to trade: those chosen, or all that the model was trained on and that are stored.

    Raises:
        BadInputError: None is stored, or the timeframe is not the model's.
        UnknownSymbolError: A chosen one is not stored.
    """
    if settings.timeframe != manifest.timeframe:
        raise BadInputError(
            f"The model decides on {manifest.timeframe} candles, {settings.timeframe} was chosen; "
            f"use --timeframe {manifest.timeframe}"
        )
    stored = stored_series(lake_as_of(settings, None), settings)
    if settings.chosen_symbols() is not None:
        return stored
    known = [one for one in stored if one.symbol in manifest.symbols]
    return known or stored


def window_of(
    settings: FlowSettings, series: list[Series], manifest: Manifest, start_ms: int | None, end_ms: int | None
) -> TimeWindow:
    """
    Return the stretch to trade: as asked, by default from where the model has seen nothing to the newest candle.

    Raises:
        BadInputError: There is no candle in it.
    """
    lake, step = settings.candle_lake(), series[0].timeframe.milliseconds
    newest = max(lake.last_open_time_ms(one) or 0 for one in series) + step
    first = min(_first_ms(lake.read(one).open_time_ms) for one in series)
    unseen_ms = manifest.training.seen_until_ms + manifest.horizon * step
    start = max(unseen_ms, first) if start_ms is None else start_ms
    end = newest if end_ms is None else end_ms
    if max(start, first) + 2 * step > min(end, newest):
        asked = "what the model has not seen" if start_ms is None and end_ms is None else "the asked window"
        raise BadInputError(
            f"There are no candles in {asked}, {moment(start)} to {moment(end)} UTC: stored is {moment(first)} to "
            f"{moment(newest)}; choose --start and --end inside it, or run 'qtctl ingest' first"
        )
    start, end = max(start, first), min(end, newest)
    return TimeWindow(start_ms=start - start % step, end_ms=end - end % step)


def scored_market(
    settings: FlowSettings,
    series: list[Series],
    bundle: Bundle,
    window: TimeWindow,
    *,
    version: str,
    tell: Callable[[str], None] = lambda _: None,
    progress: Callable[[float], None] = lambda _: None,
) -> ScoredMarket:
    """
    Read candles, compute what the model reads, and ask it at every close of a window.

    A candle without a whole window of unbroken inputs before it has no opinion, as in the worker. Candles are in their
    newest revision, inputs as they were known when decided. Funding and ticks are those stored beside the candles.

    Raises:
        BadInputError: The model has no opinion of any candle.
        CorruptFileError: A stored file is damaged.
    """
    lake, manifest = settings.candle_lake(), bundle.manifest
    step = series[0].timeframe.milliseconds
    # Windows of inputs reach back before the first decision.
    warm_ms = window.start_ms - 2 * manifest.window * step
    frames = frames_between(
        settings.features, lake, series,
        start_ms=warm_ms, end_ms=window.end_ms, horizon=manifest.horizon, traded_from_ms=window.start_ms, tell=tell,
    )  # fmt: skip
    dataset = Dataset(frames, horizon=manifest.horizon, window=manifest.window)
    inside = dataset.complete & (dataset.open_time_ms >= window.start_ms) & (dataset.open_time_ms < window.end_ms)
    index = np.flatnonzero(inside)
    if not len(index):
        raise BadInputError(
            f"No candle from {moment(window.start_ms)} to {moment(window.end_ms)} UTC has {manifest.window} candles "
            "with all inputs before it; choose a later --start, or ingest more of the past"
        )
    rows = Rows(index, dataset.series[index], dataset.open_time_ms[index], dataset.label[index])
    said = _opinions(bundle, dataset, rows, progress)
    _tell_of_funding(frames, tell)
    return traded_market(frames, said, window, threshold=bundle.threshold, version=f"{version}:{bundle.digest[:12]}")


def stored_market(
    settings: FlowSettings,
    series: list[Series],
    window: TimeWindow,
    *,
    horizon: int,
    version: str,
    tell: Callable[[str], None] = lambda _: None,
) -> ScoredMarket:
    """
    Read the candles of a window with what else their trading takes; nobody has an opinion of them yet.

    Raises:
        BadInputError: There is not one candle in it.
        CorruptFileError: A stored file is damaged.
    """
    frames = frames_between(
        settings.features, settings.candle_lake(), series,
        start_ms=window.start_ms, end_ms=window.end_ms, horizon=horizon, traded_from_ms=window.start_ms, tell=tell,
    )  # fmt: skip
    _tell_of_funding(frames, tell)
    # Until somebody has an opinion and asks for a confidence, no confidence is enough.
    return traded_market(frames, {}, window, threshold=1.0, version=version)


def _tell_of_funding(frames: FrameSet, tell: Callable[[str], None]) -> None:
    without = [one.symbol for one in frames.frames if one.traded is None or not len(one.traded.funding_time_ms)]
    if without:
        told = f"No funding is stored of {len(without)} of {len(frames.frames)} symbols"
        tell(f"{told}: for them none is paid or received")


def seen_share(manifest: Manifest, window: TimeWindow) -> float:
    """Return which share of a window the model has seen in training, in whatever part of it."""
    horizon_end = manifest.training.seen_until_ms
    seen = min(window.end_ms, horizon_end) - max(window.start_ms, manifest.training.fit.start_ms)
    return max(0, seen) / (window.end_ms - window.start_ms)


def looks_into_locked(manifest: Manifest, window: TimeWindow) -> bool:
    """Whether a window shares candles with the one that was locked away to judge the model."""
    locked = manifest.training.shadow
    return window.start_ms < locked.end_ms and window.end_ms > locked.start_ms


def _first_ms(times: np.ndarray[tuple[int], np.dtype[np.int64]]) -> int:
    return int(times[0]) if len(times) else 2**62


def _opinions(bundle: Bundle, dataset: Dataset, rows: Rows, progress: Callable[[float], None]) -> dict[str, Opinions]:
    said = score_rows(bundle, dataset, rows, progress)
    expected = np.where(said.believed, said.expected, np.nan)
    rising = np.where(said.believed, said.probability_up, np.nan)
    return opinions_of(dataset, rows, expected, rising, told_regimes(bundle, dataset, rows))
