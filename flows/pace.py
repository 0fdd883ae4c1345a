"""How far many series have come, how fast, and how long the rest will take."""

from __future__ import annotations

from dataclasses import dataclass, field

from feature_store.absences import Span
from feature_store.candle import Series

_FEW_S = 1.0
"""Before this, a rate says nothing."""


@dataclass(slots=True)
class Pace:
    """
    The progress of symbols over one stretch of time each; moments are seconds of a clock that never steps back.

    What was there before counts as done, but not for the time that is left: that follows from what this run has done.
    """

    series: int
    span: Span
    started_s: float
    candles: int = 0
    unit: str = "candles"
    _reached: dict[str, float] = field(default_factory=dict)
    _skipped: dict[str, float] = field(default_factory=dict)

    def page(self, series: Series, candles: int, reached_ms: int) -> None:
        """Note a page: how many candles it brought, and up to when the series is there now."""
        length = max(1, self.span.end_ms - self.span.start_ms)
        step = series.timeframe.milliseconds
        before = (reached_ms - (candles - 1) * step - self.span.start_ms) / length
        self._skipped.setdefault(series.symbol, min(max(before, 0.0), 1.0))
        self.moved(series.symbol, candles, (reached_ms + step - self.span.start_ms) / length)

    def moved(self, name: str, rows: int, share: float) -> None:
        """Note that rows came, and which share of its time is there now; the first share told took no time."""
        reached = min(max(share, 0.0), 1.0)
        self._skipped.setdefault(name, reached)
        self._reached[name] = reached
        self.candles += rows

    def done(self, series: Series) -> None:
        """Note that a series needs no more."""
        self.finished(series.symbol)

    def finished(self, name: str) -> None:
        """Note that what has this name needs no more."""
        self.moved(name, 0, 1.0)

    @property
    def fraction(self) -> float:
        """The part of the whole that is there."""
        return sum(self._reached.values()) / max(1, self.series)

    def text(self, now_s: float) -> str:
        """Say how many candles or rows came, how fast, and how long it will take at this pace."""
        elapsed_s = now_s - self.started_s
        if elapsed_s < _FEW_S or not self.candles:
            return f"{self.candles:,} {self.unit}"
        fetched = sum(self._reached[one] - self._skipped[one] for one in self._reached)
        rest = max(0.0, self.series - sum(self._reached.values()))
        left = f", {duration(elapsed_s * rest / fetched)} left" if fetched > 0 else ""
        return f"{self.candles:,} {self.unit}, {self.candles / elapsed_s:,.0f} a second{left}"


def duration(seconds: float) -> str:
    """Write a duration as people say it: `8 s`, `2 min 5 s`, `1 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
