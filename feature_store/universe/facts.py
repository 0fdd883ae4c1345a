"""What was known of each symbol of the lake at past moments: its volume, liquidity, age and last candle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa

from feature_store.candle import CLOSE, VOLUME, Series, Timeframe
from feature_store.errors import BadInputError
from feature_store.lake import BACKFILL_DELAY_MS
from feature_store.queries import query
from feature_store.universe.selection import DAY_MS, WEEK_MS, SymbolFacts

if TYPE_CHECKING:
    import numpy.typing as npt

    from feature_store.lake import CandleLake
    from feature_store.partitions import Rows

_HOUR_MS = 3_600_000
_SERIES_AT_ONCE = 100
"""With four weeks of 5-minute candles this is a million rows: tens of megabytes, whatever the lake holds."""
_MONTH_MS = 28 * DAY_MS


@dataclass(frozen=True, slots=True)
class Listing:
    """What a venue said of when it trades a symbol, and when that could be known."""

    symbol: str
    available_at_ms: int
    listed_ms: int | None = None
    delisted_ms: int | None = None


@dataclass(slots=True)
class _Ends:
    """The first and last candles of one series as they could be known; read only where the last week cannot tell."""

    lake: CandleLake
    series: Series
    _all: Rows | None = field(default=None, init=False)
    _first: tuple[int, int] | None = field(default=None, init=False)

    def first_open_ms(self, moment_ms: int) -> int | None:
        """Return the open time of the oldest candle known at a moment."""
        if self._first is None:
            first_ms = self.lake.first_open_time_ms(self.series)
            if first_ms is None:
                return None
            rows = self.lake.read_rows(self.series, first_ms, first_ms + 1)
            self._first = first_ms, int(rows.available_at_ms.min())
        open_ms, available_ms = self._first
        if available_ms <= moment_ms or open_ms > moment_ms:
            return open_ms if available_ms <= moment_ms else None
        known = self._known(moment_ms)
        return int(known[0]) if len(known) else None

    def last_open_ms(self, moment_ms: int) -> int | None:
        """Return the open time of the newest candle known at a moment."""
        known = self._known(moment_ms)
        return int(known[-1]) if len(known) else None

    def _known(self, moment_ms: int) -> npt.NDArray[np.int64]:
        if self._all is None:
            self._all = self.lake.read_rows(self.series)
        return self._all.block.open_time_ms[self._all.available_at_ms <= moment_ms]


def facts_at(
    lake: CandleLake,
    series: Iterable[Series],
    moments_ms: Sequence[int],
    listings: Iterable[Listing] = (),
) -> Iterator[tuple[int, list[SymbolFacts]]]:
    """
    Yield for each moment, in order, what was known then of every series that had a candle by then.

    Only what was available at the moment counts: later candles, corrections and announcements change nothing.

    Args:
        lake: Where the candles are.
        series: All of one venue and timeframe.
        moments_ms: The moments.
        listings: What the venue said of when symbols trade, if that is known.

    Raises:
        BadInputError: The series have different venues or timeframes.
        CorruptFileError: A partition of the lake is damaged.
    """
    wanted = sorted(series)
    if len({(one.venue, one.timeframe) for one in wanted}) > 1:
        raise BadInputError("Facts of a universe are of one venue and timeframe; ask for each by itself")
    said = _by_symbol(listings)
    ends = {one: _Ends(lake, one) for one in wanted}
    for moments in _near_each_other(sorted(set(moments_ms))):
        found: dict[int, list[SymbolFacts]] = {moment: [] for moment in moments}
        for begin in range(0, len(wanted), _SERIES_AT_ONCE):
            part = wanted[begin : begin + _SERIES_AT_ONCE]
            traded = _traded(lake, part, moments)
            for one in part:
                for moment in moments:
                    facts = _facts(one, moment, ends[one], traded.get((moment, one)), said.get(one.symbol, ()))
                    if facts is not None:
                        found[moment].append(facts)
        yield from found.items()


def last_known_close_ms(timeframe: Timeframe, moment_ms: int) -> int:
    """Return when the newest candle closed that could be known at a moment."""
    return timeframe.floor_ms(moment_ms - BACKFILL_DELAY_MS)


@dataclass(frozen=True, slots=True)
class _Traded:
    last_open_ms: int
    volume_24h: float
    liquidity: float


def _traded(lake: CandleLake, series: Sequence[Series], moments: Sequence[int]) -> dict[tuple[int, Series], _Traded]:
    timeframe = series[0].timeframe
    ends = [last_known_close_ms(timeframe, moment) for moment in moments]
    parts = [_revisions(number, lake.read_rows(one, ends[0] - WEEK_MS, ends[-1])) for number, one in enumerate(series)]
    parameters = {"bucket": max(_HOUR_MS, timeframe.milliseconds)}
    with duckdb.connect() as connection:
        connection.register("candle_revisions", pa.concat_tables(parts))
        connection.register("moments", pa.table({"moment_ms": list(moments), "end_ms": ends}))
        rows = connection.sql(query("universe_facts"), params=parameters).fetchall()
    return {
        (moment, series[number]): _Traded(last_open_ms, volume, liquidity)
        for moment, number, last_open_ms, volume, liquidity in rows
    }


def _revisions(number: int, rows: Rows) -> pa.Table:
    columns: dict[str, Any] = {
        "series": pa.array(np.full(len(rows), number, np.int32)),
        "open_time_ms": pa.array(rows.block.open_time_ms),
        "close": pa.array(np.ascontiguousarray(rows.block.values[:, CLOSE])),
        "volume": pa.array(np.ascontiguousarray(rows.block.values[:, VOLUME])),
        "available_at_ms": pa.array(rows.available_at_ms),
        "revision": pa.array(rows.revision),
    }
    return pa.table(columns)


def _facts(
    series: Series, moment_ms: int, ends: _Ends, traded: _Traded | None, said: Sequence[Listing]
) -> SymbolFacts | None:
    first_ms = ends.first_open_ms(moment_ms)
    last_ms = ends.last_open_ms(moment_ms) if traded is None else traded.last_open_ms
    if first_ms is None or last_ms is None:
        return None
    known = [one for one in said if one.available_at_ms <= moment_ms]
    return SymbolFacts(
        symbol=series.symbol,
        volume_24h=0.0 if traded is None else traded.volume_24h,
        liquidity=0.0 if traded is None else traded.liquidity,
        first_open_ms=first_ms,
        last_close_ms=last_ms + series.timeframe.milliseconds,
        listed_ms=known[-1].listed_ms if known else None,
        delisted_ms=known[-1].delisted_ms if known else None,
    )


def _by_symbol(listings: Iterable[Listing]) -> Mapping[str, Sequence[Listing]]:
    ordered = sorted(listings, key=lambda one: (one.symbol, one.available_at_ms))
    return {symbol: tuple(those) for symbol, those in groupby(ordered, key=lambda one: one.symbol)}


def _near_each_other(moments: Sequence[int]) -> Iterator[list[int]]:
    """Cut moments, in order, into stretches of at most four weeks, so that each candle is read about once."""
    begin = 0
    for place in range(1, len(moments) + 1):
        if place == len(moments) or moments[place] - moments[begin] >= _MONTH_MS:
            yield list(moments[begin:place])
            begin = place
