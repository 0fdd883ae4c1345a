"""What a batch of closed candles says to the exits of what is open."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from feature_store.candle import CLOSE, Timeframe
from inference.domain.exit_state import CandleClosed, Priced, Seen
from inference.feed.batches import CandleBatch


def seen_closes(batch: CandleBatch, symbols: Iterable[str], *, timeframe: Timeframe) -> Mapping[str, tuple[Seen, ...]]:
    """
    Return for each symbol the closes that became known, oldest first, and the newest once more as a price.

    A symbol whose newest candle is not there hears that time has passed; its candle comes with a later batch. Prices
    that are none, and those of candles that no market has made, are left out, as candles that are missing.
    """
    return {symbol: tuple(_seen(batch, symbol, timeframe.milliseconds)) for symbol in symbols}


def _seen(batch: CandleBatch, symbol: str, timeframe_ms: int) -> Iterator[Seen]:
    newest_ms, price = 0, None
    block, refused = batch.blocks.get(symbol), batch.refused.get(symbol, frozenset())
    for opened_ms, close in [] if block is None else zip(block.open_time_ms.tolist(), block.values[:, CLOSE].tolist(),
                                                         strict=True):  # fmt: skip
        newest_ms = opened_ms + timeframe_ms
        is_price = math.isfinite(close) and close > 0 and opened_ms not in refused
        price = Decimal(str(close)) if is_price else None
        yield CandleClosed(close_ms=newest_ms, close=price)
    if newest_ms < batch.close_time_ms:
        yield CandleClosed(close_ms=batch.close_time_ms, close=None)
    if price is not None:
        yield Priced(at_ms=batch.close_time_ms, price=price)
