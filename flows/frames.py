"""From stored candles to the frames that training, shadow scoring and drift look at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from feature_store.absences import Span
from feature_store.candle import Series, Timeframe
from feature_store.decided import given_up
from feature_store.decided_added import inputs_as_decided
from feature_store.errors import BadInputError, UnknownSymbolError
from feature_store.extensions.settings import ViewSettings
from feature_store.extensions.view import FeatureView
from feature_store.features.definition import INDEX
from feature_store.kinds.store import KindStore
from feature_store.lake import CandleLake
from feature_store.past_lake import PastLake
from feature_store.standard import SeriesQuality, forgiven
from feature_store.store import FeatureStore, TrainingFrame
from feature_store.ticks import suspect_marks
from flows.judging import fewest_absent_before, judged
from flows.learned_labels import learned_labels, stored_funding, stored_tick
from flows.settings import FlowSettings
from flows.training.config import TrainingConfig
from flows.training.dataset import FrameSet, Inputs, Marks
from flows.training.traded import TradedCandles
from flows.universes import Members, members_of
from flows.wording import moment

_DAY_MS = 86_400_000

Judged = Callable[[Mapping[Series, SeriesQuality]], None]
"""Told what was found of every series, good enough or not."""


def lake_as_of(settings: FlowSettings, as_of_ms: int | None) -> CandleLake:
    """Return the candle lake, or what of it could be known at a moment."""
    lake = settings.candle_lake()
    return lake if as_of_ms is None else PastLake(lake, as_of_ms)


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
        raise BadInputError(_nothing_stored(lake, f"{timeframe} candles of {settings.venue}"))
    chosen = settings.chosen_symbols() or tuple(by_symbol)
    for symbol in chosen:
        if symbol not in by_symbol:
            raise UnknownSymbolError(symbol, f"{settings.venue} in the lake", by_symbol)
    return [by_symbol[symbol] for symbol in chosen]


def _nothing_stored(lake: CandleLake, what: str) -> str:
    if isinstance(lake, PastLake):
        return f"No {what} in {lake.place} were known at {moment(lake.moment_ms)} UTC; choose a later moment"
    return f"No {what} are stored in {lake.place}; run 'qtctl ingest' first"


def newest_close_ms(lake: CandleLake, series: list[Series]) -> int:
    """Return the close time of the newest stored candle: the venue's time, as far as we have seen it."""
    newest = max(lake.last_open_time_ms(one) or 0 for one in series)
    return newest + series[0].timeframe.milliseconds


def asked_stretch(lake: CandleLake, series: list[Series], settings: FlowSettings) -> tuple[int, int]:
    """Return from and up to when candles open that the settings ask for: the newest days that are stored."""
    end_ms = newest_close_ms(lake, series)
    return end_ms - settings.days * _DAY_MS, end_ms


def sound_series(
    lake: CandleLake,
    series: list[Series],
    start_ms: int,
    end_ms: int,
    tell: Callable[[str], None],
    *,
    members: Members | None = None,
    show: Judged = lambda _: None,
) -> list[Series]:
    """
    Return the series whose candles that open in `[start_ms, end_ms)` are good enough to learn from.

    Expected of a series is what was asked for, from when it was listed on, up to when it was traded no more, as far as
    both are known. One that lacks more at its ends than is forgiven is left out, unless the venue has confirmed that
    it has no more. Of a series whose listing nobody told (it was imported, or its venue does not say) a late beginning
    is told and no reason to leave it out: a young symbol must stay usable. But where every series begins later than
    asked, it is not the symbols that are young: what was asked for is not there.

    Args:
        lake: Where the candles are.
        series: All of one venue and timeframe.
        start_ms: From when on candles matter.
        end_ms: Up to when (exclusive).
        tell: Told of each series that is left out, and why, and of those that begin later than asked.
        members: Who was in the universe when, where it is followed: a symbol is expected while it was in.
        show: Told what was found of each.

    Raises:
        BadInputError: None is good enough, or the lake does not reach back as far as was asked.
    """
    blocks, asked = lake.read_many(series, start_ms, end_ms), Span(start_ms, end_ms)
    found = judged(lake, blocks, asked, members)
    show(found)
    step = series[0].timeframe.milliseconds
    if fewest_absent_before(lake, blocks, asked) > forgiven((end_ms - start_ms) // step):
        first_ms = min((ms for ms in (block.first_open_time_ms for block in blocks.values()) if ms), default=end_ms)
        raise BadInputError(
            f"Asked for {(end_ms - start_ms) / _DAY_MS:.3g} days, the lake holds {(end_ms - first_ms) / _DAY_MS:.3g}; "
            "ingest more with 'qtctl ingest --days', or ask for fewer with --days"
        )
    sound = [one for one in series if not found[one].faults]
    faults = ["; ".join(found[one].faults) for one in series if found[one].faults]
    if not sound:
        raise BadInputError(f"No series is good enough to learn from: {faults[0]}")
    for fault in faults:
        tell(f"Left out: {fault}")
    for remark in (remark for one in sound for remark in found[one].remarks):
        tell(remark)
    return sound


def recent_frames(
    settings: FlowSettings,
    horizon: int,
    tell: Callable[[str], None] = lambda _: None,
    show: Judged = lambda _: None,
    *,
    as_of_ms: int | None = None,
    end_ms: int | None = None,
    symbols: Collection[str] | None = None,
    learns: TrainingConfig | None = None,
) -> FrameSet:
    """
    Return the newest days of the chosen series that are sound, up to the last closed candle that is stored.

    With `as_of_ms`, all of that as it could be known at that moment: which series and candles there were, in which
    revision, what had come of them, who was in the universe, and what had been recorded of listings. Which series are
    sound is still judged with what the venue has said since then, when it was asked for candles, of gaps and of when an
    instrument trades: those notes hold its last answer only. `learns` says what members learn, the forward return by
    default. With `end_ms`, days are counted back from there, and no candle that opens then or later is read; with
    `symbols`, no other's.

    Raises:
        BadInputError: Nothing is stored, or nothing of it is good enough to learn from. `tell` hears of what is not,
            and `show` of what was found of each series.
    """
    lake = lake_as_of(settings, as_of_ms)
    stored = [one for one in stored_series(lake, settings) if symbols is None or one.symbol in symbols]
    if not stored:
        raise BadInputError(_nothing_stored(lake, f"candles of {', '.join(symbols or ())}"))
    end_ms = newest_close_ms(lake, stored) if end_ms is None else end_ms
    start_ms = end_ms - settings.days * _DAY_MS
    members = members_of(settings) if settings.follows_universe else None
    chosen = stored if members is None else members.series(stored, start_ms, end_ms)
    series = sound_series(lake, chosen, start_ms, end_ms, tell, members=members, show=show)
    return frames_between(
        settings.features, lake, series,
        start_ms=start_ms, end_ms=end_ms, horizon=horizon, members=members, learns=learns, tell=tell,
    )  # fmt: skip


def frames_between(
    features: Path,
    lake: CandleLake,
    series: list[Series],
    *,
    start_ms: int,
    end_ms: int,
    horizon: int,
    members: Members | None = None,
    learns: TrainingConfig | None = None,
    traded_from_ms: int | None = None,
    as_of_ms: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> FrameSet:
    """
    Return the candles of some series that open in `[start_ms, end_ms)`, with what models read of them.

    That is what the environment chooses: the inputs made of the 49, and what QT_EXTENSIONS and
    QT_INCLUDE_* add; of another symbol a row holds what was available when its own candle was, as a worker's does.
    A series without a candle in that stretch is left out. Each row is as it was when it was first decided on: what came
    or was corrected later is not in it, and what had come or been corrected by then is, as in a worker, which rebuilds
    a series before it decides on it. Of a candle that came after a later one other symbols, and longer timeframes, read
    nothing, and one that came after the next had closed breaks windows as a gap does. With `members`, candles at which
    a symbol was not in the universe, or did not pass its filters, are there for features to warm up, and are neither
    learned from nor judged on. `learns` says what members learn, the forward return by default. `tell` hears of each
    series whose past was corrected too often to be computed again: its rows of then are not told, and not learned from.
    Candles whose prices are suspect, in their newest revision, are marked and stay.
    From `traded_from_ms` on, where it is given, frames hold what it takes to trade their candles again: prices in their
    newest revision, ranges as they were known when decided, and the tick and funding that are stored, or that could be
    known at `as_of_ms`.

    Raises:
        UnknownSymbolError: A symbol to include is not stored.
    """
    view = ViewSettings.of().view()
    if series:
        require_included(view, lake, series[0].venue, series[0].timeframe)
    sets = FeatureStore(features).training_set(lake, series, start_ms, end_ms, horizon)
    frames, late = ({one: made.frame for one, made in sets.items()}, {one: made.is_late for one, made in sets.items()})
    for one, made in sets.items():
        if count := given_up(made.frame.features):
            tell(_given_up(f"{one.symbol} {one.timeframe}", count, len(made)))
    eligible = None
    if members is not None:
        eligible = {
            one: members.eligible(lake, one, made.frame.open_time_ms, made.decided_at_ms) for one, made in sets.items()
        }
    learned = None
    if learns is not None and learns.label != "forward":
        learned = {one: learned_labels(lake, one, frame, learns) for one, frame in frames.items()}
    traded = None
    if traded_from_ms is not None:
        traded = _traded(lake, frames, traded_from_ms, end_ms, as_of_ms)
    extra = _extra_inputs(view, lake, frames, end_ms, tell) if view.extra_names else None
    return FrameSet.of_store(
        frames,
        view=view if view.extra_names else None,
        extra=extra,
        eligible=eligible,
        late=late,
        learned=learned,
        traded=traded,
        suspect=_suspect(lake, frames, start_ms, end_ms),
    )


def _suspect(
    lake: CandleLake, frames: Mapping[Series, TrainingFrame], start_ms: int, end_ms: int
) -> dict[Series, Marks]:
    """Mark the candles of each frame whose prices, in their newest revision, their neighbours do not bear out."""
    found = {}
    for one, block in lake.read_many(list(frames), start_ms, end_ms).items():
        marked = block.open_time_ms[suspect_marks(block, one.timeframe)]
        found[one] = np.isin(frames[one].open_time_ms, marked)
    return found


def _traded(
    lake: CandleLake, frames: Mapping[Series, TrainingFrame], start_ms: int, end_ms: int, as_of_ms: int | None
) -> dict[Series, TradedCandles]:
    kinds = KindStore(lake.root, lake.place)
    found = {}
    for one, frame in frames.items():
        block, funding = lake.read(one, start_ms, end_ms), stored_funding(kinds, one, as_of_ms)
        # A candle may have come since the frame was read: of it no range is known.
        place = np.searchsorted(frame.open_time_ms, block.open_time_ms)
        known = np.isin(block.open_time_ms, frame.open_time_ms)
        atr = np.full(len(block), np.nan)
        atr[known] = frame.features[place[known], INDEX["atr_14"]]
        found[one] = TradedCandles(
            block=block,
            atr=atr,
            tick=stored_tick(kinds, one, as_of_ms),
            funding_time_ms=funding.time_ms,
            funding_rate=funding.rate,
        )
    return found


def require_included(view: FeatureView, lake: CandleLake, venue: str, timeframe: Timeframe) -> None:
    """
    Check that the symbols whose features a view adds are stored; where nothing of the market is, nothing is said.

    Raises:
        UnknownSymbolError: One is not.
    """
    stored = [one.symbol for one in lake.series() if (one.venue, one.timeframe) == (venue, timeframe)]
    for symbol in view.expansion.symbols if view.expansion and stored else ():
        if symbol not in stored:
            raise UnknownSymbolError(symbol, f"{venue} in the lake", stored, setting="QT_INCLUDE_SYMBOLS")


def _given_up(what: str, count: int, of: int) -> str:
    return (
        f"{what}: {count:,} of {of:,} candles are not learned from: corrections came too often to compute what was "
        "known at each; choose fewer days with --days, or a stretch that was corrected less"
    )


def _tell_of_source(tell: Callable[[str], None], symbol: str, of: int, source: str, count: int) -> None:
    tell(_given_up(f"{symbol}, which reads {source}", count, of))


def _extra_inputs(
    view: FeatureView,
    lake: CandleLake,
    frames: Mapping[Series, TrainingFrame],
    end_ms: int,
    tell: Callable[[str], None],
) -> dict[Series, Inputs]:
    """Return what a view adds at each candle of the frames; earlier candles warm it up, as they do the 49."""
    market = {(one.venue, one.timeframe) for one in frames}
    peers = {one.symbol: one for one in lake.series() if (one.venue, one.timeframe) in market}
    wanted = {one.symbol for one in frames} | set(view.expansion.symbols if view.expansion else ())
    stored = {symbol: lake.read_rows(peers[symbol], None, end_ms) for symbol in wanted if symbol in peers}
    extra = {}
    for one, frame in frames.items():
        times = frame.open_time_ms
        extra[one] = np.full((len(times), len(view.extra_names)), np.nan, np.float32)
        if one.symbol in stored and len(times):
            opened = stored[one.symbol].latest().block.open_time_ms
            # A candle may have come since the frame was read, and may not have been there then.
            there = np.isin(times, opened)
            hear = partial(_tell_of_source, tell, one.symbol, len(times))
            made = inputs_as_decided(view, one.symbol, one.timeframe, stored, int(times[0]), given_up=hear)
            extra[one][there] = made[np.searchsorted(opened, times[there])]
    return extra
