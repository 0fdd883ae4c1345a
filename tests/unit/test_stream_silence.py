"""A stream that died without a word is known by what it does not say; one that is merely quiet is left alone."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.candle import Timeframe
from feature_store.venue.factory import create_exchange
from inference.exchange.account_events import AccountEvents, Unreadable
from inference.exchange.candle_connections import ManyAtOnce
from inference.exchange.ccxt_mapping import MalformedReportError, stream_wallet, wallet
from inference.exchange.user_stream import UserStream
from inference.exchange.venue_clock import TimeSample, VenueClock
from inference.exchange.watching import close_clients, pause_seconds
from inference.feed.batches import BatchAssembler
from inference.feed.candle_stream import CandleStream

PRIVATE = "ws://127.0.0.1:9/private/ws?listenKey=abc"
PUBLIC = "ws://127.0.0.1:9/market/ws"


@pytest.fixture
async def exchange():
    """Return a real client that was never connected."""
    client = create_exchange("sandbox", url="http://127.0.0.1:9", api_key="key", api_secret="secret")
    yield client
    await client.close()


@pytest.fixture
def now():
    """Return a clock that is moved by hand."""
    return SimpleNamespace(seconds=10.0)


@pytest.fixture
def events(exchange, now):
    """Return the account's events of that client, by that clock."""
    return AccountEvents(exchange, monotonic=lambda: now.seconds)


def account(balance: str) -> dict:
    """Return what the venue sends when the wallet has changed."""
    return {"e": "ACCOUNT_UPDATE", "E": 1, "T": 1, "a": {"m": "ORDER", "B": [{"a": "USDT", "wb": balance}], "P": []}}


def told(exchange, balance: str) -> None:
    """Let the stream tell of a balance."""
    connection = exchange.client(PRIVATE)
    connection.on_message_callback(connection, account(balance))


async def questions(exchange, events) -> list:
    """Open a connection that keeps what is sent over it, and ask once."""
    sent: list = []

    async def send(message):
        sent.append(message)

    connection = exchange.client(PRIVATE)
    connection.isConnected, connection.send = True, send
    await events.ask(within=1.0)
    return sent


async def test_a_venue_that_never_answers_is_doubted_twice(exchange, events, now):
    """Two connections are given up for an answer that does not come; the third is left alone."""
    doubts = []
    for _ in range(3):
        await questions(exchange, events)
        now.seconds += 40.0
        doubts.append(events.unanswered_seconds)
        events.forget()

    assert doubts == [40.0, 40.0, 0.0]


async def test_an_unanswered_question_tells_of_a_dead_stream(exchange, events, now):
    """From when it was asked; one that was answered says nothing."""
    sent = await questions(exchange, events)
    now.seconds = 50.0
    connection = exchange.client(PRIVATE)
    connection.on_message_callback(connection, {"result": [], "id": sent[0]["id"]})
    answered = events.unanswered_seconds
    await events.ask(within=1.0)
    now.seconds = 54.0
    silent = events.unanswered_seconds
    await events.ask(within=1.0)
    events.forget()

    assert (answered, silent, events.unanswered_seconds) == (0.0, 4.0, 0.0)
    # While an answer is owed, nothing more is asked.
    assert len(sent) == 2
    assert events._events.empty()


async def test_without_a_connection_nothing_is_asked(events):
    """There is nobody to ask."""
    await events.ask(within=1.0)

    assert events.unanswered_seconds == 0.0


@pytest.mark.parametrize("frame", [[], [1, 2], "text", 7, None, True])
async def test_a_frame_that_is_no_event_is_said_and_does_no_harm(exchange, events, frame):
    """On the account's stream it counts as a gap; ccxt, which would never read again, does not see it."""
    connection = exchange.client(PRIVATE)
    connection.on_message_callback(connection, frame)

    assert await events.next() == Unreadable(str(frame))


@pytest.mark.parametrize("frame", [[], {"e": "kline", "E": 1, "s": "BTCUSDT"}, {"e": "kline", "k": []}, "x"])
@pytest.mark.usefixtures("events")
async def test_a_frame_that_ccxt_cannot_take_does_not_end_the_market_s_stream(exchange, frame):
    """What it raises would end its loop for the life of the connection, and is caught before."""
    connection = exchange.client(PUBLIC)

    assert connection.on_message_callback(connection, frame) is None


async def test_a_wallet_that_the_stream_told_is_known(exchange, events, now):
    """The last balance that was told, and each one told since the look began."""
    told(exchange, "100")
    now.seconds = 20.0
    told(exchange, "90")
    now.seconds = 21.0
    told(exchange, "80")

    assert events.knows(Decimal(80), since=30.0)
    assert not events.knows(Decimal(90), since=30.0)
    assert events.knows(Decimal(90), since=20.0)
    assert events.knows(Decimal(100), since=15.0)
    assert not events.knows(Decimal(100), since=20.5)


async def test_a_wallet_of_which_nothing_was_told_yet_is_not_judged(events):
    """After the opening the first look is believed, and a later one must agree."""
    assert events.knows(Decimal(5), since=0.0)
    events.believe(Decimal(5))
    assert not events.knows(Decimal(6), since=20.0)
    events.forget()
    assert events.knows(Decimal(6), since=20.0)


@pytest.mark.parametrize(
    "update",
    [{}, {"a": None}, {"a": {"B": 3}}, {"a": {"B": [3]}}, {"a": {"B": [{"a": "USDT"}]}},
     {"a": {"B": [{"a": "USDT", "wb": "NaN"}]}}, {"a": {"B": [{"a": "USDT", "wb": 1.5}]}}],
)  # fmt: skip
async def test_a_wallet_that_cannot_be_read_is_not_believed(exchange, events, update):
    """Nothing is guessed, and nothing breaks."""
    connection = exchange.client(PRIVATE)
    connection.on_message_callback(connection, {"e": "ACCOUNT_UPDATE"} | update)

    with pytest.raises(MalformedReportError):
        stream_wallet({"e": "ACCOUNT_UPDATE"} | update, asset="USDT")
    assert not events._wallets


def test_a_wallet_is_read_in_its_own_asset():
    """Another asset says nothing of it; an account without it is an error."""
    assert stream_wallet({"a": {"B": [{"a": "BNB", "wb": "3"}]}}, asset="USDT") is None
    assert wallet({"assets": [{"asset": "USDT", "walletBalance": "7.5"}]}, asset="USDT") == Decimal("7.5")
    with pytest.raises(MalformedReportError):
        wallet({"assets": []}, asset="USDT")


@pytest.mark.parametrize(("found", "lost"), [("90", None), ("80", "the account changed and the stream did not tell")])
async def test_the_account_beside_the_stream_is_the_judge(exchange, monkeypatch, found, lost):
    """A balance that the stream never told means that it is dead; the one it told means nothing."""
    monkeypatch.setattr("inference.exchange.user_stream._TOLD_WITHIN_SECONDS", 0.0)
    stream = UserStream(exchange, on_report=id, on_fill=id, on_gap=id, monotonic=lambda: 100.0)
    told(exchange, "90")
    exchange.client(PRIVATE).isConnected = True
    await stream._judge(Decimal(found), since=200.0)

    assert stream._lost == lost


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_pauses_grow_to_their_bound_and_differ(failures, chance):
    """Never longer than the bound, never shorter than half the shortest, and not the same for everybody."""
    pause = pause_seconds(failures, chance, shortest=0.2, longest=30.0)

    assert 0.1 <= pause <= 30.0
    assert pause <= pause_seconds(failures + 1, chance, shortest=0.2, longest=30.0)
    assert pause_seconds(failures, 0.0) < pause_seconds(failures, 1.0)


async def test_a_venue_that_answers_no_farewell_is_left():
    """Closing a connection to a black hole ends soon, and the client is forgotten."""
    left = asyncio.Event()

    class Client:
        async def close(self):
            """Wait for a farewell that never comes."""
            try:
                await asyncio.Event().wait()
            finally:
                left.set()

    exchange = SimpleNamespace(clients={PUBLIC: Client(), PRIVATE: object()})
    await close_clients(exchange, which=lambda url: url == PUBLIC)

    assert left.is_set()
    assert list(exchange.clients) == [PRIVATE]


def test_a_refused_time_is_forgotten():
    """Where the venue has refused our time, its next answer counts alone, however uncertain the ones before were."""
    clock = VenueClock(accelerated=True)
    for at in (0.0, 0.1):
        clock.add(TimeSample(sent=at, received=at + 0.9, venue_ms=int(1_000_000 + at * 1000)))
    late = TimeSample(sent=9.0, received=9.1, venue_ms=1_024_000)
    averaged = VenueClock(accelerated=True)
    for at in (0.0, 0.1):
        averaged.add(TimeSample(sent=at, received=at + 0.9, venue_ms=int(1_000_000 + at * 1000)))

    assert not averaged.add(late)
    assert clock.add(late, afresh=True)
    assert abs(clock.now_ms(9.05) - 1_024_000) <= 1


def stream_of(symbols, monotonic):
    """Return a stream that follows symbols over one connection and was never run."""
    clock = VenueClock(accelerated=False)
    clock.add(TimeSample(sent=0.0, received=0.0, venue_ms=600_000))
    assembler = BatchAssembler(last_open_ms=dict.fromkeys(symbols, 0), timeframe=Timeframe.M1)
    exchange = SimpleNamespace(clients={}, ohlcvs={})
    return CandleStream(
        exchange,
        tuple(symbols),
        number=0,
        connection=ManyAtOnce(exchange, symbols, "1m", number=0),
        assembler=assembler,
        timeframe=Timeframe.M1,
        clock=clock,
        monotonic=monotonic,
    )


def test_a_series_that_only_rest_brings_is_dead_in_its_stream(now):
    """Twice in a row nothing of it on the stream, though of others: the stream is opened anew."""
    stream = stream_of(["A", "B"], lambda: now.seconds)
    for close in (120_000, 180_000):
        stream._newest = {"A": close - 60_000, "B": 0}
        stream._assembler._last = dict.fromkeys(["A", "B"], close - 60_000)
        stream.note_fetched(("B",), close)

    assert stream._dead == "B"


def test_a_series_that_does_not_trade_is_not_dead(now):
    """What REST does not have either did not happen; a whole stream that is silent is another matter."""
    stream = stream_of(["A", "B"], lambda: now.seconds)
    for close in (120_000, 180_000, 240_000):
        stream._newest = {"A": close - 60_000, "B": 0}
        stream._assembler._last = {"A": close - 60_000, "B": 0}
        stream.note_fetched(("B",), close)
    untraded = stream._dead
    for close in (300_000, 360_000):
        stream._newest = {"A": 0, "B": 0}
        stream._assembler._last = dict.fromkeys(["A", "B"], close - 60_000)
        stream.note_fetched(("A", "B"), close)

    assert (untraded, stream._dead) == (None, None)


@pytest.mark.parametrize("timeframe_speed", [0.1, 1.0, 60.0, 600.0])
def test_silence_is_noticed_within_seconds_at_any_speed_of_the_venue_s_clock(now, timeframe_speed):
    """Between two and six seconds of the wall, well below the ten that are promised."""
    stream = stream_of(["A"], lambda: now.seconds)
    stream._clock._rate = timeframe_speed

    assert 2.0 <= stream.silence_limit() <= 6.0
