"""What the journal, and with it the event bus, is told of candles that closed: once for all symbols, not once each."""

from __future__ import annotations

import json

import numpy as np

from inference.domain.events import Noted
from inference.feed.batches import CandleBatch

CANDLES_CLOSED = "market.candles_closed"


def candles_closed(batch: CandleBatch, timeframe: str) -> Noted:
    """
    Return the event of a batch: whose candles closed, how late the last of them came, who is late, what filled a gap.

    `candles` are the newest of each symbol as it came (open time in UTC ms, open, high, low, close, volume), as JSON:
    with those a hundred symbols are ten kilobytes, where the decision that follows is a hundred. What filled a gap is
    in the lake and at the venue.
    """
    filled = {symbol: len(block) - 1 for symbol, block in batch.blocks.items() if len(block) > 1}
    detail = {
        "close_time_ms": str(batch.close_time_ms),
        "timeframe": timeframe,
        "symbols": ",".join(batch.blocks),
        "late_ms": str(max(batch.late_ms.values(), default=0)),
    }
    newest = {
        symbol: [int(block.open_time_ms[-1]), *block.values[-1].tolist()]
        for symbol, block in batch.blocks.items()
        if len(block) and np.isfinite(block.values[-1]).all()
    }
    if newest:
        detail["candles"] = json.dumps(newest, separators=(",", ":"))
    if batch.late:
        detail["late"] = ",".join(batch.late)
    if filled:
        detail["filled"] = ",".join(f"{symbol}={count}" for symbol, count in filled.items())
    return Noted(event_type=CANDLES_CLOSED, detail=detail)
