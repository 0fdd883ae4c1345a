"""Feature states brought to the present: from a stored snapshot, then by REST."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ccxt

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import CorruptFileError, FingerprintMismatchError, QuantumError
from feature_store.features.engine import READY_AFTER
from feature_store.features.live import LiveFeatures
from feature_store.features.state import state_path
from feature_store.venue.errors import RetryableError, translate
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
    features: LiveFeatures, reader: CandleReader, *, venue: str, home: Path, timeframe: Timeframe, now_ms: int
) -> CaughtUp:
    """
    Bring every symbol to the newest candle that has closed at `now_ms`.

    A snapshot that is missing, damaged or of another feature set costs more requests, nothing else. A symbol whose
    candles cannot be read stays behind; the feed asks for it again.
    """
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def bring(symbol: str) -> tuple[bool, int]:
        loaded = _load(features, Series(venue, symbol, timeframe), home=home, now_ms=now_ms)
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


def _load(features: LiveFeatures, series: Series, *, home: Path, now_ms: int) -> bool:
    try:
        if not features.load(state_path(home / "features", series), series):
            return False
    except (CorruptFileError, FingerprintMismatchError) as error:
        _log.warning("feature_state_unusable", symbol=series.symbol, error=str(error))
        return False
    last = features.last_open_time_ms(series.symbol) or 0
    newest = series.timeframe.last_closed_open_ms(now_ms)
    if newest - last > _LONGEST_CATCH_UP * series.timeframe.milliseconds or last > newest:
        features.rebuild(series.symbol, CandleBlock.empty())
        return False
    return True


async def _read(
    features: LiveFeatures, reader: CandleReader, symbol: str, *, timeframe: Timeframe, now_ms: int
) -> CandleBlock:
    last = features.last_open_time_ms(symbol)
    newest = timeframe.last_closed_open_ms(now_ms)
    after = newest - HISTORY_CANDLES * timeframe.milliseconds if last is None else last
    for attempt in range(_ATTEMPTS):
        try:
            return await closed_candles(reader, symbol, timeframe, after_ms=after, closed_by_ms=now_ms)
        except ccxt.BaseError as error:
            found = translate(error)
            _log.warning("history_not_read", symbol=symbol, error=str(found)[:200], attempt=attempt + 1)
            if not isinstance(found, RetryableError):
                break
        except QuantumError as error:
            _log.warning("history_unusable", symbol=symbol, error=str(error)[:200])
            break
        await asyncio.sleep(0.2 * 2**attempt)
    return CandleBlock.empty()
