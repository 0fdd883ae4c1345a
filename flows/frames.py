"""From stored candles to the frames that training, shadow scoring and drift look at."""

from __future__ import annotations

from pathlib import Path

from feature_store.candle import Series, Timeframe
from feature_store.errors import BadInputError, UnknownSymbolError
from feature_store.lake import CandleLake
from feature_store.store import FeatureStore
from flows.settings import FlowSettings
from flows.training.dataset import FrameSet

_DAY_MS = 86_400_000


def stored_series(lake: CandleLake, settings: FlowSettings) -> list[Series]:
    """
    Return the stored series of the chosen symbols, or all of the venue and timeframe.

    Raises:
        UnknownSymbolError: A chosen symbol is not stored.
        BadInputError: Nothing is stored.
    """
    timeframe = Timeframe.parse(settings.timeframe)
    stored = [one for one in lake.series() if (one.venue, one.timeframe) == (settings.venue, timeframe)]
    by_symbol = {one.symbol: one for one in stored}
    if not stored:
        raise BadInputError(
            f"No {timeframe} candles of {settings.venue} are stored in {lake.root}; run 'qtctl ingest' first"
        )
    chosen = settings.chosen_symbols() or tuple(by_symbol)
    for symbol in chosen:
        if symbol not in by_symbol:
            raise UnknownSymbolError(symbol, f"{settings.venue} in the lake", by_symbol)
    return [by_symbol[symbol] for symbol in chosen]


def newest_close_ms(lake: CandleLake, series: list[Series]) -> int:
    """Return the close time of the newest stored candle: the venue's time, as far as we have seen it."""
    newest = max(lake.last_open_time_ms(one) or 0 for one in series)
    return newest + series[0].timeframe.milliseconds


def recent_frames(settings: FlowSettings, horizon: int) -> FrameSet:
    """Return the newest days of the chosen series, up to the last closed candle that is stored."""
    lake = CandleLake(settings.lake)
    series = stored_series(lake, settings)
    end_ms = newest_close_ms(lake, series)
    return frames_between(
        settings.features, lake, series, start_ms=end_ms - settings.days * _DAY_MS, end_ms=end_ms, horizon=horizon
    )


def frames_between(
    features: Path, lake: CandleLake, series: list[Series], *, start_ms: int, end_ms: int, horizon: int
) -> FrameSet:
    """
    Return the candles of some series that open in `[start_ms, end_ms)`, with their model inputs.

    A series without a candle in that stretch is left out.
    """
    return FrameSet.of_store(FeatureStore(features).training_frame(lake, series, start_ms, end_ms, horizon))
