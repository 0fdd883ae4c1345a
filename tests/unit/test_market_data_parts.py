"""Parts of the market data facade by themselves: bursts, rows that are none, books that are none."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.candle import Candle, CandleBlock, Timeframe
from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import RetryableError, VenueDownError
from inference.exchange.candle_connections import ManyAtOnce, OneByOne, is_connection, watch_candles
from inference.exchange.venue_clock import TimeSample, VenueClock
from inference.feed.batches import BatchAssembler
from inference.feed.candle_stream import DEBOUNCE_SECONDS, CandleStream
from inference.feed.market_data import MarketData
from inference.feed.order_book import order_book
from inference.feed.pool import Openings

STEP = Timeframe.M1.milliseconds
BTC = "BTC/USDT:USDT"


def settled_clock() -> VenueClock:
    """Return a clock that knows its venue."""
    clock = VenueClock(accelerated=False)
    clock.add(TimeSample(sent=0.0, received=0.0, venue_ms=600_000))
    return clock


def market_data(**told) -> MarketData:
    """Return a facade that follows nothing yet."""
    venue, prices = SimpleNamespace(has={}), SimpleNamespace()
    return MarketData(venue, prices, timeframe=Timeframe.M1, clock=settled_clock(), monotonic=lambda: 0.0, **told)


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
        connection=ManyAtOnce(exchange, (BTC,), "1m", number=0),
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
    market = market_data()

    assert not market.is_following
    assert market.changes_left() == frozenset()
    assert market.figures() == {"asked": 0, "remembered": 0}
    with pytest.raises(RuntimeError, match="call `follow` first"):
        await market.run()


class Channels:
    """A client that has but one address for the market, at which each symbol is asked for by itself."""

    def __init__(self) -> None:
        self.markets: dict[str, object] | None = None
        self.urls = {"api": {"ws": {"public": "wss://h/ws/2", "private": "wss://p/ws/2"}}}
        self.asked: list[tuple[str, str]] = []
        self.news: dict[str, asyncio.Future[object]] = {}

    async def load_markets(self):
        """Take a moment, in which others come between."""
        await asyncio.sleep(0)
        self.markets = {}

    async def watch_ohlcv(self, symbol, _timeframe):
        """Note at which address it was asked, and wait."""
        self.asked.append((symbol, self.urls["api"]["ws"]["public"]))
        self.news[symbol] = asyncio.get_running_loop().create_future()
        return await self.news[symbol]


async def test_symbols_that_are_asked_for_one_by_one_share_the_connection_of_their_group():
    """News of one end the wait, what is waited for of the others goes on, and each is asked for once at a time."""
    client = Channels()
    groups = [OneByOne(client, [f"{n}a", f"{n}b"], "1m", number=n) for n in range(12)]
    waits = [asyncio.create_task(one.watch()) for one in groups]
    while len(client.news) < 24:  # noqa: ASYNC110 - what is waited for sets no event
        await asyncio.sleep(0)
    asked = dict(client.asked)
    for n in range(12):
        client.news[f"{n}b"].set_result([])
    told = await asyncio.gather(*waits)
    again = asyncio.create_task(groups[3].watch())
    while len(client.asked) < 25:  # noqa: ASYNC110 - what is waited for sets no event
        await asyncio.sleep(0)
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)

    assert asked == {f"{n}{one}": f"wss://h/ws/2#{n}" for n in range(12) for one in "ab"}
    assert told == [[f"{n}b"] for n in range(12)]
    assert client.asked[24:] == [("3b", "wss://h/ws/2#3")]
    assert client.news["3a"].cancelled()
    assert not client.news["4a"].cancelled()
    assert [groups[1].is_mine(url) for url in ("wss://h/ws/2#1", "wss://h/ws/2#11", "wss://h/ws/1")] == [
        True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("by_ccxt", [False, True], ids=["failed", "cancelled"])
async def test_a_connection_that_ends_ends_every_wait_for_it(by_ccxt):
    """Whether ccxt fails one of the waits or cancels it: the others go with it, and whoever waits is told."""
    client = Channels()
    group = OneByOne(client, ["a", "b"], "1m", number=0)
    wait = asyncio.create_task(group.watch())
    while len(client.news) < 2:  # noqa: ASYNC110 - what is waited for sets no event
        await asyncio.sleep(0)
    if by_ccxt:
        client.news["a"].cancel()
    else:
        client.news["a"].set_exception(ccxt.NetworkError("cut"))
    with pytest.raises(ccxt.NetworkError):
        await wait

    assert client.news["b"].cancelled()
    assert group._waits == {}


async def test_a_series_that_is_dead_in_its_connection_costs_one_opening():
    """Its connection is closed once: what the others waited for on it is no end of the one that follows."""
    client = Channels()
    waited: dict[str, list[asyncio.Future[None]]] = {"a": [], "b": []}

    async def watch_ohlcv(symbol, _timeframe):
        news = asyncio.get_running_loop().create_future()
        waited[symbol].append(news)
        client.clients.setdefault(client.urls["api"]["ws"]["public"], Closing(waited))
        await news

    client.watch_ohlcv, client.clients, client.ohlcvs = watch_ohlcv, {}, {}
    stream = CandleStream(
        client,
        ("a", "b"),
        number=0,
        connection=OneByOne(client, ("a", "b"), "1m", number=0),
        assembler=BatchAssembler(last_open_ms={"a": 0, "b": 0}, timeframe=Timeframe.M1),
        timeframe=Timeframe.M1,
        clock=settled_clock(),
        monotonic=lambda: 0.0,
    )
    running = asyncio.create_task(stream.run())
    async with asyncio.timeout(30):
        while not waited["b"]:  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0)
        stream._dead = "b"
        waited["a"][0].set_result(None)
        while len(waited["b"]) < 2:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert stream.reconnects == 1
    assert len(waited["b"]) == 2


class Closing:
    """A client of ccxt that fails, as it is closed, what is waited for on it."""

    def __init__(self, waited: dict[str, list[asyncio.Future[None]]]) -> None:
        self.waited = waited

    async def close(self) -> None:
        """Fail every wait."""
        for one in [news for news in (many[-1] for many in self.waited.values()) if not news.done()]:
            one.set_exception(ccxt.NetworkError("closed"))


@given(st.lists(st.floats(0.0, 30.0), max_size=60), st.integers(1, 5))
def test_no_more_connections_are_opened_in_a_minute_than_a_venue_lets(steps, most):
    """Whenever somebody asks, what was let through within any sixty seconds stays within the bound."""
    openings, now, opened = Openings(most), 0.0, []
    for step in steps:
        now += step
        opened.append(now + openings.wait_s(now))
    for first, later in zip(opened, opened[most:], strict=False):
        assert later - first >= 60.0 - 1e-6


def test_a_venue_that_does_not_count_makes_nobody_wait():
    """However many are opened at once."""
    openings = Openings()
    assert [openings.wait_s(0.0) for _ in range(99)] == [0.0] * 99


def test_a_quiet_market_is_not_opened_anew_for_ever():
    """
    Where candles are told only when somebody trades, each opening that brings but a start doubles the patience.

    The first silence after a life is still noticed within seconds, and a venue that is never quiet is given no more.
    """
    for may_be_quiet, wanted in ((True, [6.0, 12.0, 24.0, 30.0, 30.0]), (False, [6.0] * 5)):
        now, seen = [0.0], []
        stream = stream_of(Bursts([]), may_be_quiet=may_be_quiet)
        stream._monotonic = lambda now=now: now[0]
        for _ in range(5):
            seen.append(stream.silence_limit())
            now[0] += stream.silence_limit()
            stream._note_silence()
            stream._opened = now[0]
            stream._read_caches()
        assert seen == wanted
        now[0] += 7.0
        stream._read_caches()
        stream._note_silence()
        assert stream.silence_limit() == 6.0


def test_where_a_quiet_market_s_stream_begins_is_no_news_of_its_price():
    """What was traded at who knows when is told once somebody trades again, on each connection anew."""
    prices: list[float] = []
    exchange = Bursts([[STEP, 1.0, 2.0, 1.0, 1.5, 3.0]])
    stream = stream_of(exchange, may_be_quiet=True, on_price=lambda _, price: prices.append(price))
    stream._read_caches()
    began = list(prices)
    rows = exchange.ohlcvs[BTC]["1m"].hashmap
    rows[STEP] = [STEP, 1.0, 2.0, 1.0, 1.6, 4.0]
    stream._read_caches()
    stream._distrust()
    rows[STEP] = [STEP, 1.0, 2.0, 1.0, 1.7, 9.0]
    stream._read_caches()

    assert (began, prices) == ([], [1.6])


@pytest.mark.parametrize(
    ("price", "is_heard"),
    [(101.0, True), (1.01, True), (9_900.0, True), (0.99, False), (10_100.0, False), (0.0, False), (-1.0, False),
     (float("nan"), False), (float("inf"), False)],
)  # fmt: skip
@pytest.mark.parametrize("knows_the_past", [True, False])
def test_a_price_that_no_market_has_made_is_not_heard_while_its_candle_runs(price, is_heard, knows_the_past):
    """Beyond a hundred times the last close, or no price at all: it closes, stops and fills nothing."""
    heard: list[Candle] = []
    market = market_data(on_running=lambda _, candle: heard.append(candle))
    if knows_the_past:
        market._recent.add(BTC, CandleBlock.from_rows([[0, 100.0, 101.0, 99.0, 100.0, 1.0]]))
        # Refused itself, it is nothing to compare with.
        market._recent.add(BTC, CandleBlock.from_rows([[STEP, 100.0, 1e9, 99.0, 1e9, 1.0]]))
    candle = Candle(2 * STEP, 100.0, max(price, 100.0), min(price, 100.0), 100.0, 1.0)
    market._note_price(BTC, price)
    market._hear_running(BTC, candle)

    expected = is_heard or (not knows_the_past and 0 < price < float("inf"))
    assert market.traded(BTC) == (Decimal(str(price)) if expected else None)
    assert heard == ([candle] if expected else [])


def test_a_row_without_a_time_is_none():
    """An empty snapshot, of which ccxt makes a row of nothing, ends nothing and closes nothing."""
    stream = stream_of(Bursts([[None] * 6, [STEP, 1.0, 1.0, 1.0, 1.0, 1.0]]))
    stream._read_caches()

    assert stream._newest == {BTC: STEP}


async def test_no_connection_is_opened_anew_while_the_venue_wants_to_hear_nothing():
    """A ban is waited out first: it would grow with each connection that is tried."""
    closed = [0.3]
    stream = stream_of(Bursts([]), closed_seconds=lambda: closed[0])
    loop = asyncio.get_running_loop()
    began = loop.time()
    await stream._reconnect("cut")

    assert loop.time() - began >= 0.3
