"""A candle lake as it could be read at a moment of the past, or if nothing had ever come late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from feature_store.lake import CandleLake
from feature_store.partitions import Rows, month_of, read_partition
from feature_store.storage import ObjectPlace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feature_store.candle import Series


class PastLake(CandleLake):
    """
    What of a lake could be known at a moment, to be read: no candle, series or correction that arrived later.

    Args:
        lake: The lake of today.
        moment_ms: What became available after this does not count.
    """

    def __init__(self, lake: CandleLake, moment_ms: int) -> None:
        super().__init__(lake.root, lake.place if isinstance(lake.place, ObjectPlace) else None)
        self.moment_ms = moment_ms

    def read_rows(self, series: Series, start_ms: int | None = None, end_ms: int | None = None) -> Rows:
        """Return every revision known then of the candles that open in `[start_ms, end_ms)`."""
        # Nothing is available before it opens.
        end_ms = self.moment_ms if end_ms is None else min(end_ms, self.moment_ms)
        return super().read_rows(series, start_ms, end_ms).until(self.moment_ms)

    def last_open_time_ms(self, series: Series) -> int | None:
        """Return the open time of the newest candle known then, or None."""
        return next((rows.block.last_open_time_ms for rows in self._months(series, newest_first=True)), None)

    def first_open_time_ms(self, series: Series) -> int | None:
        """Return the open time of the oldest candle known then, or None."""
        return next((rows.block.first_open_time_ms for rows in self._months(series, newest_first=False)), None)

    def series(self) -> list[Series]:
        """Return the series of which a candle was known then, in order."""
        return [one for one in super().series() if self.first_open_time_ms(one) is not None]

    def _months(self, series: Series, *, newest_first: bool) -> Iterator[Rows]:
        paths = [path for path in self.paths(series) if path.stem <= month_of(self.moment_ms)]
        for path in reversed(paths) if newest_first else paths:
            rows = read_partition(path).until(self.moment_ms)
            if len(rows):
                yield rows


class PromptLake(CandleLake):
    """
    A lake as if every candle, and every correction, had arrived as the candle closed, to be read.

    What is made of it otherwise than of the lake itself heeds when things arrive.
    """

    def __init__(self, lake: CandleLake) -> None:
        super().__init__(lake.root, lake.place if isinstance(lake.place, ObjectPlace) else None)
        self._lake = lake

    def read_rows(self, series: Series, start_ms: int | None = None, end_ms: int | None = None) -> Rows:
        """Return every revision of the candles that open in `[start_ms, end_ms)`, none later than their close."""
        rows = self._lake.read_rows(series, start_ms, end_ms)
        close_ms = rows.block.open_time_ms + series.timeframe.milliseconds
        return Rows(rows.block, np.minimum(rows.available_at_ms, close_ms), rows.revision)

    def last_open_time_ms(self, series: Series) -> int | None:
        """Return the open time of the newest candle, or None."""
        return self._lake.last_open_time_ms(series)

    def first_open_time_ms(self, series: Series) -> int | None:
        """Return the open time of the oldest candle, or None."""
        return self._lake.first_open_time_ms(series)

    def series(self) -> list[Series]:
        """Return all series, in order."""
        return self._lake.series()
