"""The paper gateway with a market of its own making: what it missed, what it refuses, what it tells."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import pytest

from feature_store.candle import Candle, CandleBlock, Timeframe
from feature_store.errors import BadInputError
from feature_store.venue.errors import OrderRefusedError, RetryableError, VenueDownError
from feature_store.venue.factory import create_exchange
from inference.domain.market import Quote
from inference.domain.order import Fill, OrderStatus, OrderType, Purpose, Side
from inference.exchange.capabilities import CAPABILITIES
from inference.exchange.guarding import NotTheWriterError, PrivateRequestError, refuse_private
from inference.exchange.paper_file import Announced, PaperFile
from inference.exchange.paper_gateway import PaperGateway
from inference.exchange.paper_stream import PaperStream
from inference.exchange.paper_told import announced, settled
from tests.unit.test_paper_desk import BTC, T0, order
from tests.worker_values import make_instrument

MINUTE_MS = 60_000


class _Market:
    """A venue's public side: a price, past candles, rates of funding, and failures on demand."""

    id = "binanceusdm"
    closed_seconds = 0.0

    def __init__(self) -> None:
        self.markets = {BTC: {}}
        self.price = Decimal(50_000)
        self.down = False
        self.candles: list[Candle] = []
        self.rates: dict[str, object] = {}
        self.settled: list[object] = []
        self.now_ms = T0
        self.closed = False

    async def connect_public(self) -> None: ...

    async def sync_clock(self, *, afresh: bool = False) -> int:
        return self.now_ms

    def instruments(self, symbols):
        return {symbol: make_instrument(symbol) for symbol in symbols}

    def tradable_symbols(self):
        return tuple(self.markets)

    async def quotes(self):
        return {BTC: await self.quote(BTC)}

    async def quote(self, symbol):
        if self.down:
            raise VenueDownError("refused to connect")
        return Quote(symbol=symbol, bid=self.price - 1, ask=self.price + 1, event_time_ms=self.now_ms)

    async def close(self) -> None:
        self.closed = True

    async def fetch_funding_rates(self, symbols):
        return self.rates

    async def fetch_funding_rate_history(self, symbol, since, limit):
        return self.settled

    async def past(self, symbol, timeframe, *, after_ms, closed_by_ms):
        chosen = [
            one for one in self.candles if one.open_time_ms > after_ms and one.close_time_ms(timeframe) <= closed_by_ms
        ]
        return CandleBlock.from_candles(chosen) if chosen else CandleBlock.empty()


def gateway_on(market: _Market, folder, **changes) -> PaperGateway:
    """Return a gateway whose clock is the market's."""
    clock = SimpleNamespace(now_ms=lambda _: market.now_ms, rate=1.0)
    given = {
        "exchange": market,
        "file": PaperFile(folder / "paper.json", venue="binanceusdm", balance=Decimal(10_000)),
        "timeframe": Timeframe.M5,
        "capabilities": CAPABILITIES["binanceusdm"],
        "clock": clock,
        "monotonic": lambda: market.now_ms / 1000,
        "leverage": 3,
        "taker_fee": Decimal(0),
        "past": market.past,
    }
    return PaperGateway(market, **{**given, **changes})


STOP = order("S1", Side.SELL, purpose=Purpose.STOP, kind=OrderType.STOP_MARKET, price=49_000)


async def held_with_stop(market: _Market, folder) -> PaperGateway:
    """Return a gateway that holds a long with its stop."""
    gateway = gateway_on(market, folder)
    await gateway.connect()
    await gateway.submit(order("E1"))
    await gateway.submit(STOP)
    return gateway


async def told_by(gateway: PaperGateway) -> SimpleNamespace:
    """Follow the account for a moment and return what its stream told."""
    told = SimpleNamespace(reports=[], fills=[], gaps=[], funding=0)

    def paid() -> None:
        told.funding += 1

    stream = PaperStream(
        gateway, on_report=told.reports.append, on_fill=told.fills.append, on_gap=told.gaps.append, on_funding=paid
    )
    following = asyncio.create_task(stream.run())
    assert await stream.connected(within=5)
    for _ in range(20):
        await asyncio.sleep(0)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert not stream.is_connected
    return told


async def test_events_from_before_anybody_listened_are_told(tmp_path):
    """The stream says that it may have missed some, then tells all of this life, an execution before its order."""
    gateway = await held_with_stop(_Market(), tmp_path)
    told = await told_by(gateway)

    assert told.gaps == ["the stream was opened"]
    assert [one.client_order_id for one in told.fills] == ["E1"]
    assert [(one.client_order_id, one.status) for one in told.reports] == [
        ("E1", OrderStatus.ACCEPTED), ("E1", OrderStatus.FILLED), ("S1", OrderStatus.ACCEPTED),
    ]  # fmt: skip
    assert isinstance(told.fills[0], Fill)


async def test_stop_that_was_passed_while_nobody_ran_has_fired(tmp_path):
    """A new life is shown each missed minute; the stop fills there, at the time of that minute, and is told of."""
    market = _Market()
    await held_with_stop(market, tmp_path)
    begins = T0 + MINUTE_MS - T0 % MINUTE_MS
    market.candles = [
        Candle(begins, 50_000, 50_010, 49_900, 49_950, 1.0),
        Candle(begins + MINUTE_MS, 49_950, 49_960, 48_500, 49_800, 1.0),
        Candle(begins + 2 * MINUTE_MS, 49_800, 49_900, 49_700, 49_850, 1.0),
    ]
    market.now_ms = begins + 10 * MINUTE_MS
    gateway = gateway_on(market, tmp_path)
    await gateway.connect()
    told = await told_by(gateway)
    found = await gateway.query(STOP)

    assert await gateway.positions() == []
    assert found.status is OrderStatus.FILLED
    assert found.average_price == pytest.approx(Decimal(48_500), abs=Decimal(10))
    assert [(one.client_order_id, one.event_time_ms) for one in told.fills] == [("S1", begins + 2 * MINUTE_MS)]


ETH = "ETH/USDT:USDT"
AAA = "AAA/USDT:USDT"


@pytest.mark.parametrize("unlisted", [ETH, AAA])
async def test_a_symbol_that_is_gone_hides_nothing_of_what_the_others_missed(tmp_path, unlisted):
    """One market was taken off the list while nobody ran: the other's stop has fired all the same, at its minute."""
    market = _Market()
    market.markets = {BTC: {}, unlisted: {}}
    before = await held_with_stop(market, tmp_path)
    await before.submit(replace(order("E2"), symbol=unlisted))
    begins = T0 + MINUTE_MS - T0 % MINUTE_MS
    market.markets = {BTC: {}}
    market.candles = [Candle(begins, 50_000, 50_010, 48_500, 49_800, 1.0)]
    market.now_ms = begins + 10 * MINUTE_MS
    gateway = gateway_on(market, tmp_path)
    await gateway.connect()
    told = await told_by(gateway)

    assert await gateway.positions() == []
    assert [one.event_time_ms for one in told.fills if one.client_order_id == "S1"] == [begins + MINUTE_MS]
    assert (await gateway.query(STOP)).status is OrderStatus.FILLED


async def test_a_countdown_that_ran_out_beside_a_symbol_that_is_gone_stops_no_start(tmp_path):
    """What rested as the process was killed is cancelled, though another market is ended by the same start."""
    market = _Market()
    market.markets = {BTC: {}, AAA: {}}
    before = gateway_on(market, tmp_path)
    await before.connect()
    await before.submit(replace(order("E1"), symbol=AAA))
    await before.submit(order("L1", kind=OrderType.LIMIT, price=49_000))
    await before.set_countdown(BTC, 30)
    market.markets = {BTC: {}}
    market.now_ms = T0 + HOUR_MS
    gateway = gateway_on(market, tmp_path)
    await gateway.connect()

    assert await gateway.positions() == []
    assert (await gateway.query(order("L1", kind=OrderType.LIMIT, price=49_000))).status is OrderStatus.CANCELED


HOUR_MS = 60 * MINUTE_MS


@pytest.mark.parametrize(
    ("hours_later", "minute", "shown_by"),
    [
        pytest.param(0, 40, MINUTE_MS, id="hour-in-which-it-stopped"),
        pytest.param(30, 40, HOUR_MS, id="between"),
        pytest.param(72, 5, MINUTE_MS, id="hour-that-runs"),
    ],
)
async def test_after_days_without_anybody_both_ends_are_shown_by_minutes(tmp_path, hours_later, minute, shown_by):
    """Whole hours between, minutes of the hour in which it stopped and of the one that runs: nothing is left out."""
    market = _Market()
    hour = T0 - T0 % HOUR_MS + HOUR_MS
    market.now_ms = hour + 20 * MINUTE_MS + 5_000
    await held_with_stop(market, tmp_path)
    fell = hour + hours_later * HOUR_MS + minute * MINUTE_MS

    async def past(_symbol, timeframe, *, after_ms, closed_by_ms):
        step = timeframe.milliseconds
        opens = range(after_ms + step, closed_by_ms - step + 1, step)
        return CandleBlock.from_candles(
            [Candle(at, 50_000, 50_010, 48_500 if at <= fell < at + step else 49_900, 50_000, 1.0) for at in opens]
        )

    market.now_ms = hour + 72 * HOUR_MS + 10 * MINUTE_MS
    gateway = gateway_on(market, tmp_path, past=past)
    await gateway.connect()
    told = await told_by(gateway)

    assert await gateway.positions() == []
    assert [one.client_order_id for one in told.fills] == ["S1"]
    assert told.fills[0].event_time_ms == fell - fell % shown_by + shown_by


async def test_minute_in_which_the_stop_was_made_fires_nothing(tmp_path):
    """What was traded before an order existed says nothing to it."""
    market = _Market()
    market.now_ms = T0 + 30_000
    await held_with_stop(market, tmp_path)
    market.candles = [Candle(T0, 50_000, 50_010, 48_000, 50_000, 1.0)]
    market.now_ms = T0 + 10 * MINUTE_MS
    gateway = gateway_on(market, tmp_path)
    await gateway.connect()

    assert (await gateway.query(STOP)).status is OrderStatus.ACCEPTED


async def test_funding_that_fell_due_while_nobody_ran_is_paid(tmp_path):
    """By the venue's list of what was settled since, each settlement once, none from before the account was heard."""
    market = _Market()
    await held_with_stop(market, tmp_path)
    hour = 3_600_000
    market.settled = [
        {"timestamp": T0 - hour, "fundingRate": 0.5, "info": {"markPrice": "50000"}},
        {"timestamp": T0 + hour + 3, "fundingRate": 0.0001, "info": {"markPrice": "50000"}},
        {"timestamp": T0 + 2 * hour + 3, "fundingRate": -0.0002, "info": {"markPrice": "50000"}},
        {"timestamp": None, "fundingRate": 0.1, "info": {}},
    ]
    market.now_ms = T0 + 3 * hour
    gateway = gateway_on(market, tmp_path)
    await gateway.connect()
    again = gateway_on(market, tmp_path)
    await again.connect()

    assert [one.amount for one in await gateway.funding(0)] == [Decimal("-0.05"), Decimal("0.10")]
    assert [one.amount for one in await again.funding(0)] == [Decimal("-0.05"), Decimal("0.10")]


async def test_candles_that_cannot_be_read_are_asked_for_again(tmp_path):
    """A start does not go on with an account that has missed something; it tries again."""
    market = _Market()
    await held_with_stop(market, tmp_path)
    market.now_ms = T0 + 10 * MINUTE_MS

    async def unreadable(*_args, **_named):
        raise BadInputError("no candles")

    with pytest.raises(RetryableError, match="cannot be read"):
        await gateway_on(market, tmp_path, past=unreadable).connect()

    assert (await held_again(market, tmp_path)).positions


async def held_again(market, folder) -> SimpleNamespace:
    gateway = gateway_on(market, folder)
    await gateway.connect()
    return SimpleNamespace(positions=await gateway.positions())


async def test_market_that_does_not_answer_executes_nothing(tmp_path):
    """Without a quote of now there is no fill: nothing happened, and the order may be sent again."""
    market = _Market()
    gateway = gateway_on(market, tmp_path)
    await gateway.connect()
    market.down = True
    with pytest.raises(RetryableError):
        await gateway.submit(order("E1"))

    assert await gateway.query(order("E1")) is None
    market.down = False
    assert (await gateway.submit(order("E1"))).status is OrderStatus.FILLED


async def test_who_is_not_the_writer_changes_nothing(tmp_path):
    """Without the lease no order is taken, and no price changes what the successor may have written since."""
    market = _Market()
    await held_with_stop(market, tmp_path)
    gateway = gateway_on(market, tmp_path, may_write=lambda _: "another worker trades it", is_writer=lambda: False)
    await gateway.connect()
    written = (tmp_path / "paper.json").read_bytes()
    market.price = Decimal(48_000)
    await gateway.quote(BTC)
    gateway.hear_running(BTC, Candle(T0 + 300_000, 48_000, 48_000, 48_000, 48_000, 1.0))
    for attempt in (gateway.submit(order("E2")), gateway.cancel(STOP), gateway.set_countdown(BTC, 30)):
        with pytest.raises(NotTheWriterError, match="another worker"):
            await attempt

    assert (tmp_path / "paper.json").read_bytes() == written


async def test_unlisted_and_inexpressible_orders_are_refused(tmp_path):
    """What the venue could not be asked for is refused here too, before anything happens."""
    market = _Market()
    gateway = gateway_on(market, tmp_path, capabilities=CAPABILITIES["bitfinex"])
    await gateway.connect()
    target = order("T1", Side.SELL, purpose=Purpose.TARGET, kind=OrderType.TAKE_PROFIT_MARKET, price=51_000)
    with pytest.raises(OrderRefusedError, match="cannot be asked"):
        await gateway.submit(target)
    market.markets = {}
    gone = gateway_on(market, tmp_path)
    await gone.connect()
    with pytest.raises(OrderRefusedError, match="does not list"):
        await gone.submit(order("E1"))

    assert not gateway.has_countdown
    assert await gateway.open_orders() == []


async def test_prices_that_are_none_are_not_taken(tmp_path):
    """A candle with holes, of nought or without end changes nothing."""
    market = _Market()
    gateway = await held_with_stop(market, tmp_path)
    for bad in (None, 0.0, -1.0, float("nan"), float("inf"), "48000"):
        gateway.hear_running(BTC, Candle(T0 + 300_000, bad, bad, bad, bad, 1.0))
        gateway.hear_closed(BTC, Candle(T0 + 300_000, 50_000.0, 50_000.0, bad, 50_000.0, 1.0))

    assert [one.signed_quantity for one in await gateway.positions()] == [Decimal("0.01")]


@pytest.mark.parametrize(
    "row",
    [
        None,
        [],
        "rate",
        {},
        {"fundingTimestamp": T0},
        {"fundingRate": 0.1},
        {"fundingTimestamp": "soon", "fundingRate": 1},
        {"fundingTimestamp": T0, "fundingRate": "much"},
        {"fundingTimestamp": T0, "fundingRate": float("nan")},
        {"fundingTimestamp": 0, "fundingRate": 0.1},
        {"nextFundingTimestamp": T0, "fundingRate": 0.1},
    ],
)
def test_rates_that_say_nothing_are_no_rates(row):
    """Whatever a venue answers short of a time and a rate announces nothing."""
    assert announced(row) is None
    assert settled(row) is None


@pytest.mark.parametrize("mark", [None, "", "nan", 0, -1, [], {}])
def test_mark_price_that_is_none_leaves_the_last_price(mark):
    """A settlement without a usable mark price is one all the same."""
    found = announced({"fundingTimestamp": T0 + 7, "fundingRate": 0.0001, "markPrice": mark})

    assert found == Announced(T0, Decimal("0.0001"), None)


def test_bitfinex_announces_under_names_of_its_own():
    """Where a next rate is told it counts, not the running one."""
    row = {"fundingRate": 0.5, "nextFundingRate": -0.25, "nextFundingTimestamp": T0, "markPrice": 100.5}

    assert announced(row) == Announced(T0, Decimal("-0.25"), Decimal("100.5"))


async def test_client_that_asks_for_an_account_sends_nothing():
    """No private endpoint, of either venue, is ever asked: signing one raises before anything is sent."""
    for venue, private in (("binanceusdm", "fapiPrivateV3GetAccount"), ("bitfinex", "privatePostAuthRWallets")):
        exchange = create_exchange(venue, api_key="k", api_secret="s")
        refuse_private(exchange)
        with pytest.raises(PrivateRequestError):
            await getattr(exchange, private)()
        signed = exchange.sign("time", ["fapiPublic" if venue == "binanceusdm" else "public"])
        await exchange.close()

        assert signed["url"].endswith("time")
