"""The candles of a series and the engine that goes on to them, part by part, for whoever reads a whole lake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from feature_store.features.engine import FeatureEngine

if TYPE_CHECKING:
    from feature_store.candle import CandleBlock, Series
    from feature_store.lake import CandleLake
    from feature_store.partitions import Rows

    Warmed = Callable[[Series, CandleBlock], tuple[FeatureEngine, CandleBlock]]

PART = 65_536
"""Candles that are computed at a time: a long series needs no more memory than these."""


def begun(series: Series, block: CandleBlock) -> tuple[FeatureEngine, CandleBlock]:
    """Return an engine that has seen nothing: the stored candles are all there were."""
    return FeatureEngine(series.timeframe), block


def engine_and_rows(lake: CandleLake, series: Series, warmed: Warmed) -> tuple[FeatureEngine, Rows]:
    """
    Return an engine and the candles that follow what it remembers, each in its newest revision.

    Args:
        lake: Where the candles are.
        series: Whose.
        warmed: Gives the engine that remembers what retention removed before some candles, and those that follow it
            (FeatureStore.warmed); or `begun`.

    Raises:
        CorruptFileError: A partition of the lake is damaged.
    """
    rows = lake.read_rows(series).latest()
    engine, block = warmed(series, rows.block)
    return engine, rows.part(len(rows) - len(block), len(rows))


def parts_of(rows: Rows) -> Iterator[Rows]:
    """Cut rows into parts of at most PART; there is one of no rows where there are none."""
    for begin in range(0, max(len(rows), 1), PART):
        yield rows.part(begin, min(begin + PART, len(rows)))
