"""Parts of the market data facade by themselves: bursts, rows that are none, books that are none."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.candle import Timeframe
from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import RetryableError, VenueDownError
from inference.exchange.candle_connections import is_connection, watch_candles
from inference.exchange.venue_clock import TimeSample, VenueClock
from inference.feed.batches import BatchAssembler
from inference.feed.candle_stream import DEBOUNCE_SECONDS, CandleStream
from inference.feed.market_data import MarketData
from inference.feed.order_book import order_book

STEP = Timeframe.M1.milliseconds
BTC = "BTC/USDT:USDT"


def settled_clock() -> VenueClock:
    """Return a clock that knows its venue."""
    clock = VenueClock(accelerated=False)
    clock.add(TimeSample(sent=0.0, received=0.0, venue_ms=600_000))
    return clock


class Bursts:
    """A client whose stream has news at every wake-up, and that counts how often it is asked."""

    def __init__(self, rows) -> None:
        self.markets: dict[str, object] = {}
        self.options: dict[str, dict[str, str]] = {}
        self.clients: dict[str, object] = {}
        self.asked = 0
        cache = SimpleNamespace(hashmap={row[0]: row for row in rows}, getLimit=lambda *_: 0)
        self.ohlcvs = {BTC: {"1m": cache}}

    async def watch_ohlcv_for_symbols(self, _wanted):
        """Have news at once."""
        self.asked += 1
        return {}


def stream_of(exchange, **told):
    """Return a stream of one symbol that was never run."""
    return CandleStream(
        exchange,
        (BTC,),
        number=0,
        assembler=BatchAssembler(last_open_ms={BTC: 0}, timeframe=Timeframe.M1),
        timeframe=Timeframe.M1,
        clock=settled_clock(),
        monotonic=lambda: 0.0,
        **told,
    )


async def test_a_burst_of_updates_is_read_in_portions():
    """However fast news come, caches are read no more often than the debounce lets, and no price is told twice."""
    exchange, prices = Bursts([[STEP, 1.0, 2.0, 1.0, 1.5, 3.0]]), []
    stream = stream_of(exchange, on_price=lambda symbol, price: prices.append((symbol, price)))
    loop = asyncio.get_running_loop()
    began = loop.time()
    running = asyncio.create_task(stream.run())
    while exchange.asked < 6:  # noqa: ASYNC110 - what is waited for sets no event
        await asyncio.sleep(0)
    took = loop.time() - began
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert took >= 5 * DEBOUNCE_SECONDS * 0.9
    assert prices == [(BTC, 1.5)]


@pytest.mark.parametrize("row", [[STEP, None, None, None, None, None], [STEP, 1.0, 1.0, 1.0, 1.0, None]])
def test_a_row_without_numbers_tells_no_price(row):
    """What the venue left out is not guessed, and ends nothing."""
    prices: list[float] = []
    stream = stream_of(Bursts([row]), on_price=lambda _, price: prices.append(price))
    stream._read_caches()

    assert prices == []


async def test_each_group_asks_over_its_own_connection():
    """The number is set in the step in which it is read, though many groups begin at once."""
    seen = {}

    class Client:
        markets, options = None, {}

        async def load_markets(self):
            """Take a moment, in which others come between."""
            await asyncio.sleep(0)
            self.markets = {}

        async def watch_ohlcv_for_symbols(self, wanted):
            """Note over which connection it was asked."""
            seen[wanted[0][0]] = self.options["streamBySubscriptionsHash"]["multipleOHLCV"]

    exchange = Client()
    await asyncio.gather(*(watch_candles(exchange, [f"S{n}"], "1m", number=n) for n in range(12)))

    assert seen == {f"S{n}": str(n) for n in range(12)}


@pytest.mark.parametrize(
    ("url", "number", "is_it"),
    [
        ("ws://h/market/ws/1", 1, True),
        ("ws://h/market/ws/11", 1, False),
        ("ws://h/private/ws?listenKey=a/1", 1, False),
        ("authentication/1", 1, False),
    ],
)
def test_a_connection_is_known_by_its_number(url, number, is_it):
    """The account's stream is never taken for one of the market's."""
    assert is_connection(url, number) is is_it


class Books:
    """A venue with one book."""

    def __init__(self, answer) -> None:
        self.answer = answer

    async def fetch_order_book(self, _symbol, _limit, /):
        """Answer, or fail."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"bids": []},
        {"bids": None, "asks": []},
        {"bids": [[1]], "asks": []},
        {"bids": [["x", 1]], "asks": []},
        {"bids": [[float("nan"), 1]], "asks": []},
        {"bids": [[1.0, 0.0]], "asks": []},
        {"bids": [[1.0, 1.0], [2.0, 1.0]], "asks": []},
        {"bids": [], "asks": [[2.0, 1.0], [1.0, 1.0]]},
        {"bids": [[2.0, 1.0]], "asks": [[1.5, 1.0]]},
        {"bids": [[None, 1.0]], "asks": []},
    ],
)
async def test_a_book_that_is_none_is_not_believed(answer):
    """Missing sides, numbers that are none, prices out of order or crossed: an error, never half a book."""
    with pytest.raises(RetryableError, match="book of BTC"):
        await order_book(Books(answer), BTC, 5)


async def test_a_book_that_could_not_be_asked_for_is_an_error_of_ours():
    """What ccxt raises is told by what to do about it."""
    with pytest.raises(VenueDownError):
        await order_book(Books(ccxt.ExchangeNotAvailable("binanceusdm GET https://h 502")), BTC, 5)


@given(
    st.lists(st.integers(1, 10**6), min_size=2, max_size=40, unique=True),
    st.integers(1, 50),
)
async def test_a_book_is_read_to_the_digit_and_no_deeper_than_asked(ticks, levels):
    """Prices in order on both sides, as many as were asked for, as Decimal."""
    prices = sorted(ticks)
    half = len(prices) // 2
    raw = {
        "bids": [[tick / 100, 1.5] for tick in reversed(prices[:half])],
        "asks": [[tick / 100, 2.5] for tick in prices[half:]],
    }
    book = await order_book(Books(raw), BTC, levels)

    assert [price for price, _ in book.bids] == [Decimal(str(row[0])) for row in raw["bids"][:levels]]
    assert [price for price, _ in book.asks] == [Decimal(str(row[0])) for row in raw["asks"][:levels]]
    assert book.first(1).asks == book.asks[:1]


async def test_nothing_is_followed_before_it_was_said_what():
    """A facade that follows nothing answers what it can, and says what is missing."""
    market = MarketData(
        SimpleNamespace(has={}),
        SimpleNamespace(),
        timeframe=Timeframe.M1,
        clock=settled_clock(),
        monotonic=lambda: 0.0,
    )

    assert not market.is_following
    assert market.changes_left() == frozenset()
    assert market.figures() == {"asked": 0, "remembered": 0}
    with pytest.raises(RuntimeError, match="call `follow` first"):
        await market.run()
