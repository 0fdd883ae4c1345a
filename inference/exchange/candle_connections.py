"""A connection for each group of candle subscriptions; ccxt by itself puts all of them on one, however many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inference.exchange.watching import is_private

# The name under which ccxt notes, among a client's options, which connection carries such subscriptions.
_NOTES, _NAME = "streamBySubscriptionsHash", "multipleOHLCV"


async def watch_candles(exchange: Any, symbols: Sequence[str], timeframe: str, *, number: int) -> object:
    """Wait for news of the candles of some symbols, over the connection of that number."""
    if exchange.markets is None:
        await exchange.load_markets()
    # From here to where ccxt reads it nothing is awaited, so that no other group comes between.
    exchange.options.setdefault(_NOTES, {})[_NAME] = str(number)
    news: object = await exchange.watch_ohlcv_for_symbols([[symbol, timeframe] for symbol in symbols])
    return news


def is_connection(url: str, number: int) -> bool:
    """Tell whether a client is the connection of that number."""
    return not is_private(url) and url.endswith(f"/{number}")
