"""Closed candles by REST, in pages, for gaps and for the start."""

from __future__ import annotations

from typing import Any, Protocol

from feature_store.candle import CandleBlock, Timeframe, validate
from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import translate

_PAGE = 499  # Below 500 rows the venue charges the smallest weight.
_LONG_PAGE = 1000


class CandleReader(Protocol):
    """The one method of a ccxt exchange that history needs."""

    async def fetch_ohlcv(  # noqa: D102
        self, symbol: str, timeframe: str, since: int | None, limit: int | None, /
    ) -> list[list[Any]]: ...


async def closed_candles(
    reader: CandleReader, symbol: str, timeframe: Timeframe, *, after_ms: int, closed_by_ms: int
) -> CandleBlock:
    """
    Return the candles that open after `after_ms` and have closed at `closed_by_ms`, oldest first.

    Raises:
        VenueError: The venue could not be asked.
        BadInputError: It answered with candles that no market could have made.
    """
    blocks: list[CandleBlock] = []
    since = timeframe.floor_ms(after_ms) + timeframe.milliseconds
    last_open = timeframe.last_closed_open_ms(closed_by_ms)
    while since <= last_open:
        wanted = (last_open - since) // timeframe.milliseconds + 1
        limit = min(max(wanted, 1), _PAGE if wanted <= _PAGE else _LONG_PAGE)
        try:
            rows = await reader.fetch_ohlcv(symbol, timeframe.value, since, limit)
        except ccxt.BaseError as error:
            raise translate(error, exchange=reader) from error
        block = CandleBlock.from_rows(rows)
        block = validate(block, timeframe).since(since).until(last_open + 1)
        if len(block) == 0:
            break
        blocks.append(block)
        since = int(block.open_time_ms[-1]) + timeframe.milliseconds
    return CandleBlock.empty().concat(*blocks) if blocks else CandleBlock.empty()
