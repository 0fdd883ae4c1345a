"""Features of other symbols and longer timeframes beside a series' own, as known when it was decided on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import CLOSE, HIGH, LOW, OPEN, VOLUME, CandleBlock, Timeframe
from feature_store.errors import BadInputError
from feature_store.features.definition import FEATURE_NAMES, MODEL_INPUT_NAMES, fingerprint
from feature_store.features.engine import FeatureEngine, model_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Times = npt.NDArray[np.int64]

MOST_COLUMNS = 2_000
KEPT_ROWS = 256
"""Rows that live keeps of each source: a series that lags further behind its peers than this sees nothing of them."""

_RULES_VERSION = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a group of columns comes from: whose candles (None: the series' own), and of which timeframe."""

    symbol: str | None
    timeframe: Timeframe | None

    @property
    def suffix(self) -> str:
        """What follows a feature's name in the name of its column."""
        return "".join(f"@{part}" for part in (self.symbol, self.timeframe) if part is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """
    Which features of which others are added to every series.

    Every combination of a symbol (the series' own included) and a timeframe (its own included) but the one that is
    the series itself. Names are those of features or of model inputs; the latter mean the same at every price.

    `max_age` is for how many candles of a source, beyond its newest one, what is known of it still counts; older, it
    is NaN. So with 0 a symbol that has no candle at this very close is NaN, and an hour is known until the next closes.
    """

    names: tuple[str, ...]
    symbols: tuple[str, ...] = ()
    timeframes: tuple[Timeframe, ...] = ()
    max_age: int = 3

    def __post_init__(self) -> None:
        """Refuse what cannot be computed, or would be nothing."""
        known = {*FEATURE_NAMES, *MODEL_INPUT_NAMES}
        unknown = sorted(set(self.names) - known)
        if unknown:
            raise BadInputError(f"No feature or model input is called {', '.join(unknown)}")
        if not self.names or not (self.symbols or self.timeframes):
            raise BadInputError("An expansion needs names, and symbols or timeframes to take them from")
        for what, given in (("names", self.names), ("symbols", self.symbols), ("timeframes", self.timeframes)):
            if len(set(given)) < len(given):
                raise BadInputError(f"An expansion names each of its {what} once, were {', '.join(given)}")
        if not 0 <= self.max_age < KEPT_ROWS // 2:
            raise BadInputError(f"max_age must lie in [0, {KEPT_ROWS // 2}), was {self.max_age}")
        if len(self.columns) > MOST_COLUMNS:
            raise BadInputError(f"{len(self.columns):,} columns are more than {MOST_COLUMNS:,}; choose fewer names")

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Sources of columns, in order: own longer timeframes first, then symbol after symbol."""
        every = product((None, *self.symbols), (None, *self.timeframes))
        return tuple(Origin(symbol, timeframe) for symbol, timeframe in every if (symbol, timeframe) != (None, None))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns: `rsi@BTC/USDT:USDT@1h`."""
        return tuple(f"{name}{origin.suffix}" for origin in self.origins for name in self.names)

    def check(self, timeframe: Timeframe) -> None:
        """
        Refuse timeframes that cannot be made of a series' own.

        Raises:
            BadInputError: One is not longer, or not a multiple.
        """
        for one in self.timeframes:
            if one.milliseconds <= timeframe.milliseconds or one.milliseconds % timeframe.milliseconds:
                raise BadInputError(f"Candles of {one} cannot be made of those of {timeframe}; choose longer ones")

    def fingerprint(self) -> str:
        """Return the digest that identifies the columns: their names, order and rules, and the 49 behind them."""
        content = [_RULES_VERSION, fingerprint(), self.columns, self.max_age]
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Candles of one symbol, oldest first, and when each was known; nothing is known before what came before it."""

    block: CandleBlock
    known_ms: Times

    def __post_init__(self) -> None:
        if self.known_ms.shape != (len(self.block),):
            raise BadInputError(f"{len(self.block)} candles need as many moments, were {self.known_ms.shape}")

    @classmethod
    def at_close(cls, block: CandleBlock, timeframe: Timeframe) -> Known:
        """Take every candle for known as it closes."""
        return cls(block, block.open_time_ms + timeframe.milliseconds)

    def taken_in(self) -> Known:
        """Return what a worker takes in of them: a candle that came after a later one never reached its features."""
        # What comes later makes no difference to what was known before: this is no look-ahead.
        soonest = np.minimum.accumulate(self.known_ms[::-1])[::-1]
        kept = self.known_ms <= soonest
        return Known(CandleBlock(self.block.open_time_ms[kept], self.block.values[kept]), self.known_ms[kept])


@dataclass(frozen=True, slots=True, eq=False)
class SourceRows:
    """What a source says: one row for each of its candles, with its close and the moment it was known."""

    close_ms: Times
    known_ms: Times
    values: Floats

    @classmethod
    def none(cls, width: int) -> SourceRows:
        """Return no rows."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, width)))

    def followed_by(self, more: SourceRows, keep: int | None = None) -> SourceRows:
        """Return these rows and others, or the newest of them all."""
        kept = slice(-keep if keep else None, None)
        return SourceRows(
            np.concatenate([self.close_ms, more.close_ms])[kept],
            np.concatenate([self.known_ms, more.known_ms])[kept],
            np.concatenate([self.values, more.values])[kept],
        )


class Source:
    """The chosen features of one symbol in one timeframe, moved forward by candles of the series' own timeframe."""

    def __init__(self, names: Sequence[str], own: Timeframe, timeframe: Timeframe) -> None:
        self._names = tuple(names)
        self._own, self._timeframe = own, timeframe
        self._engine = FeatureEngine(timeframe)
        self._open = CandleBlock.empty()
        self._whole_from_ms: int | None = None
        self._last_ms = -1
        self._known_ms = 0

    def copy(self) -> Source:
        """Return one that goes on from here by itself."""
        other = Source(self._names, self._own, self._timeframe)
        other._engine = FeatureEngine(self._timeframe, self._engine.state.copy())
        other._open, other._whole_from_ms = self._open, self._whole_from_ms
        other._last_ms, other._known_ms = self._last_ms, self._known_ms
        return other

    def advance(self, fresh: CandleBlock, known_ms: Times) -> SourceRows:
        """Take in closed candles, known since `known_ms`, and return the rows that they complete."""
        newer = fresh.open_time_ms > self._last_ms
        fresh, known_ms = CandleBlock(fresh.open_time_ms[newer], fresh.values[newer]), known_ms[newer]
        if len(fresh) == 0:
            return SourceRows.none(len(self._names))
        known_ms = np.maximum.accumulate(np.maximum(known_ms, self._known_ms))
        self._last_ms, self._known_ms = int(fresh.open_time_ms[-1]), int(known_ms[-1])
        if self._timeframe is self._own:
            closed, moments = fresh, known_ms
        else:
            closed, moments = self._closed(fresh, known_ms)
        values = _chosen(self._engine.advance(closed), self._names)
        return SourceRows(closed.open_time_ms + self._timeframe.milliseconds, moments, values)

    def _closed(self, fresh: CandleBlock, known_ms: Times) -> tuple[CandleBlock, Times]:
        """Return the longer candles that these complete, and when each was known to be complete."""
        length = self._timeframe.milliseconds
        if self._whole_from_ms is None:
            self._whole_from_ms = int(fresh.open_time_ms[0])
        pending = len(self._open)
        whole = self._open.concat(fresh) if pending else fresh
        last_close = int(whole.open_time_ms[-1]) + self._own.milliseconds
        opens = whole.open_time_ms - whole.open_time_ms % length
        done = int(np.searchsorted(opens, last_close - last_close % length))
        self._open = whole[done:]
        longer = coarsened(whole[:done], self._timeframe, whole_from_ms=self._whole_from_ms)
        # Complete with the first candle that closes at or after its end: its own last one, or the first after a gap.
        closes = fresh.open_time_ms + self._own.milliseconds
        return longer, known_ms[np.searchsorted(closes, longer.open_time_ms + length)]


def coarsened(block: CandleBlock, timeframe: Timeframe, *, whole_from_ms: int) -> CandleBlock:
    """
    Return the candles of a longer timeframe that these add up to.

    What is missing is left out of them, and a longer candle that holds none is absent, as is one that begins before
    `whole_from_ms`: of that one the beginning is not known. The caller sees to it that all have closed.
    """
    opens = block.open_time_ms - block.open_time_ms % timeframe.milliseconds
    kept = opens >= whole_from_ms
    block, opens = CandleBlock(block.open_time_ms[kept], block.values[kept]), opens[kept]
    if len(block) == 0:
        return block
    begins = np.flatnonzero(np.append([True], opens[1:] != opens[:-1]))
    ends = np.append(begins[1:], len(opens)) - 1
    values = np.empty((len(begins), 5))
    values[:, OPEN], values[:, CLOSE] = block.values[begins, OPEN], block.values[ends, CLOSE]
    values[:, HIGH] = np.maximum.reduceat(block.values[:, HIGH], begins)
    values[:, LOW] = np.minimum.reduceat(block.values[:, LOW], begins)
    volume = np.ascontiguousarray(block.values[:, VOLUME])
    # One after the other, so that a sum has the same bits whatever lies around it.
    values[:, VOLUME] = [sum(volume[a : b + 1].tolist()) for a, b in zip(begins, ends, strict=True)]
    return CandleBlock(opens[begins], values)


def expand(
    expansion: Expansion,
    timeframe: Timeframe,
    block: CandleBlock,
    decided_ms: Times,
    *,
    own: Known,
    others: Mapping[str, Known],
) -> Floats:
    """
    Return the columns at each candle of a series [n, columns]: what was known of others when it was decided on.

    Args:
        expansion: What to add.
        timeframe: The series' own.
        block: Its candles.
        decided_ms: When each was decided on; in the lake's terms, when it was available.
        own: The series' candles again, for its longer timeframes; they may begin earlier.
        others: Candles of the symbols to add; one that is absent has no values. Of own and others what came after a
            later candle of its symbol does not count, as it does not live.
    """
    expansion.check(timeframe)
    parts = []
    mine, theirs = own.taken_in(), {symbol: one.taken_in() for symbol, one in others.items()}
    for origin in expansion.origins:
        known = mine if origin.symbol is None else theirs.get(origin.symbol)
        source = Source(expansion.names, timeframe, origin.timeframe or timeframe)
        rows = SourceRows.none(len(expansion.names)) if known is None else source.advance(known.block, known.known_ms)
        close_ms = block.open_time_ms + timeframe.milliseconds
        parts.append(as_of(rows, close_ms, decided_ms, origin.timeframe or timeframe, expansion.max_age))
    return np.concatenate(parts, axis=1)


class LiveExpansion:
    """The columns of many series, candle by candle: the same functions on the same rows as `expand`."""

    def __init__(self, expansion: Expansion, symbols: Sequence[str], timeframe: Timeframe) -> None:
        expansion.check(timeframe)
        self.expansion = expansion
        self.timeframe = timeframe
        self._newest: dict[str, int] = {}
        self._sources: dict[str, dict[Timeframe, Source]] = {}
        self._rows: dict[tuple[str, Timeframe], SourceRows] = {}
        for symbol in dict.fromkeys((*symbols, *expansion.symbols)):
            self.forget(symbol)

    def forget(self, symbol: str) -> None:
        """Begin a symbol of ours afresh, as if no candle of it had come."""
        own = (self.timeframe,) if symbol in self.expansion.symbols else ()
        sources = (*own, *self.expansion.timeframes)
        self._sources[symbol] = {one: Source(self.expansion.names, self.timeframe, one) for one in sources}
        self._rows |= {(symbol, one): SourceRows.none(len(self.expansion.names)) for one in sources}
        self._newest.pop(symbol, None)

    def advance(self, symbol: str, block: CandleBlock, known_ms: int | Times) -> None:
        """
        Take in closed candles of one symbol that are known since `known_ms`; stored ones may bring a moment each.

        Raises:
            BadInputError: The symbol is none of ours, or a candle is impossible.
        """
        if symbol not in self._sources:
            raise BadInputError(f"{symbol} is not among the {len(self._sources)} symbols of this expansion")
        known = Known(block, np.broadcast_to(np.asarray(known_ms, np.int64), (len(block),)))
        for timeframe, source in self._sources[symbol].items():
            more = source.advance(known.block, known.known_ms)
            self._rows[symbol, timeframe] = self._rows[symbol, timeframe].followed_by(more, KEPT_ROWS)
        if len(block):
            newest = int(block.open_time_ms[-1])
            self._newest[symbol] = max(newest, self._newest.get(symbol, newest))

    def row(self, symbol: str, now_ms: int) -> Floats:
        """Return the columns at the newest candle of a symbol, as of now; NaN before there is one."""
        newest = self._newest.get(symbol)
        if newest is None:
            return np.full(len(self.expansion.columns), np.nan)
        rows = self.rows(symbol, np.array([newest + self.timeframe.milliseconds]), np.array([now_ms]))
        return np.asarray(rows[0], np.float64)

    def rows(self, symbol: str, close_ms: Times, decided_ms: Times) -> Floats:
        """Return the columns at some of the newest candles of a symbol, by their closes [n, columns]."""
        parts = []
        for origin in self.expansion.origins:
            timeframe = origin.timeframe or self.timeframe
            known = self._rows[origin.symbol or symbol, timeframe]
            parts.append(as_of(known, close_ms, decided_ms, timeframe, self.expansion.max_age))
        return np.concatenate(parts, axis=1)


def as_of(rows: SourceRows, close_ms: Times, decided_ms: Times, timeframe: Timeframe, max_age: int) -> Floats:
    """Return the newest row that had closed, and was known, at each decision; NaN where that is too long ago."""
    width = rows.values.shape[1]
    if len(rows.close_ms) == 0:
        return np.full((len(close_ms), width), np.nan)
    closed = np.searchsorted(rows.close_ms, close_ms, side="right")
    known = np.searchsorted(rows.known_ms, decided_ms, side="right")
    at = np.minimum(closed, known) - 1
    fresh = (at >= 0) & (close_ms - rows.close_ms[at] < (max_age + 1) * timeframe.milliseconds)
    return np.asarray(np.where(fresh[:, None], rows.values[at], np.nan), np.float64)


def _chosen(features: Floats, names: Sequence[str]) -> Floats:
    inputs = model_inputs(features) if any(name in MODEL_INPUT_NAMES for name in names) else None
    columns = [
        # A name that both have, such as log_return_1, means the input: it is the one that is bounded.
        inputs[:, MODEL_INPUT_NAMES.index(name)]
        if inputs is not None and name in MODEL_INPUT_NAMES
        else features[:, FEATURE_NAMES.index(name)]
        for name in names
    ]
    return np.column_stack(columns).astype(np.float64)
