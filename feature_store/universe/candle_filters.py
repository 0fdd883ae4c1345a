"""The filters that a weekly candidate must pass at each candle, for all candles of a series at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np

from feature_store.candle import CLOSE, VOLUME, Timeframe
from feature_store.universe.selection import DAY_MS, UniversePolicy

if TYPE_CHECKING:
    import numpy.typing as npt

    from feature_store.partitions import Rows
    from feature_store.universe.facts import Listing

    Floats = npt.NDArray[np.float64]
    Times = npt.NDArray[np.int64]
    Marks = npt.NDArray[np.bool_]

_MINUTE_MS = 60_000
_MOST_NOTIONAL = 1e24


class CandleFilters(msgspec.Struct, frozen=True, kw_only=True):
    """What of a policy holds at each candle; a blacklist has done its part in the weekly choice by the same rules."""

    min_volume_24h: float
    max_silence_minutes: float

    @classmethod
    def of(cls, policy: UniversePolicy) -> Self:
        """Return the filters of a policy."""
        return cls(min_volume_24h=policy.min_volume_24h, max_silence_minutes=policy.max_silence_minutes)

    def passed(
        self, timeframe: Timeframe, rows: Rows, open_time_ms: Times, decided_ms: Times, listings: Sequence[Listing] = ()
    ) -> Marks:
        """
        Mark the candles at which a candidate may be traded, as `refused_now` says it of one moment.

        It must be listed as far as the venue had said by then, have come without too long a silence, and have traded
        enough in the 24 hours to its close, from what was known when it was decided on.

        Args:
            timeframe: Of the candles.
            rows: Every revision of them, and of those of the day before the first.
            open_time_ms: The candles to judge, oldest first.
            decided_ms: When each was first available.
            listings: What the venue said of when this symbol trades.
        """
        silence = (decided_ms - open_time_ms - timeframe.milliseconds) / _MINUTE_MS
        fresh = silence <= self.max_silence_minutes
        enough = volume_24h(timeframe, rows, open_time_ms, decided_ms) >= self.min_volume_24h
        return np.asarray(fresh & enough & _listed(listings, decided_ms), np.bool_)


def volume_24h(timeframe: Timeframe, rows: Rows, open_time_ms: Times, decided_ms: Times) -> Floats:
    """
    Return what had been traded in the 24 hours to the close of each candle, in units of the quote, as known then.

    Of each candle the revision counts that was the newest at the decision, and nothing where it had not come yet.
    """
    step, opened, known_ms = timeframe.milliseconds, rows.block.open_time_ms, rows.available_at_ms
    notional = np.minimum(rows.block.values[:, CLOSE] * rows.block.values[:, VOLUME], _MOST_NOTIONAL)
    first = np.diff(opened, prepend=-1) > 0
    total = np.concatenate([[0.0], np.cumsum(notional[first])])
    close_ms = open_time_ms + step
    begins, ends = (np.searchsorted(opened[first], moments) for moments in (close_ms - DAY_MS, close_ms))
    volume = total[ends] - total[begins]

    def window(row: int) -> slice:
        """Return the decisions whose 24 hours hold a candle."""
        edges = np.searchsorted(open_time_ms, [opened[row] - step, opened[row] + DAY_MS - step], side="right")
        return slice(int(edges[0]), int(edges[1]))

    # The sums took each candle in its first revision and for known: what was otherwise is rare, and put right singly.
    for row in np.flatnonzero(first & (known_ms > opened + 2 * step)).tolist():
        span = window(row)
        volume[span] -= np.where(decided_ms[span] < known_ms[row], notional[row], 0.0)
    for row in np.flatnonzero(~first).tolist():
        span = window(row)
        volume[span] += np.where(decided_ms[span] >= known_ms[row], notional[row] - notional[row - 1], 0.0)
    return np.asarray(np.maximum(volume, 0.0))


def _listed(listings: Sequence[Listing], decided_ms: Times) -> Marks:
    """Tell at each decision whether the symbol traded, by the newest of what the venue had said."""
    said = sorted(listings, key=lambda one: one.available_at_ms)
    newest = np.searchsorted([one.available_at_ms for one in said], decided_ms, side="right")
    begins = np.array([-np.inf, *(-np.inf if one.listed_ms is None else one.listed_ms for one in said)])
    ends = np.array([np.inf, *(np.inf if one.delisted_ms is None else one.delisted_ms for one in said)])
    return np.asarray((begins[newest] <= decided_ms) & (decided_ms < ends[newest]), np.bool_)
