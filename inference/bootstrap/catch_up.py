"""Feature states brought to the present: from a stored snapshot, then by REST."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import CorruptFileError, FingerprintMismatchError, QuantumError
from feature_store.features.engine import READY_AFTER
from feature_store.features.live import LiveFeatures
from feature_store.features.state import load_state, state_path
from feature_store.venue.errors import RetryableError
from inference.feed.history import CandleReader, closed_candles
from inference.telemetry.logs import logger

_log = logger("catch_up")

# Recursive averages forget their start within this many candles, for all practical purposes.
HISTORY_CANDLES = max(2 * READY_AFTER, 499)
# A snapshot older than this is not worth the requests that would bring it to the present.
_LONGEST_CATCH_UP = 2000
_AT_ONCE = 8
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CaughtUp:
    """How the features of all symbols came to the present."""

    from_snapshot: int
    candles_read: int
    not_ready: tuple[str, ...]


async def catch_up(
    features: LiveFeatures,
    reader: CandleReader,
    *,
    venue: str,
    homes: Sequence[Path],
    timeframe: Timeframe,
    now_ms: int,
) -> CaughtUp:
    """
    Bring every symbol to the newest candle that has closed at `now_ms`.

    The newest snapshot under `homes` is taken over, the first of equals. One that is missing, damaged or of another
    feature set costs more requests, nothing else. A symbol whose
    candles cannot be read stays behind; the feed asks for it again.
    """
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def bring(symbol: str) -> tuple[bool, int]:
        loaded = _load(features, Series(venue, symbol, timeframe), homes=homes, now_ms=now_ms)
        async with at_once:
            block = await _read(features, reader, symbol, timeframe=timeframe, now_ms=now_ms)
        features.advance(symbol, block)
        return loaded, len(block)

    results = await asyncio.gather(*(bring(symbol) for symbol in features.symbols))
    latest = features.latest()
    return CaughtUp(
        from_snapshot=sum(loaded for loaded, _ in results),
        candles_read=sum(count for _, count in results),
        not_ready=tuple(
            symbol for symbol, ready in zip(latest.symbols, latest.ready.tolist(), strict=True) if not ready
        ),
    )


def starting_points(
    features: LiveFeatures, symbols: Sequence[str], *, timeframe: Timeframe, now_ms: int
) -> dict[str, int]:
    """Return, for each symbol, the open time after which the feed continues."""
    fallback = timeframe.last_closed_open_ms(now_ms) - HISTORY_CANDLES * timeframe.milliseconds
    points = {}
    for symbol in symbols:
        last = features.last_open_time_ms(symbol)
        points[symbol] = fallback if last is None else last
    return points


def save_states(features: LiveFeatures, *, venue: str, folder: Path, timeframe: Timeframe) -> None:
    """Keep the states for the next start, beside and not in place of those that are computed from the lake."""
    for symbol in features.symbols:
        if features.last_open_time_ms(symbol) is not None:
            series = Series(venue, symbol, timeframe)
            features.save(state_path(folder, series), series)


def _load(features: LiveFeatures, series: Series, *, homes: Sequence[Path], now_ms: int) -> bool:
    """Take over the newest of the snapshots that is still worth it; of two equally new ones the first."""
    oldest = series.timeframe.last_closed_open_ms(now_ms) - _LONGEST_CATCH_UP * series.timeframe.milliseconds
    found = [(last, home) for home in homes if (last := _peek(series, home)) is not None]
    usable = [one for one in found if oldest <= one[0] < now_ms]
    if not usable:
        return False
    newest = max(usable, key=lambda one: one[0])
    return features.load(state_path(newest[1], series), series)


def _peek(series: Series, home: Path) -> int | None:
    try:
        state = load_state(state_path(home, series), series)
    except (CorruptFileError, FingerprintMismatchError) as error:
        _log.warning("feature_state_unusable", symbol=series.symbol, error=str(error))
        return None
    return None if state is None else state.continuity.last_open_time_ms


async def _read(
    features: LiveFeatures, reader: CandleReader, symbol: str, *, timeframe: Timeframe, now_ms: int
) -> CandleBlock:
    last = features.last_open_time_ms(symbol)
    newest = timeframe.last_closed_open_ms(now_ms)
    after = newest - HISTORY_CANDLES * timeframe.milliseconds if last is None else last
    for attempt in range(_ATTEMPTS):
        try:
            return await closed_candles(reader, symbol, timeframe, after_ms=after, closed_by_ms=now_ms)
        except RetryableError as error:
            _log.warning("history_not_read", symbol=symbol, error=str(error)[:200], attempt=attempt + 1)
        except QuantumError as error:
            _log.warning("history_unusable", symbol=symbol, error=str(error)[:200])
            break
        await asyncio.sleep(0.2 * 2**attempt)
    return CandleBlock.empty()
