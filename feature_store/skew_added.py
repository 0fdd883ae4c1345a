"""Inputs that people add to the 49 against the lake: which of them differ from what a decision read, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import CandleBlock, Series
from feature_store.extensions.expansion import Known
from feature_store.skew import (
    AddedRow,
    Cause,
    Difference,
    Gaps,
    Used,
    gaps_by_row,
    known_at,
    moment_of,
    uncaused,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from feature_store.extensions.view import FeatureView
    from feature_store.lake import CandleLake
    from feature_store.partitions import Rows

    Inputs = npt.NDArray[np.float32]

# So many corrections, of all symbols together, are tried before a difference stays unexplained.
_MOMENTS = 8
_NOTHING = "no start, arrival, correction or gap gives what was read"


def audit_added(lake: CandleLake, view: FeatureView, series: Series, used: Used) -> tuple[Difference, ...]:
    """
    Recompute the added inputs that decisions read of one series, and name the cause of each difference.

    They are what training would have read: of other symbols what the lake had when the row's own candle was there. As
    with the 49, a cause is found by bringing it about; where several are needed together, the last of them is named.
    What cannot be brought about is unexplained, whatever candles are counted; only where the lake has no candle of a
    symbol as new as what was read of it, that is said.

    Raises:
        CorruptFileError: A partition of the lake is damaged.
    """
    end = int(used.facts["open_time_ms"].max(initial=0)) + series.timeframe.milliseconds
    symbols = {series.symbol, *(view.expansion.symbols if view.expansion else ())}
    rows = {one: lake.read_rows(replace(series, symbol=one), None, end) for one in sorted(symbols)}
    return tuple(_Audit(series, view, rows, used).differences())


@dataclass(frozen=True, slots=True)
class _World:
    """Which candles are taken for granted: from which on, arrived up to which, as known when, and without which."""

    first: tuple[tuple[str, int], ...] = ()
    newest: tuple[tuple[str, int], ...] | None = None
    moment: int | None = None
    gaps: tuple[tuple[str, Gaps], ...] = ()


class _Audit:
    """The audit of one series; what is recomputed is kept, since many rows ask for the same."""

    def __init__(self, series: Series, view: FeatureView, rows: dict[str, Rows], used: Used) -> None:
        self._series, self._view, self._rows, self._used = series, view, rows, used
        self._step = series.timeframe.milliseconds
        self._latest = {symbol: one.latest().block for symbol, one in rows.items()}
        corrected = [one.available_at_ms[one.revision > 0] for one in rows.values()]
        self._corrected_ms = np.unique(np.concatenate(corrected))
        self._computed: dict[_World, tuple[npt.NDArray[np.int64], Inputs]] = {}
        self._gaps = self._gaps_by_row()

    def differences(self) -> Iterator[Difference]:
        ours = self._view.fingerprint()
        for at, row in enumerate(self._used.added):
            if row is None:
                continue
            if row.fingerprint != ours:
                detail = f"it was read with {row.fingerprint[:12]}, the settings here give {ours[:12]}"
                yield self._difference(at, Cause.FINGERPRINT, set(row.names), detail)
                continue
            now = self._values(at, _World())
            # Where the candle itself is not stored, the audit of the 49 tells so.
            if now is not None and (different := _different(row, now)):
                yield from self._explained(at, row, different)

    def _explained(self, at: int, row: AddedRow, different: set[str]) -> Iterator[Difference]:
        """Yield what each cause explains: a source, whole or not at all; what is left over is explained by none."""
        left = set(different)
        for cause, detail, world in self._attempts(at, row):
            values = self._values(at, world)
            if values is None:
                continue
            still = {_origin(name) for name in _different(row, values)}
            found = {name for name in left if _origin(name) not in still}
            if found:
                yield self._difference(at, cause, found, detail)
                left -= found
            if not left:
                return
        for symbol, detail in self._not_yet(at, row):
            of_it = {name for name in left if _origin(name).partition("@")[0] == symbol}
            if of_it:
                yield self._difference(at, Cause.NOT_YET, of_it, detail)
                left -= of_it
        if left:
            cause, detail = uncaused(self._used.codes[at], self._counts(at, row) or [_NOTHING])
            yield self._difference(at, cause, left, detail)

    def _attempts(self, at: int, row: AddedRow) -> Iterator[tuple[Cause, str, _World]]:
        facts = self._used.facts[at]
        own = int(facts["open_time_ms"])
        first = ((self._series.symbol, int(facts["first_open_time_ms"])), *_of_peers(row, "first_open_time_ms"))
        newest = ((self._series.symbol, own), *_of_peers(row, "open_time_ms"))
        begun = f"the worker's features begin at {moment_of(min(dict(first).values()))}"
        yield Cause.OTHER_START, begun, _World(first)
        arrived = self._arrival_words(row, own)
        both = [((), None), (first, None), ((), newest), (first, newest)]
        for start, limit in both[2:]:
            yield Cause.LATE, arrived, _World(start, limit)
        for moment in self._earlier_knowledge(int(self._used.decided_ms[at])):
            known = f"before the correction of {moment_of(moment)}, it was the same"
            for start, limit in both:
                yield Cause.CORRECTED, known, _World(start, limit, moment - 1)
        gaps = self._gaps[at]
        missed = f"without candles of {', '.join(dict(gaps))} that the worker missed, it is the same"
        # What is oldest of them the lake may lack as well.
        for some in dict.fromkeys((tuple((symbol, one[-1:]) for symbol, one in gaps), gaps)) if gaps else ():
            yield Cause.GAP, missed, _World(first, newest, None, some)
        for moment in self._earlier_knowledge(int(self._used.decided_ms[at])) if gaps else ():
            known = f"before the correction of {moment_of(moment)}, and {missed}"
            yield Cause.GAP, known, _World(first, newest, moment - 1, gaps)

    def _arrival_words(self, row: AddedRow, own: int) -> str:
        behind = [f"{symbol} was there up to {moment_of(last)}" for symbol, last in _of_peers(row, "open_time_ms")
                  if last < own]  # fmt: skip
        return "when it was decided, " + " and ".join(behind or ["the worker had what came to the lake only later"])

    def _earlier_knowledge(self, decided: int) -> list[int]:
        after = int(np.searchsorted(self._corrected_ms, decided, side="right"))
        likely = self._corrected_ms[after : after + 1].tolist()
        newest_first = self._corrected_ms[::-1][:_MOMENTS].tolist()
        return [*likely, *(one for one in newest_first if one not in likely)]

    def _not_yet(self, at: int, row: AddedRow) -> Iterator[tuple[str, str]]:
        """Yield the included symbols of which the lake has no candle as new as what was read."""
        own = int(self._used.facts["open_time_ms"][at])
        for symbol, facts in zip(row.peers, row.facts, strict=True):
            last = int(facts["open_time_ms"])
            if facts["candles"] and (self._latest[symbol].last_open_time_ms or 0) < min(last, own):
                yield symbol, f"the lake has no candle of {symbol} as new as that of {moment_of(last)}"

    def _counts(self, at: int, row: AddedRow) -> list[str]:
        """Tell of which symbols the lake and the worker have another number of candles; that excuses nothing."""
        told = []
        own = self._used.facts[at]
        for symbol, facts in ((self._series.symbol, own), *zip(row.peers, row.facts, strict=True)):
            first, last, seen = int(facts["first_open_time_ms"]), int(facts["open_time_ms"]), int(facts["candles"])
            until = min(last, int(own["open_time_ms"]))
            times = self._latest[symbol].open_time_ms
            stored = int(np.searchsorted(times, until, side="right") - np.searchsorted(times, first))
            # What came of it after the row's own candle was seen too, and is not read here.
            seen -= (last - until) // self._step
            if stored != seen:
                told.append(
                    f"of {symbol} since {moment_of(first)} the lake holds {stored} candles, the worker saw {seen}"
                )
        return told

    def _values(self, at: int, world: _World) -> Inputs | None:
        """Return the added inputs of one row in a world."""
        if world not in self._computed:
            self._computed[world] = self._compute(world)
        times, values = self._computed[world]
        open_time_ms = int(self._used.facts["open_time_ms"][at])
        place = int(np.searchsorted(times, open_time_ms))
        return values[place] if place < len(times) and times[place] == open_time_ms else None

    def _compute(self, world: _World) -> tuple[npt.NDArray[np.int64], Inputs]:
        known = {symbol: self._known(symbol, world) for symbol in self._rows}
        times = known[self._series.symbol].block.open_time_ms
        values = self._view.extra_inputs(self._series.symbol, self._series.timeframe, known)
        # A world of arrivals is that of one row only.
        used = (
            np.isin(times, self._used.facts["open_time_ms"]) if world.newest is None else times == times.max(initial=0)
        )
        return times[used], values[used]

    def _known(self, symbol: str, world: _World) -> Known:
        rows = self._rows[symbol]
        block = self._latest[symbol] if world.moment is None else known_at(rows, world.moment)
        kept = block.open_time_ms >= dict(world.first).get(symbol, 0)
        if world.newest is not None:
            kept &= block.open_time_ms <= dict(world.newest).get(symbol, 0)
        block = without(CandleBlock(block.open_time_ms[kept], block.values[kept]), dict(world.gaps).get(symbol, ()))
        # Where it is known what had arrived, it had when the candle closed: what had not is left out.
        if world.newest is not None:
            return Known.at_close(block, self._series.timeframe)
        return Known(block, rows.first_known(block.open_time_ms))

    def _gaps_by_row(self) -> list[tuple[tuple[str, Gaps], ...]]:
        """Return for each row what its own state and those of the included symbols saw no candle of, where any."""
        used = self._used
        facts = used.facts if used.earlier is None else np.concatenate([used.earlier, used.facts])
        own = gaps_by_row(facts, self._step)[len(facts) - len(used) :]
        of_peers: dict[str, list[np.void]] = {}
        for row in used.added:
            for symbol, one in zip(row.peers, row.facts, strict=True) if row is not None else ():
                of_peers.setdefault(symbol, []).append(one)
        theirs = {symbol: iter(gaps_by_row(rows, self._step)) for symbol, rows in of_peers.items()}
        found = []
        for row, mine in zip(used.added, own, strict=True):
            both = {symbol: next(theirs[symbol]) for symbol in (row.peers if row is not None else ())}
            both[self._series.symbol] = mine
            found.append(tuple((symbol, gaps) for symbol, gaps in both.items() if gaps))
        return found

    def _difference(self, at: int, cause: Cause, names: set[str], detail: str) -> Difference:
        row = self._used.added[at]
        return Difference(
            series=self._series,
            open_time_ms=int(self._used.facts["open_time_ms"][at]),
            decided_ms=int(self._used.decided_ms[at]),
            cause=cause,
            features=tuple(name for name in (row.names if row else ()) if name in names),
            detail=detail,
        )


def _of_peers(row: AddedRow, fact: str) -> tuple[tuple[str, int], ...]:
    return tuple(zip(row.peers, row.facts[fact].tolist(), strict=True))


def _origin(name: str) -> str:
    """Return whose a column is: what follows the first @ of its name; a feature of one's own is its own."""
    return name.partition("@")[2] or name


def _different(row: AddedRow, now: Inputs) -> set[str]:
    same = (row.values.view(np.uint32) == now.view(np.uint32)) | (np.isnan(row.values) & np.isnan(now))
    return {name for name, equal in zip(row.names, same.tolist(), strict=True) if not equal}
