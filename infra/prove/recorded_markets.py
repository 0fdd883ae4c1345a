"""Recorded candles to prove features on: the series of MARKET_DATA_DIR, where it is set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import CandleBlock, Series, Timeframe, broken_rows
from feature_store.errors import BadInputError
from feature_store.sources.recorded import read_file
from infra.prove.markets import without

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER_VARIABLE = "MARKET_DATA_DIR"


def recorded_series(limit: int | None = None, per_file: int | None = None) -> Iterator[tuple[Series, CandleBlock]]:
    """
    Yield the series of MARKET_DATA_DIR, file by file; none where it is not set.

    Candles that no market could have made are left out, as the lake leaves them out. `limit` keeps the last candles of
    each series, `per_file` the first series of each file. Files that hold no candles are passed over.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return
    for path in sorted(one for one in Path(folder).iterdir() if one.suffix in {".parquet", ".csv"}):
        try:
            for number, (series, block) in enumerate(read_file(path)):
                if per_file is not None and number >= per_file:
                    break
                named = Series(series.venue, f"{series.symbol} of {path.name}", series.timeframe)
                yield named, sound(block, series.timeframe)[-(limit or len(block)) :]
        except BadInputError:
            continue  # Trades, quotes, funding: not candles.


def sound(block: CandleBlock, timeframe: Timeframe) -> CandleBlock:
    """Return a block without candles that no market could have made, or that lie off the timeframe's grid."""
    times = block.open_time_ms
    rises = np.diff(times, prepend=times[:1] - 1) > 0
    unfit = broken_rows(block) | ~rises | (times % timeframe.milliseconds != 0)
    return without(block, np.flatnonzero(unfit)) if unfit.any() else block


def what_was_used(real: int) -> str:
    """Say in a proof's details which candles it ran on."""
    if real:
        return f"synthetic candles, and {real} recorded series of {FOLDER_VARIABLE}"
    return f"synthetic candles only: {FOLDER_VARIABLE} names no folder with recorded candles"
