"""What the account's stream brings is taken as ccxt receives it: all of it, in order, none from a dead connection."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from feature_store.venue.factory import create_exchange
from inference.domain.order import OrderStatus
from inference.exchange.account_events import AccountEvents, KeyLost, Opened, OrderEvent, Unreadable
from inference.exchange.user_stream import UserStream

URL = "http://127.0.0.1:9"
PRIVATE = "ws://127.0.0.1:9/private/ws?listenKey=abc"
PUBLIC = "ws://127.0.0.1:9/market/ws"
ORDER = {
    "s": "BTCUSDT", "c": "qt-1-E1", "S": "BUY", "o": "MARKET", "ot": "MARKET", "x": "NEW", "X": "NEW", "i": 7, "q": "2",
    "l": "0", "z": "0", "L": "0", "ap": "0", "t": 0, "T": 1_700_000_000_000, "m": False,
}  # fmt: skip
FILL = ORDER | {"x": "TRADE", "X": "FILLED", "l": "2", "z": "2", "L": "50000", "ap": "50000", "t": 11, "n": "0.1"}


@pytest.fixture
async def exchange():
    """Return a real client that knows one contract and was never connected."""
    client = create_exchange("sandbox", url=URL, api_key="key", api_secret="secret")
    client.set_markets(
        [
            client.safe_market_structure(
                {"id": "BTCUSDT", "symbol": "BTC/USDT:USDT", "base": "BTC", "quote": "USDT", "settle": "USDT",
                 "type": "swap", "swap": True, "contract": True, "linear": True, "spot": False, "active": True}
            )
        ]
    )  # fmt: skip
    yield client
    await client.close()


def update(order: dict, kind: str = "ORDER_TRADE_UPDATE") -> dict:
    """Return an event as the venue sends it."""
    return {"e": kind, "E": 1_700_000_000_001, "T": 1_700_000_000_000, "o": order}


async def test_what_arrives_at_once_is_all_there_in_order(exchange):
    """Events that arrive before anybody looks wait for who looks, each of them, after the opening."""
    events = AccountEvents(exchange, monotonic=lambda: 5.0)
    connection = exchange.client(PRIVATE)
    connection.on_connected_callback(connection)
    connection.on_message_callback(connection, update(ORDER))
    connection.on_message_callback(connection, update(FILL))
    algo = {"aid": 9, "caid": "qt-1-S1", "s": "BTCUSDT", "X": "NEW"}
    connection.on_message_callback(connection, update(algo, "ALGO_UPDATE"))
    connection.on_message_callback(connection, {"e": "ORDER_TRADE_UPDATE"})
    connection.on_message_callback(connection, {"e": "listenKeyExpired", "listenKey": "abc"})
    found = [await events.next() for _ in range(6)]

    assert found == [
        Opened(),
        OrderEvent("BTC/USDT:USDT", ORDER),
        OrderEvent("BTC/USDT:USDT", FILL),
        # Its time stands outside.
        OrderEvent("BTC/USDT:USDT", algo | {"T": 1_700_000_000_000}),
        Unreadable("{'e': 'ORDER_TRADE_UPDATE'}"),
        KeyLost(),
    ]
    assert events.last_order_event == 5.0


async def test_market_data_goes_on_to_ccxt(exchange):
    """A public connection's messages are ccxt's, and its opening is none of the account's."""
    events = AccountEvents(exchange, monotonic=lambda: 5.0)
    connection = exchange.client(PUBLIC)
    connection.on_connected_callback(connection)
    row = {"t": 0, "T": 299_999, "s": "BTCUSDT", "i": "5m", "o": "1", "c": "2", "h": "3", "l": "1", "v": "4"}
    connection.on_message_callback(connection, {"e": "kline", "E": 1, "s": "BTCUSDT", "k": row})

    assert events._events.empty()
    assert exchange.ohlcvs["BTC/USDT:USDT"]["5m"][-1] == [0, 1.0, 3.0, 1.0, 2.0, 4.0]


async def test_a_connection_that_was_given_up_cannot_end_its_successor(exchange):
    """That its key expired is said of a connection that is gone already, and is not heard."""
    events = AccountEvents(exchange, monotonic=lambda: 5.0)
    gone = exchange.client(PRIVATE)
    exchange.clients.clear()
    gone.on_message_callback(gone, {"e": "listenKeyExpired", "listenKey": "abc"})

    assert events._events.empty()


async def test_silence_is_suspicious_only_where_nothing_was_told_since_the_order_was_sent(exchange):
    """An event that came before the venue's answer is the one that was expected."""
    now = SimpleNamespace(seconds=10.0)
    reports = []
    stream = UserStream(
        exchange, on_report=reports.append, on_fill=id, on_gap=id, monotonic=lambda: now.seconds, keep_alive_seconds=60
    )
    connection = exchange.client(PRIVATE)
    sent, now.seconds = now.seconds, 11.0
    connection.on_message_callback(connection, update(FILL))
    stream.expect_event(sent)
    now.seconds = 100.0
    told_before = stream._is_overdue()
    stream.expect_event(99.0)
    now.seconds = 200.0
    never_told = stream._is_overdue()
    stream._take_order(await stream._events.next())

    assert (told_before, never_told, stream._is_overdue()) == (False, True, False)
    assert [one.status for one in reports] == [OrderStatus.FILLED]
