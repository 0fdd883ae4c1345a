"""A connection for each group of candle subscriptions; ccxt by itself puts all of them on one, however many."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from feature_store.venue.ccxt_package import ccxt
from inference.exchange.capabilities import Capabilities, Stream
from inference.exchange.watching import is_private

# The name under which ccxt notes, among a client's options, which connection carries such subscriptions.
_NOTES, _NAME = "streamBySubscriptionsHash", "multipleOHLCV"


class Connection(Protocol):
    """How the candles of one group of symbols are waited for, over a connection of their own."""

    async def watch(self) -> object:
        """Wait for news of any of them."""
        ...

    def is_mine(self, url: str) -> bool:
        """Tell whether a client of ccxt is this connection."""
        ...

    async def drop(self) -> None:
        """Give up on what is waited for between two calls: the connection is about to be closed."""
        ...


class ManyAtOnce:
    """One request for all of them, where a venue takes such; ccxt ends the address with the connection's number."""

    def __init__(self, exchange: Any, symbols: Sequence[str], timeframe: str, *, number: int) -> None:
        self._exchange = exchange
        self._symbols = symbols
        self._timeframe = timeframe
        self._number = number

    async def watch(self) -> object:
        """Wait for news of any of them."""
        return await watch_candles(self._exchange, self._symbols, self._timeframe, number=self._number)

    def is_mine(self, url: str) -> bool:
        """Tell whether a client of ccxt is this connection."""
        return is_connection(url, self._number)

    async def drop(self) -> None:
        """Do nothing: between two calls nothing is waited for."""


class OneByOne:
    """
    A request for each of them, as Bitfinex wants it.

    ccxt knows a connection by its address and has but one for the market; a fragment, which is never sent, makes
    several addresses of one.
    """

    def __init__(self, exchange: Any, symbols: Sequence[str], timeframe: str, *, number: int) -> None:
        self._exchange = exchange
        self._symbols = symbols
        self._timeframe = timeframe
        self._mark = f"#{number}"
        self._waits: dict[str, asyncio.Task[object]] = {}

    async def watch(self) -> object:
        """
        Wait for news of any of them; what is waited for of the others goes on.

        Raises:
            NetworkError: The connection ended; all that was waited for has.
        """
        if self._exchange.markets is None:
            await self._exchange.load_markets()
        for symbol in self._symbols:
            if symbol not in self._waits:
                self._waits[symbol] = asyncio.ensure_future(self._watch_one(symbol))
        try:
            await asyncio.wait(self._waits.values(), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.drop()
            raise
        told = [symbol for symbol, task in self._waits.items() if task.done()]
        done = [self._waits.pop(symbol) for symbol in told]
        # Whether one failed or ccxt cancelled it: what they all waited for is gone.
        error = next((one.exception() for one in done if not one.cancelled() and one.exception()), None)
        if error is None and any(one.cancelled() for one in done):
            error = ccxt.NetworkError("The connection was closed")
        if error is not None:
            await self.drop()
            raise error
        return told

    def is_mine(self, url: str) -> bool:
        """Tell whether a client of ccxt is this connection."""
        return not is_private(url) and url.endswith(self._mark)

    async def drop(self) -> None:
        """Give up on what is still waited for of the others."""
        waits = list(self._waits.values())
        self._waits.clear()
        for one in waits:
            one.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def _watch_one(self, symbol: str) -> object:
        address = self._exchange.urls["api"]["ws"]
        # From here to where ccxt reads it nothing is awaited, so that no other group comes between.
        address["public"] = address["public"].partition("#")[0] + self._mark
        news: object = await self._exchange.watch_ohlcv(symbol, self._timeframe)
        return news


def kind_of_connection(exchange: Any, venue: Capabilities) -> type[ManyAtOnce | OneByOne] | None:
    """Return how candles of many symbols are followed at a venue; None where its client cannot follow them."""
    if Stream.CANDLES_OF_MANY in venue.streams and exchange.has.get("watchOHLCVForSymbols"):
        return ManyAtOnce
    return OneByOne if Stream.CANDLES in venue.streams and exchange.has.get("watchOHLCV") else None


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
