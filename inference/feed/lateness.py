"""How late closed candles come: the venue's time at which we had each, less its close."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from feature_store.candle import Timeframe

_WINDOW = 2_048


class Lateness:
    """
    Each candle's lateness once it is handed out, and its spread over the newest few thousand; pure.

    A candle that came a whole candle late or more was missed and brought afterwards: it is counted apart, so that an
    outage of an hour does not stand for how late candles usually are.
    """

    def __init__(self, timeframe: Timeframe) -> None:
        self.backfilled = 0
        self._step_ms = timeframe.milliseconds
        self._came: dict[str, dict[int, int]] = {}
        self._late_ms: deque[int] = deque(maxlen=_WINDOW)

    def came(self, symbol: str, open_time_ms: int, *, now_ms: int) -> None:
        """Take note that a closed candle was had at `now_ms` of the venue; the first time counts."""
        self._came.setdefault(symbol, {}).setdefault(open_time_ms, now_ms)

    def handed_out(self, symbol: str, open_times_ms: Sequence[int], *, now_ms: int) -> int:
        """Count candles of a series that are handed out, oldest first; return how late the newest one came."""
        came, late_ms = self._came.pop(symbol, {}), 0
        for open_time_ms in open_times_ms:
            # Our reckoning of the venue's time may be a little behind.
            late_ms = max(0, came.get(open_time_ms, now_ms) - open_time_ms - self._step_ms)
            if late_ms >= self._step_ms:
                self.backfilled += 1
            else:
                self._late_ms.append(late_ms)
        waiting = {time: at for time, at in came.items() if time > open_times_ms[-1]}
        if waiting:
            self._came[symbol] = waiting
        return late_ms

    def figures(self) -> Mapping[str, float]:
        """Return what the status shows, in milliseconds of the venue's time; no spread before a candle came."""
        told: dict[str, float] = {"backfilled": self.backfilled}
        if self._late_ms:
            ordered = sorted(self._late_ms)
            last = len(ordered) - 1
            told |= {"late_ms_p50": ordered[last // 2], "late_ms_p99": ordered[int(0.99 * last)]}
            told["late_ms_worst"] = ordered[last]
        return told
