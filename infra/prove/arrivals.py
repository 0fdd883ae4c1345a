"""How candles arrive where things go wrong: in chunks, twice, late, wrong at first, with stretches missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import HIGH, LOW, VOLUME, CandleBlock

if TYPE_CHECKING:
    import numpy.typing as npt

    Rows = npt.NDArray[np.int64]

SIZES = (1, 1, 1, 2, 3, 12, 63, 64, 65, 255, 256, 257, 700)
_LATE_STRETCHES = (1, 1, 2, 63, 64, 65, 130)  # Around the 64 candles that a gap may miss before a series begins anew.


class Kind(StrEnum):
    """What a delivery is."""

    NEXT = "next"
    DUPLICATE = "duplicate"
    LATE = "late"
    CORRECTED = "corrected"


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """Candles as they arrive, and, where they change what was known, what that was."""

    kind: Kind
    block: CandleBlock
    known_before: CandleBlock | None = None


@dataclass(slots=True)
class Arrivals:
    """
    The deliveries of one series, drawn from a seed, and what is known after each.

    In the end everything has arrived and every wrong candle was corrected: what is known is the truth. Nothing is late,
    or wrong, for longer than `patience_ms` on the clock of the candles.
    """

    truth: CandleBlock
    rng: np.random.Generator
    mishaps: int
    patience_ms: int | None = None
    _at: int = 0
    _held_back: list[Rows] = field(default_factory=list)
    _wrong: list[int] = field(default_factory=list)
    _arrived: npt.NDArray[np.bool_] = field(init=False)
    _values: npt.NDArray[np.float64] = field(init=False)
    _to_hold_back: npt.NDArray[np.bool_] = field(init=False)
    _to_spoil: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.truth)
        self._arrived = np.zeros(count, np.bool_)
        self._values = self.truth.values.copy()
        self._to_hold_back, self._to_spoil = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        for place in self.rng.integers(0, count, self.mishaps).tolist():
            self._to_hold_back[place : place + int(self.rng.choice(_LATE_STRETCHES))] = True
        self._to_spoil[self.rng.integers(0, count, self.mishaps)] = True

    @property
    def is_over(self) -> bool:
        """Whether everything has arrived as it truly was."""
        return self._at == len(self.truth) and not self._held_back and not self._wrong

    @property
    def known(self) -> CandleBlock:
        """The candles as a lake would hold them now."""
        return CandleBlock(self.truth.open_time_ms[self._arrived], self._values[self._arrived])

    def next(self) -> Delivery:
        """Return what arrives next."""
        at_end = self._at == len(self.truth)
        chance = self.rng.random()
        if self._held_back and (at_end or chance < 0.05):
            return self._deliver(Kind.LATE, self._held_back.pop(0))
        if self._wrong and (at_end or chance < 0.10):
            return self._deliver(Kind.CORRECTED, np.array([self._wrong.pop(0)]))
        if self._arrived.any() and chance > 0.85:
            return self._again()
        rows = self._next_rows()
        if len(rows) == 0:
            return self._overdue()
        return self._deliver(Kind.NEXT, self._told(rows))

    def _next_rows(self) -> Rows:
        """Return the rows that are next; none where something else has waited for long enough."""
        rows = np.arange(self._at, min(self._at + int(self.rng.choice(SIZES)), len(self.truth)))
        if self.patience_ms is None:
            return rows
        times = self.truth.open_time_ms
        oddly = rows[self._to_hold_back[rows] | self._to_spoil[rows]].tolist()
        waiting = [*(int(part[0]) for part in self._held_back), *self._wrong, *oddly]
        return rows[times[rows] < min(times[waiting].tolist(), default=times[-1] + 1) + self.patience_ms]

    def _overdue(self) -> Delivery:
        first_late = int(self._held_back[0][0]) if self._held_back else len(self.truth)
        if self._wrong and self._wrong[0] < first_late:
            return self._deliver(Kind.CORRECTED, np.array([self._wrong.pop(0)]))
        return self._deliver(Kind.LATE, self._held_back.pop(0))

    def _told(self, rows: Rows) -> Rows:
        """Return those of the next rows that come now, some of them wrong."""
        self._at += len(rows)
        late = rows[self._to_hold_back[rows]]
        if len(late):
            self._held_back.append(late)
        now = rows[~self._to_hold_back[rows]]
        spoilt = now[self._to_spoil[now]]
        for row in spoilt.tolist():
            self._values[row] = _as_if_unfinished(self.truth.values[row])
            self._wrong.append(row)
        return now

    def _again(self) -> Delivery:
        """Return the newest known candles once more, as a page that overlaps the one before."""
        rows = np.flatnonzero(self._arrived)[-int(self.rng.choice(SIZES)) :]
        return self._deliver(Kind.DUPLICATE, rows)

    def _deliver(self, kind: Kind, rows: Rows) -> Delivery:
        changes = kind in (Kind.LATE, Kind.CORRECTED)
        before = self.known if changes else None
        if changes:
            self._values[rows] = self.truth.values[rows]
        self._arrived[rows] = True
        return Delivery(kind, CandleBlock(self.truth.open_time_ms[rows], self._values[rows]), before)


def _as_if_unfinished(candle: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a candle as a venue might first have told it: narrower by a tenth of its range, with less volume."""
    open_, _, _, close, _ = candle
    other = candle.copy()
    other[HIGH] = max(open_, close)
    other[LOW] = min(open_, close)
    other[VOLUME] = candle[VOLUME] * 0.75 + 1.0
    return other
