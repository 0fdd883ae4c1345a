"""Trades, books and filters of the real venues, in the shapes they answer in, through unmodified ccxt."""

from __future__ import annotations

import math
from urllib.parse import parse_qs, urlsplit

import pytest

from feature_store.clock import utc_now_ms
from feature_store.errors import BadInputError
from feature_store.kinds.definition import AGGREGATE_TRADES, BOOK, FILTERS, FUNDING, TRADES, Subject
from feature_store.kinds.store import KindStore
from feature_store.sources.kind_ingest import ingest_kind
from feature_store.venue.factory import create_exchange
from tests.kind_support import HOUR

COUNT = 2_300
SPOT = {
    "symbol": "BTCUSDT",
    "status": "TRADING",
    "baseAsset": "BTC",
    "quoteAsset": "USDT",
    "isSpotTradingAllowed": True,
    "permissions": ["SPOT"],
    "filters": [
        {"filterType": "PRICE_FILTER", "tickSize": "0.01", "minPrice": "0.01", "maxPrice": "1000000"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"},
        {"filterType": "NOTIONAL", "minNotional": "5"},
    ],
}
PERPETUAL = SPOT | {
    "contractType": "PERPETUAL",
    "deliveryDate": 4_133_404_800_000,
    "onboardDate": 1_569_398_400_000,
    "marginAsset": "USDT",
    "pair": "BTCUSDT",
}
BITFINEX_PAIR = ["BTCUST", [None, None, None, "0.00004", "2000.0", None, None, None, 0.2, 0.1, None]]


class Wire:
    """Answers what ccxt asks for instruments, time, trades and books; three trades share each moment."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.first_ms = now_ms - 2 * HOUR
        self.pages = 0

    def trade_ms(self, number: int) -> int:
        """Return when a trade was made."""
        return self.first_ms + number // 3 * 7_000

    async def fetch(self, url, method="GET", headers=None, body=None):
        """Take the place of the transport below ccxt."""
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        answers = {
            "/time": lambda: {"serverTime": self.now_ms},
            "/exchangeInfo": lambda: {"symbols": self._instruments(parts.path)},
            "/aggTrades": lambda: self._aggregates(query),
            "/hist": lambda: self._history(query),
            "/depth": self._book,
            # Price, count, amount; a negative amount is an ask.
            "/P0": lambda: [[99 - level, 1, 1] for level in range(5)] + [[101 + level, 1, -2] for level in range(5)],
            "info:pair": lambda: [[BITFINEX_PAIR], [], [], []],
        }
        told = next((answer for part, answer in answers.items() if part in parts.path), None)
        return [[] for _ in range(12)] if told is None else told()

    def _instruments(self, path):
        if "dapi" in path:
            return []
        return [PERPETUAL if path.startswith("/fapi") else SPOT]

    def _book(self):
        bids, asks = ([[str(99 - level), "1"] for level in range(5)], [[str(101 + level), "2"] for level in range(5)])
        return {"lastUpdateId": 9, "E": self.now_ms, "T": self.now_ms, "bids": bids, "asks": asks}

    def _history(self, query):
        self.pages += 1
        rows = [row for row in range(COUNT) if self.trade_ms(row) >= int(query["start"])][: int(query["limit"])]
        return [[7_000 + row, self.trade_ms(row), -0.5 if row % 2 else 0.5, 100 + row % 5] for row in rows]

    def _aggregates(self, query):
        self.pages += 1
        start, end = int(query.get("startTime", 0)), int(query.get("endTime", self.now_ms))
        assert end - start <= HOUR or "startTime" not in query, "Binance refuses more than an hour"
        first = int(query.get("fromId", 0))
        numbers = [row for row in range(COUNT) if row >= first and start <= self.trade_ms(row) <= end]
        return [
            {
                "a": row,
                "p": str(100 + row % 5),
                "q": "0.5",
                "f": row,
                "l": row,
                "T": self.trade_ms(row),
                "m": row % 2 == 1,
            }
            for row in numbers[: int(query["limit"])]
        ]


VENUES = [
    pytest.param("binanceusdm", "BTC/USDT:USDT", AGGREGATE_TRADES, id="binance-perpetuals"),
    pytest.param("binance", "BTC/USDT", AGGREGATE_TRADES, id="binance-spot"),
    pytest.param("bitfinex", "BTC/USDT", TRADES, id="bitfinex"),
]


@pytest.fixture
async def connected():
    """Connect to venues whose transport is a wire of ours."""
    opened = []

    def connect(venue: str):
        wire, exchange = Wire(utc_now_ms()), create_exchange(venue, pro=False)
        exchange.fetch = wire.fetch
        opened.append(exchange)
        return wire, exchange

    yield connect
    for exchange in opened:
        await exchange.close()


@pytest.mark.parametrize(("venue", "symbol", "kind"), VENUES)
async def test_trades_are_paged_as_each_venue_wants_it(tmp_path, connected, venue, symbol, kind):
    """By number where a venue has them asked by number, else by time: each trade once, whole, who took it the same."""
    wire, exchange = connected(venue)
    store, subject = KindStore(tmp_path), Subject(venue, symbol)
    done = await ingest_kind(exchange, store, kind, subject, wire.first_ms - HOUR, wire.now_ms)
    stored = store.read(kind, subject)
    wanted = sum(wire.trade_ms(row) < wire.now_ms for row in range(COUNT))
    assert len(stored) == done.appended == wanted
    assert stored.time_ms.tolist() == [wire.trade_ms(row) for row in range(wanted)]
    assert stored["is_buyer_maker"].tolist() == [row % 2 == 1 for row in range(wanted)]
    assert wire.pages >= 3
    again = await ingest_kind(exchange, store, kind, subject, wire.first_ms - HOUR, wire.now_ms)
    assert again.appended == 0


@pytest.mark.parametrize(("venue", "symbol", "kind"), VENUES)
async def test_books_and_filters_of_each_venue(tmp_path, connected, venue, symbol, kind):
    """The book's best levels come first on both sides; filters hold what the venue states, NaN where it does not."""
    _, exchange = connected(venue)
    store, subject = KindStore(tmp_path), Subject(venue, symbol)
    assert (await ingest_kind(exchange, store, BOOK, subject, 0, 1)).appended == 10
    book = store.read(BOOK, subject)
    assert book["price"][book["is_bid"]].tolist() == [99, 98, 97, 96, 95]
    assert book["quantity"][~book["is_bid"]].tolist() == [2.0] * 5
    assert (await ingest_kind(exchange, store, FILTERS, subject, 0, 1)).appended == 1
    assert (await ingest_kind(exchange, store, FILTERS, subject, 0, 1)).appended == 0
    filters = store.read(FILTERS, subject)
    tick = float(filters["price_tick"][0])
    if venue == "bitfinex":
        # Its prices have five significant digits, and no tick.
        assert math.isnan(tick)
        assert float(filters["least_quantity"][0]) == 0.00004
    else:
        assert tick == 0.01
        assert filters["status"].tolist() == ["TRADING"]


@pytest.mark.parametrize(("venue", "symbol", "kind"), VENUES[1:])
async def test_spot_has_no_funding(tmp_path, connected, venue, symbol, kind):
    """What a venue has not of an instrument is refused, rather than answered with another one's."""
    wire, exchange = connected(venue)
    with pytest.raises(BadInputError, match=f"funding of {symbol} is not fetched from venue {venue}; what is: filters"):
        await ingest_kind(exchange, KindStore(tmp_path), FUNDING, Subject(venue, symbol), 0, wire.now_ms)
