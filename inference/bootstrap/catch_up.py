"""Feature states brought to the present: from a stored snapshot, then by REST."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import CorruptFileError, FingerprintMismatchError, QuantumError
from feature_store.features.definition import TAIL
from feature_store.features.live import LiveFeatures
from feature_store.features.state import load_state, state_path
from feature_store.features.state_files import StoredStates, read_states, states_path
from feature_store.venue.errors import RetryableError
from inference.feed.batches import LOOK_EVERY, told
from inference.feed.history import CandleReader, closed_candles
from inference.feed.plausible import sift
from inference.feed.recent import RecentCandles, read_recent, write_recent
from inference.telemetry.logs import logger

_log = logger("catch_up")

# Recursive averages forget their start within this many candles, for all practical purposes.
_LEAST_HISTORY = 499
# A snapshot older than this is not worth the requests that would bring it to the present.
_LONGEST_CATCH_UP = 2000
_AT_ONCE = 8
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CaughtUp:
    """How the features of all symbols came to the present."""

    restored: frozenset[str]
    """Symbols that go on from a snapshot."""
    candles_read: int
    not_ready: tuple[str, ...]
    recent: RecentCandles
    outdated: Mapping[str, str]
    """Symbols whose snapshot was of other candles than are known now, and why; they were begun afresh."""


@dataclass(frozen=True, slots=True)
class Snapshots:
    """What was kept for a start, by folder: states of all symbols at once, and the newest candles behind them."""

    together: Mapping[Path, StoredStates | None]
    recent: Mapping[str, CandleBlock]

    @classmethod
    def of(cls, homes: Sequence[Path], *, venue: str, timeframe: Timeframe) -> Snapshots:
        """Read what is under some folders; what is damaged is left out."""
        paths = {home: states_path(home, venue, timeframe) for home in homes}
        recent: dict[str, CandleBlock] = {}
        for path in paths.values():
            recent |= _recent(path)
        return cls({home: _together(path) for home, path in paths.items()}, recent)


@dataclass(frozen=True, slots=True)
class Brought:
    """How one symbol came to the present: from a snapshot or not, by which candles, and what was wrong with it."""

    restored: bool
    block: CandleBlock
    outdated: str


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
    feature set costs more requests, nothing else. A symbol whose candles cannot be read stays behind; the feed asks
    for it again.
    """
    at_once = asyncio.Semaphore(_AT_ONCE)
    snapshots = Snapshots.of(homes, venue=venue, timeframe=timeframe)
    recent = RecentCandles(timeframe)

    async def one(symbol: str) -> Brought:
        series = Series(venue, symbol, timeframe)
        restored = restore(features, series, snapshots, recent, now_ms=now_ms)
        async with at_once:
            return await bring(features, reader, series, recent, restored=restored, now_ms=now_ms)

    brought = dict(zip(features.symbols, await asyncio.gather(*map(one, features.symbols)), strict=True))
    latest = features.latest()
    return CaughtUp(
        restored=frozenset(symbol for symbol, one in brought.items() if one.restored),
        candles_read=sum(len(one.block) for one in brought.values()),
        not_ready=tuple(
            symbol for symbol, ready in zip(latest.symbols, latest.ready.tolist(), strict=True) if not ready
        ),
        recent=recent,
        outdated={symbol: one.outdated for symbol, one in brought.items() if one.outdated},
    )


def restore(
    features: LiveFeatures, series: Series, snapshots: Snapshots, recent: RecentCandles, *, now_ms: int
) -> bool:
    """Take over the newest snapshot of a series, with the candles behind it; return whether there was one."""
    restored = _load(features, series, homes=snapshots.together, now_ms=now_ms)
    last = features.last_open_time_ms(series.symbol)
    known = snapshots.recent.get(series.symbol, CandleBlock.empty()).until((last or 0) + 1)
    # A state that did not come of these, as the lake's may be newer, is held against its own candles only.
    if restored and known.last_open_time_ms == last:
        recent.add(series.symbol, known)
    return restored


async def bring(
    features: LiveFeatures,
    reader: CandleReader,
    series: Series,
    recent: RecentCandles,
    *,
    restored: bool,
    now_ms: int,
) -> Brought:
    """
    Bring one symbol to the present.

    A snapshot that lacks a candle which has become known, among its last 64 or where a hole was, or that holds another
    than is known now, is not gone on from: the symbol is begun afresh.
    """
    symbol, timeframe = series.symbol, series.timeframe
    last = features.last_open_time_ms(symbol)
    after = _reads_after(features, symbol, recent, timeframe=timeframe, now_ms=now_ms)
    block = await _read(reader, symbol, timeframe=timeframe, after_ms=after, now_ms=now_ms)
    outdated = _outdated(features, symbol, block, recent) if restored and len(block) else ""
    if outdated:
        _log.warning("feature_state_outdated", symbol=symbol, found=outdated)
        after = history_begins(features, symbol, timeframe=timeframe, now_ms=now_ms)
        whole = await _read(reader, symbol, timeframe=timeframe, after_ms=after, now_ms=now_ms)
        # Without them it begins with what was read at first: too short, so that nothing is decided on it.
        block = whole if len(whole) else block
        features.rebuild(symbol, _plausible(symbol, np.empty((0, 5)), block))
        recent.forget(symbol)
    else:
        fresh = block if last is None else block.since(last + 1)
        features.advance(symbol, _plausible(symbol, features.newest_candles(symbol), fresh))
    newest = recent.block(symbol).last_open_time_ms
    recent.add(symbol, block if newest is None else block.since(newest + 1))
    return Brought(restored and not outdated, block, outdated)


async def history(
    features: LiveFeatures, reader: CandleReader, symbol: str, *, timeframe: Timeframe, now_ms: int
) -> CandleBlock:
    """
    Return the closed candles from which a symbol can be built anew: from where its features began, unless long ago.

    Raises:
        VenueError: The venue could not be asked.
        BadInputError: It answered with candles that no market could have made.
    """
    after = history_begins(features, symbol, timeframe=timeframe, now_ms=now_ms)
    return await closed_candles(reader, symbol, timeframe, after_ms=after, closed_by_ms=now_ms)


def history_begins(features: LiveFeatures, symbol: str, *, timeframe: Timeframe, now_ms: int) -> int:
    """Return the open time after which the candles are read that a symbol is built anew from."""
    newest, step = timeframe.last_closed_open_ms(now_ms), timeframe.milliseconds
    first = features.continuity(symbol).first_open_time_ms
    least = newest - history_candles(features) * step
    return least if first is None else min(least, max(first - step, newest - _LONGEST_CATCH_UP * step))


def history_candles(features: LiveFeatures) -> int:
    """Return how many candles a start without a snapshot reads."""
    return max(2 * features.ready_after, _LEAST_HISTORY)


def starting_points(
    features: LiveFeatures, symbols: Sequence[str], *, timeframe: Timeframe, now_ms: int
) -> dict[str, int]:
    """Return, for each symbol, the open time after which the feed continues."""
    fallback = timeframe.last_closed_open_ms(now_ms) - history_candles(features) * timeframe.milliseconds
    points = {}
    for symbol in symbols:
        last = features.last_open_time_ms(symbol)
        points[symbol] = fallback if last is None else last
    return points


def save_states(
    features: LiveFeatures,
    *,
    venue: str,
    folder: Path,
    timeframe: Timeframe,
    recent: RecentCandles | None = None,
    stale: Collection[str] = (),
) -> None:
    """
    Keep the states for the next start, beside and not in place of those that are computed from the lake.

    Those in `stale` are left out. With the states go the newest candles that they were made from.
    """
    path = states_path(folder, venue, timeframe)
    features.save_all(path, venue, without=stale)
    if recent is not None:
        write_recent(_recent_path(path), recent)


def _recent_path(states: Path) -> Path:
    return states.with_name("recent.npz")


def _recent(states: Path) -> Mapping[str, CandleBlock]:
    try:
        return read_recent(_recent_path(states))
    except CorruptFileError as error:
        _log.warning("recent_candles_unusable", error=str(error))
        return {}


def _reads_after(
    features: LiveFeatures, symbol: str, recent: RecentCandles, *, timeframe: Timeframe, now_ms: int
) -> int:
    """
    Return the open time to read after: 64 candles before the newest one, or the oldest hole that is remembered.

    After a longer pause it is all that is remembered: what lies further back than the feed looks is seen now or never.
    """
    last, step = features.last_open_time_ms(symbol), timeframe.milliseconds
    newest = timeframe.last_closed_open_ms(now_ms)
    if last is None:
        return newest - history_candles(features) * step
    first = recent.block(symbol).first_open_time_ms if newest - last > LOOK_EVERY * step else None
    wanted = [*recent.holes(symbol), *([] if first is None else [first])]
    return min([last - (TAIL - 1) * step, *wanted]) - step


def _outdated(features: LiveFeatures, symbol: str, block: CandleBlock, recent: RecentCandles) -> str:
    """Say which candle a snapshot lacks, or holds otherwise than it is known now; nothing where there is none."""
    changed = recent.changes(symbol, block)
    if len(changed):
        return told(changed, recent.holes(symbol))
    return "" if features.agrees(symbol, block) else "the venue tells other candles than those of the stored state"


def _load(features: LiveFeatures, series: Series, *, homes: Mapping[Path, StoredStates | None], now_ms: int) -> bool:
    """Take over the newest of the snapshots that is still worth it; of two equally new ones the first."""
    oldest = series.timeframe.last_closed_open_ms(now_ms) - _LONGEST_CATCH_UP * series.timeframe.milliseconds
    found: list[tuple[int, Path, StoredStates | None]] = []
    for home, together in homes.items():
        if together is not None and (last := together.last_open_time_ms(series.symbol)) is not None:
            found.append((last, home, together))
        if (last := _peek(series, home)) is not None:
            found.append((last, home, None))
    usable = [one for one in found if oldest <= one[0] < now_ms]
    if not usable:
        return False
    _, home, together = max(usable, key=lambda one: one[0])
    if together is not None:
        return bool(features.take_over(together, [series.symbol]))
    return features.load(state_path(home, series), series)


def _plausible(symbol: str, before: npt.NDArray[np.float64], block: CandleBlock) -> CandleBlock:
    sifted = sift(before, block)
    for opened, why in sifted.refused.items():
        _log.warning("candle_refused", symbol=symbol, open_time_ms=opened, why=why)
    return sifted.block


def _together(path: Path) -> StoredStates | None:
    try:
        return read_states(path)
    except (CorruptFileError, FingerprintMismatchError) as error:
        _log.warning("feature_states_unusable", path=str(path), error=str(error))
        return None


def _peek(series: Series, home: Path) -> int | None:
    try:
        state = load_state(state_path(home, series), series)
    except (CorruptFileError, FingerprintMismatchError) as error:
        _log.warning("feature_state_unusable", symbol=series.symbol, error=str(error))
        return None
    return None if state is None else state.continuity.last_open_time_ms


async def _read(reader: CandleReader, symbol: str, *, timeframe: Timeframe, after_ms: int, now_ms: int) -> CandleBlock:
    for attempt in range(_ATTEMPTS):
        try:
            return await closed_candles(reader, symbol, timeframe, after_ms=after_ms, closed_by_ms=now_ms)
        except RetryableError as error:
            _log.warning("history_not_read", symbol=symbol, error=str(error)[:200], attempt=attempt + 1)
        except QuantumError as error:
            _log.warning("history_unusable", symbol=symbol, error=str(error)[:200])
            break
        await asyncio.sleep(0.2 * 2**attempt)
    return CandleBlock.empty()
