"""A paper account at real wires: fills as the venue's own account does, and at Bitfinex's market too."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from decimal import Decimal

from feature_store.clock import monotonic
from feature_store.venue.errors import OutcomeUnknownError, RequestRefusedError
from feature_store.venue.factory import create_exchange
from inference.domain.order import OrderIntent, OrderStatus, OrderType, Purpose, Side
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.venue_clock import VenueClock
from tests.paper_support import paper_gateway_at
from tests.sandbox_support import API_KEY, API_SECRET, running_sandbox

BTC = "BTC/USDT:USDT"
STEPS = 40


def order(number: int, chance: random.Random, price: Decimal, tick: Decimal) -> OrderIntent:
    """Return an order by chance: entries and exits, at market, at a limit or at a trigger near the price."""
    kind = chance.choice(list(OrderType))
    near = price + tick * chance.randint(-80, 80)
    is_conditional = kind in (OrderType.STOP_MARKET, OrderType.TAKE_PROFIT_MARKET)
    return OrderIntent(
        client_order_id=f"qt-{number}",
        trade_id="t",
        trace_id="",
        symbol=BTC,
        side=chance.choice(list(Side)),
        order_type=kind,
        purpose=Purpose.EXIT if is_conditional or chance.random() < 0.3 else Purpose.ENTRY,
        quantity=Decimal(chance.randint(1, 40)) / 1000,
        limit_price=near if kind is OrderType.LIMIT else None,
        trigger_price=near if is_conditional else None,
    )


async def sent(gateway, intent: OrderIntent) -> tuple[object, ...]:
    """Send an order; return what came of it, without ids and times."""
    try:
        report = await gateway.submit(intent)
    except (RequestRefusedError, OutcomeUnknownError) as error:
        return type(error).__name__, error.code
    return report.status, report.filled, report.average_price


async def fills_of(gateway) -> list[tuple[object, ...]]:
    """Return the executions, without ids and times."""
    return [(one.side, one.quantity, one.price, one.fee, one.is_maker) for one in await gateway.fills(BTC, 0)]


async def next_price(sandbox, *gateways) -> None:
    """Let the venue come to its next price, and everybody know its time."""
    await sandbox.ctl(op="go_on")
    async with asyncio.timeout(60):
        while (await sandbox.get("/sandbox/status"))["held_ms"] is None:  # noqa: ASYNC110 - the sandbox tells nobody
            await asyncio.sleep(0.005)
    for gateway in gateways:
        await gateway.sync_clock(afresh=True)


async def test_paper_account_fills_as_the_venues_own_in_lockstep(tmp_path):
    """The same orders at the same prices, over the wire and on paper: the same answers, executions and wallet."""
    chance, answers = random.Random(5), []
    async with (
        running_sandbox(symbols=1, speed=60, seed=3, state=tmp_path / "s", lockstep="true") as sandbox,
        paper_gateway_at(sandbox.url, file=tmp_path / "paper.json", follows=False) as (paper, _),
    ):
        exchange = create_exchange("sandbox", url=sandbox.url, api_key=API_KEY, api_secret=API_SECRET)
        wire = CcxtGateway(exchange, clock=VenueClock(accelerated=True), monotonic=monotonic, leverage=3)
        try:
            await sandbox.ctl(op="lead", each_tick=True)
            await next_price(sandbox)
            await wire.connect()
            tick = wire.instruments([BTC])[BTC].price_tick
            for number in range(STEPS):
                await next_price(sandbox, wire, paper)
                price = (await paper.quotes())[BTC].mid
                intent = order(number, chance, price, tick)
                answers.append((await sent(wire, intent), await sent(paper, intent)))
            theirs, ours = await fills_of(wire), await fills_of(paper)
            wallets = await wire.wallet(), await paper.wallet()
        finally:
            await wire.close()

    assert [ours for _, ours in answers] == [theirs for theirs, _ in answers]
    assert ours == theirs
    assert len(ours) >= 8
    assert {one[-1] for one in ours} == {True, False}
    assert wallets[0] == wallets[1]


async def test_bitfinex_is_a_market_for_paper_trading(tmp_path):
    """By its public data alone a paper account enters, rests a stop and a target beside it, and knows the funding."""
    async with (
        running_sandbox(symbols=2, speed=30, seed=3, state=tmp_path / "s") as sandbox,
        paper_gateway_at(sandbox.url, file=tmp_path / "b.json", venue="sandbox-bitfinex") as (paper, told),
    ):
        symbol = paper.tradable_symbols()[0]
        instrument = paper.instruments([symbol])[symbol]
        price = (await paper.quotes())[symbol].mid
        entry = replace(order(1, random.Random(1), price, instrument.price_tick), symbol=symbol, side=Side.BUY)
        quantity = instrument.round_quantity(Decimal(1000) / price)
        entry = replace(
            entry, order_type=OrderType.MARKET, purpose=Purpose.ENTRY, quantity=quantity, limit_price=None,
            trigger_price=None,
        )  # fmt: skip
        low, high = (instrument.round_price(price * Decimal(share)) for share in ("0.8", "1.1"))
        stop = replace(
            entry, client_order_id="qt-s", side=Side.SELL, order_type=OrderType.STOP_MARKET, purpose=Purpose.STOP,
            trigger_price=low,
        )  # fmt: skip
        target = replace(
            entry, client_order_id="qt-t", side=Side.SELL, order_type=OrderType.LIMIT, purpose=Purpose.TARGET,
            limit_price=high,
        )  # fmt: skip
        filled = await paper.submit(entry)
        await paper.submit(stop)
        await paper.submit(target)
        async with asyncio.timeout(30):
            while paper._desk.announced_ms(symbol) <= await paper.venue_now_ms():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.1)
        resting = {one.client_order_id: one.status for one in await paper.open_orders()}
        audit = await sandbox.get("/sandbox/audit")

    assert filled.status is OrderStatus.FILLED
    assert resting == {"qt-s": OrderStatus.ACCEPTED, "qt-t": OrderStatus.ACCEPTED}
    assert [one.client_order_id for one in told.fills] == [entry.client_order_id]
    assert (audit["orders"], audit["algo_orders"]) == (0, 0)
