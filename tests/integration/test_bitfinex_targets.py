"""Targets at Bitfinex: a limit order that only reduces rests beside the stop, and neither leaves the other alone."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from inference.domain.order import OrderStatus, Purpose
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason
from infra.prove.own_venue import own_venue
from infra.sandbox.order_rules import changed
from tests.integration.test_bitfinex_executor import BTC, SUBMIT, approved, process
from tests.sandbox_support import running_sandbox


async def until(holds, *, seconds=30.0):
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.02)


async def entered(life):
    """Open a protected position and return its trade."""
    assert await life.executor.enter(await approved(life), candle_close_ms=life.now_ms())
    return life.executor.book.trades[life.executor.book.positions()[BTC].trade_id]


@pytest.mark.parametrize("short", [False, True], ids=["long", "short"])
@pytest.mark.parametrize("streams", [False, True], ids=["rest", "stream"])
async def test_a_target_that_is_reached_ends_the_trade_at_its_price(tmp_path, streams, short):
    """It fills as a maker at the target's price or better, and the stop beside it is swept."""
    async with (
        running_sandbox(symbols=1, speed=1, state=tmp_path / "state") as sandbox,
        process(sandbox, tmp_path / "journal.jsonl", streams=streams) as life,
    ):
        running = asyncio.create_task(life.executor.run())
        way = {"distance": "-0.05", "direction": Direction.SHORT} if short else {}
        approval = await approved(life, **way)
        assert await life.executor.enter(approval, candle_close_ms=life.now_ms())
        assert len(await life.gateway.open_orders()) == 2
        await sandbox.ctl(op="price", symbol="BTCUSDT", factor=0.94 if short else 1.06)
        if not streams:
            await life.executor.reconcile()
        await until(lambda: life.executor.closed)
        (result,) = life.executor.closed
        left = (await life.gateway.open_orders(), await life.gateway.positions())
        audit = await sandbox.get("/sandbox/audit")
        await life.executor.stop()
        await running

    assert left == ([], [])
    assert (result.reason, result.exit_price) == (ExitReason.TARGET, approval.target_price)
    (trip,) = audit["trades"]
    assert (result.pnl, result.fees) == (Decimal(trip["pnl"]), Decimal(trip["fees"]))
    assert result.pnl > 0


@pytest.mark.parametrize("level", ["stop", "target"])
async def test_what_fires_while_nobody_is_there_is_counted_and_the_other_swept(tmp_path, level):
    """The worker is away; the venue holds both, one executes, and the next life cancels the other before all else."""
    path = tmp_path / "journal.jsonl"
    async with running_sandbox(symbols=1, speed=1, state=tmp_path / "state") as sandbox:
        async with process(sandbox, path) as life:
            await entered(life)
        await sandbox.ctl(op="price", symbol="BTCUSDT", factor=0.94 if level == "stop" else 1.06)
        async with process(sandbox, path) as life:
            (result,) = life.executor.closed
            left = (await life.gateway.open_orders(), await life.gateway.positions())
        audit = await sandbox.get("/sandbox/audit")

    assert left == ([], [])
    assert result.reason is (ExitReason.STOP if level == "stop" else ExitReason.TARGET)
    (trip,) = audit["trades"]
    assert (result.pnl, result.fees) == (Decimal(trip["pnl"]), Decimal(trip["fees"]))


async def test_a_target_that_fills_in_part_leaves_a_stop_for_the_rest(tmp_path):
    """What is still open has a stop at every moment: it is made smaller by placing first and cancelling then."""
    async with own_venue() as venue, process(venue, tmp_path / "journal.jsonl") as life:
        trade = await entered(life)
        exchange, whole = venue.sandbox.venue.exchange, trade.open_quantity
        half = (whole / 2).quantize(Decimal("0.001"))
        exchange.state.rules = changed(exchange.state.rules, {"participation": "1"})
        beyond = (trade.plan.target_price * Decimal("1.01")).quantize(Decimal("0.1"))
        exchange.tick({"BTCUSDT": beyond}, now_ms=venue.sandbox.advance(), volumes={"BTCUSDT": half})
        venue.sandbox.settle()
        assert exchange.state.open_positions()[0].quantity == whole - half
        await life.executor.reconcile()
        kept = life.executor.book.trades[trade.plan.trade_id]
        stops = [order for order in kept.of(Purpose.STOP) if order.is_live]
        (target,) = kept.of(Purpose.TARGET)
        audit = venue.audit()

    assert (target.status, target.filled) == (OrderStatus.PARTIALLY_FILLED, half)
    assert kept.open_quantity == whole - half
    assert sum(order.remaining for order in stops) == kept.open_quantity == target.remaining
    # Between the entry and its stop, and at no other time.
    assert len(audit["unprotected"]["intervals"]) == 1


@pytest.mark.parametrize(
    ("said", "times"), [('["error",10001,"Invalid price."]', 3), ('["error",10114,"nonce: small"]', 2)]
)
async def test_a_target_that_is_refused_leaves_stop_and_position(tmp_path, said, times):
    """Refused for good, the trade goes on with its stop alone; what never reached the venue is placed again."""
    async with (
        running_sandbox(symbols=1, speed=1, state=tmp_path / "state") as sandbox,
        process(sandbox, tmp_path / "journal.jsonl") as life,
    ):
        submit, left = life.gateway.submit, [times]

        async def refuse_targets(one):
            if one.purpose is Purpose.TARGET and left[0]:
                left[0] -= 1
                await sandbox.ctl(op="fault", path=SUBMIT, method="POST", action="status", times=1, body=said)
            return await submit(one)

        life.gateway.submit = refuse_targets
        trade = await entered(life)
        resting = [one.client_order_id for one in await life.gateway.open_orders()]
        await life.executor.request_exit(BTC, ExitReason.OPERATOR)
        after = (await life.gateway.open_orders(), await life.gateway.positions())

    assert left == [0]
    assert trade.of(Purpose.STOP)[-1].intent.client_order_id in resting
    assert len(resting) == (1 if times == 3 else 2)
    assert after == ([], [])


async def test_an_account_that_keeps_long_and_short_apart_is_refused_with_the_code_of_that(tmp_path):
    """The venue nets; what the other front has put into hedge mode cannot be expressed there, and entries wait."""
    async with own_venue() as venue, process(venue, tmp_path / "journal.jsonl") as life:
        venue.sandbox.venue.exchange.set_hedge_mode(hedge=True)
        assert not await life.executor.enter(await approved(life), candle_close_ms=life.now_ms())
        (order,) = [one for trade in life.executor.book.trades.values() for one in trade.orders.values()]
        held = life.executor.entries_held

    assert order.refusal == "-4061"
    assert [one.what for one in held] == [BTC]
