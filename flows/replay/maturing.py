"""Opinions on live candles matured into outcomes: a challenger's beside the champion's, at prices that were shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flows.training.dataset import Floats, Times
from inference.domain.shadow import Role, ShadowOpinion, ShadowScored
from inference.journal.codec import canonical

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Seen:
    """One scored candle as a journal holds it, with when it was written (venue time, ms)."""

    event: ShadowScored
    recorded_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class Opinions:
    """
    One model's matured opinions [n]; NaN where it abstained, or did not look.

    `bid_out` and `ask_out` are what the venue showed when the model's horizon ended.
    """

    digest: str
    version: str
    horizon: int
    expected: Floats
    probability_up: Floats
    threshold: Floats
    bid_out: Floats
    ask_out: Floats

    def take(self, chosen: Mask) -> Opinions:
        """Return some of the rows."""
        columns = (self.expected, self.probability_up, self.threshold, self.bid_out, self.ask_out)
        return Opinions(self.digest, self.version, self.horizon, *(one[chosen] for one in columns))


@dataclass(frozen=True, slots=True, eq=False)
class LiveRows:
    """
    What came of one challenger's predictions, one row for each symbol and candle, in order of time, then symbol.

    `beside` marks the rows on which the newest champion gave its opinion too; without one, `theirs` is None. `pending`
    predictions wait for their horizon to end; `unpriced` ones never mature, since a price was not seen when it was due.
    `seen_ms` is the newest candle that was read: what was due by then has come, or never will.
    """

    venue: str
    mode: str
    timeframe_ms: int
    symbols: tuple[str, ...]
    series: npt.NDArray[np.int64]
    close_ms: Times
    bid_in: Floats
    ask_in: Floats
    taker_fee: Floats
    slippage: Floats
    ours: Opinions
    theirs: Opinions | None
    beside: Mask
    pending: int
    unpriced: int
    seen_ms: int

    def __len__(self) -> int:
        return len(self.close_ms)

    @property
    def exit_ms(self) -> Times:
        """When each of our predictions had matured."""
        return np.asarray(self.close_ms + self.ours.horizon * self.timeframe_ms)

    def take(self, chosen: Mask) -> LiveRows:
        """Return some of the rows."""
        return LiveRows(
            self.venue,
            self.mode,
            self.timeframe_ms,
            self.symbols,
            self.series[chosen],
            self.close_ms[chosen],
            self.bid_in[chosen],
            self.ask_in[chosen],
            self.taker_fee[chosen],
            self.slippage[chosen],
            self.ours.take(chosen),
            None if self.theirs is None else self.theirs.take(chosen),
            self.beside[chosen],
            self.pending,
            self.unpriced,
            self.seen_ms,
        )


def matured(seen: Iterable[Seen]) -> tuple[LiveRows, ...]:
    """
    Return the outcomes of each challenger, told apart by the digest of its bundle; the one scored last comes last.

    One that was scored on several venues, or in several modes, is there once for each: none speaks for another.

    The order in which events come changes nothing, nor does one that comes twice: of several that tell of one candle
    the one that was written first counts. What has matured stays as it is, whatever comes later.
    """
    groups: dict[tuple[str, str, int], list[Seen]] = defaultdict(list)
    for one in sorted(seen, key=lambda one: (one.event.candle_close_ms, one.recorded_ms, canonical(one.event))):
        groups[one.event.venue, one.event.mode, one.event.timeframe_ms].append(one)
    found: list[LiveRows] = []
    for events in groups.values():
        scene = _Scene.of([one.event for one in events])
        found += [scene.rows(digest) for digest in scene.challengers()]
    return tuple(sorted(found, key=_last_scored))


def _last_scored(rows: LiveRows) -> tuple[int, str, str, str, int]:
    last_ms = int(rows.close_ms[-1]) if len(rows) else 0
    return last_ms, rows.ours.digest, rows.venue, rows.mode, rows.timeframe_ms


class _Scene:
    """The events of one venue and timeframe as tables [candles, symbols]."""

    def __init__(self, events: Sequence[ShadowScored], symbols: tuple[str, ...], times: Times) -> None:
        self.events, self.symbols, self.times = events, symbols, times
        self.timeframe_ms = events[0].timeframe_ms
        self.bid, self.ask = self._table(), self._table()
        places = {symbol: place for place, symbol in enumerate(symbols)}
        self.columns = [np.array([places[symbol] for symbol in one.symbols], np.int64) for one in events]
        self.row_of = np.searchsorted(times, [one.candle_close_ms for one in events])
        for number, event in enumerate(events):
            for table, shown in ((self.bid, event.bid), (self.ask, event.ask)):
                self._fill(table, number, [np.nan if one is None else float(one) for one in shown])

    @classmethod
    def of(cls, events: Sequence[ShadowScored]) -> _Scene:
        symbols = tuple(sorted({symbol for event in events for symbol in event.symbols}))
        return cls(events, symbols, np.unique([event.candle_close_ms for event in events]))

    def challengers(self) -> tuple[str, ...]:
        """Return the digests of the challengers, in order of their first candle."""
        said = (one for event in self.events for one in event.opinions if one.role is Role.CHALLENGER)
        return tuple(dict.fromkeys(one.digest for one in said))

    def rows(self, digest: str) -> LiveRows:
        """Return what came of one challenger's predictions."""
        said = self._said(digest)
        ours, _ = self._opinions(said)
        champions = {
            number: one
            for number in said
            for one in self.events[number].opinions
            if one.role is Role.CHAMPION and one.digest != digest
        }
        theirs, beside = None, np.zeros(ours.expected.shape, np.bool_)
        if champions:
            newest = list(champions.values())[-1].digest
            theirs, beside = self._opinions({n: one for n, one in champions.items() if one.digest == newest})
        fee, slippage = self._table(), self._table()
        for number in said:
            event = self.events[number]
            fee[self.row_of[number]], slippage[self.row_of[number]] = float(event.taker_fee), float(event.slippage)

        # Of a symbol of which neither could say anything, features were incomplete.
        looked = np.isfinite(ours.expected) | (np.isfinite(theirs.expected) if theirs is not None else False)
        beside &= looked
        priced = looked & np.isfinite(self.bid) & np.isfinite(ours.bid_out)
        ends = np.full(len(self.times), ours.horizon)
        if theirs is not None:
            priced &= ~beside | np.isfinite(theirs.bid_out)
            ends = np.where(beside.any(axis=1), max(ours.horizon, theirs.horizon), ours.horizon)
        over = (self.times + ends * self.timeframe_ms <= self.times[-1])[:, None]
        chosen = priced & over
        close, series = np.nonzero(chosen)
        return LiveRows(
            venue=self.events[0].venue,
            mode=self.events[0].mode,
            timeframe_ms=self.timeframe_ms,
            symbols=self.symbols,
            series=series.astype(np.int64),
            close_ms=self.times[close],
            bid_in=self.bid[chosen],
            ask_in=self.ask[chosen],
            taker_fee=fee[chosen],
            slippage=slippage[chosen],
            ours=ours.take(chosen),
            theirs=None if theirs is None else theirs.take(chosen),
            beside=beside[chosen],
            pending=int((looked & ~over).sum()),
            unpriced=int((looked & over & ~priced).sum()),
            seen_ms=int(self.times[-1]),
        )

    def _said(self, digest: str) -> dict[int, ShadowOpinion]:
        """Return a challenger's opinions by event, one for each candle: the one that was written first."""
        said: dict[int, tuple[int, ShadowOpinion]] = {}
        for number, event in enumerate(self.events):
            for one in event.opinions:
                if one.role is Role.CHALLENGER and one.digest == digest:
                    said.setdefault(event.candle_close_ms, (number, one))
        return dict(said.values())

    def _opinions(self, said: dict[int, ShadowOpinion]) -> tuple[Opinions, Mask]:
        expected, probability, threshold = self._table(), self._table(), self._table()
        looked = np.zeros(expected.shape, np.bool_)
        newest = list(said.values())[-1]
        for number, one in said.items():
            self._fill(expected, number, [np.nan if v is None else v for v in one.expected_return])
            self._fill(probability, number, [np.nan if v is None else v for v in one.probability_up])
            row = self.row_of[number]
            looked[row, self.columns[number]] = True
            threshold[row] = one.threshold
        exits = np.searchsorted(self.times, self.times + newest.horizon * self.timeframe_ms)
        there = exits < len(self.times)
        exits = np.where(there, exits, 0)
        there &= self.times[exits] == self.times + newest.horizon * self.timeframe_ms
        bid_out, ask_out = (np.where(there[:, None], table[exits], np.nan) for table in (self.bid, self.ask))
        opinions = Opinions(
            newest.digest, newest.version, newest.horizon, expected, probability, threshold, bid_out, ask_out
        )
        return opinions, looked

    def _fill(self, table: Floats, number: int, values: Sequence[float]) -> None:
        """Put values into a row of a table, but where something was written before."""
        row, columns = self.row_of[number], self.columns[number]
        before = table[row, columns]
        table[row, columns] = np.where(np.isnan(before), values, before)

    def _table(self) -> Floats:
        return np.full((len(self.times), len(self.symbols)), np.nan)
