"""Longer candles made of stored minutes: what each one holds, in each of its revisions, and when it could be known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import CLOSE, HIGH, LOW, OPEN, VOLUME, CandleBlock, Timeframe
from feature_store.errors import BadInputError
from feature_store.partitions import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Times = npt.NDArray[np.int64]

BASE = Timeframe.M1
_STEP = BASE.milliseconds


def derive(minutes: Rows, timeframe: Timeframe, *, whole_from_ms: int | None = None) -> Rows:
    """
    Return the candles of a longer timeframe that minutes add up to, with every revision of each.

    A candle is derived once a minute is known that is its last one or a later one: nothing that is still open counts.
    Minutes without a trade are left out of it, and one that holds none is absent. It is available as soon as the last
    of its minutes is, or, where that one is absent, the first minute after it. A minute that is corrected, or comes
    later, makes a new revision, unless it changes no value. So what was derived from the rows known at some moment is
    what the whole gives as of that moment.

    Args:
        minutes: Every revision of minute candles, oldest first.
        timeframe: What to derive.
        whole_from_ms: From where on the minutes are all there are; from the first one, if None. A candle that begins
            before is left out.

    Raises:
        BadInputError: The timeframe is not longer than a minute.
    """
    if timeframe.milliseconds <= _STEP:
        raise BadInputError(f"Candles of {timeframe} cannot be derived from {BASE}; use one of 5m, 15m, 1h, 4h, 1d")
    if len(minutes) == 0:
        return Rows.empty()
    times = minutes.block.open_time_ms
    opens = times - times % timeframe.milliseconds
    begins = np.flatnonzero(np.append([True], opens[1:] != opens[:-1]))
    ends = np.append(begins[1:], len(opens))
    known_ms, is_known = _known_from(minutes, opens[begins] + timeframe.milliseconds - _STEP)
    is_whole = opens[begins] >= (int(times[0]) if whole_from_ms is None else whole_from_ms)
    chosen = is_known & is_whole
    begins, ends, known_ms = begins[chosen], ends[chosen], known_ms[chosen]
    if len(begins) == 0:
        return Rows.empty()
    simple = _are_simple(minutes, begins, ends, known_ms)
    parts = [_at_once(minutes, opens, begins[simple], ends[simple], known_ms[simple])]
    for begin, end, known in zip(begins[~simple], ends[~simple], known_ms[~simple], strict=True):
        rows = minutes.take(np.arange(begin, end))
        parts.extend(_revisions(rows, int(opens[begin]), int(known)))
    every = parts[0].concat(*parts[1:])
    return every.take(np.lexsort((every.revision, every.block.open_time_ms)))


def _known_from(minutes: Rows, last_minutes: Times) -> tuple[Times, npt.NDArray[np.bool_]]:
    """Return since when a minute is known that opens at or after each of these, and whether there is one at all."""
    times = minutes.block.open_time_ms
    first = np.append([True], times[1:] != times[:-1])
    opened, available = times[first], minutes.available_at_ms[first]
    earliest = np.minimum.accumulate(available[::-1])[::-1]
    at = np.searchsorted(opened, last_minutes)
    is_known = at < len(opened)
    return earliest[np.minimum(at, len(opened) - 1)], is_known


def _are_simple(minutes: Rows, begins: Times, ends: Times, known_ms: Times) -> npt.NDArray[np.bool_]:
    """Mark the candles whose minutes were all there, uncorrected, once the candle could be known."""
    corrected = np.concatenate(([0], np.cumsum(minutes.revision != 0)))
    newest = np.maximum.reduceat(np.append(minutes.available_at_ms, 0), np.column_stack([begins, ends]).ravel())[::2]
    simple: npt.NDArray[np.bool_] = (corrected[ends] == corrected[begins]) & (newest <= known_ms)
    return simple


def _at_once(minutes: Rows, opens: Times, begins: Times, ends: Times, known_ms: Times) -> Rows:
    values = np.empty((len(begins), 5))
    if len(begins):
        within = minutes.block.values
        # Pairs of begin and end; what lies between one end and the next begin is dropped.
        edges = np.column_stack([begins, ends]).ravel()
        padded = np.vstack([within, np.zeros((1, 5))])
        values[:, OPEN] = within[begins, OPEN]
        values[:, CLOSE] = within[ends - 1, CLOSE]
        values[:, HIGH] = np.maximum.reduceat(padded[:, HIGH], edges)[::2]
        values[:, LOW] = np.minimum.reduceat(padded[:, LOW], edges)[::2]
        values[:, VOLUME] = np.add.reduceat(padded[:, VOLUME], edges)[::2]
    return Rows(CandleBlock(opens[begins], values), known_ms, np.zeros(len(begins), np.int32))


def _revisions(rows: Rows, open_ms: int, known_ms: int) -> Iterator[Rows]:
    """Yield what was known of one candle, from the first moment on at which it could be told."""
    previous: npt.NDArray[np.float64] | None = None
    revision = 0
    for moment in np.unique(np.maximum(rows.available_at_ms, known_ms)).tolist():
        parts = rows.latest(moment)
        opens = np.full(len(parts), open_ms, np.int64)
        both = np.array([0]), np.array([len(parts)])
        row = _at_once(parts, opens, *both, np.array([moment]))
        if previous is None or not np.array_equal(row.block.values, previous):
            yield Rows(row.block, row.available_at_ms, np.array([revision], np.int32))
            previous, revision = row.block.values, revision + 1
