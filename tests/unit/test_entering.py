from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from msgspec import UNSET

from feature_store.venue.errors import VenueDownError
from inference.domain.events import FillBooked, Noted, OrderIntended, PositionFoundChanged
from inference.domain.market import Quote
from inference.domain.order import OrderStatus, OrderType, Purpose, Side
from inference.domain.policy import EntryStyle
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason
from inference.execution.book import Book
from inference.execution.client_order_id import order_key
from inference.execution.executor import Executor
from infra.prove.engine_gateway import EngineGateway
from infra.prove.stateful_machine import BALANCE, INSTRUMENTS, PRICES, START_MS, TAKER_FEE
from infra.prove.virtual import MemoryJournal, VirtualClock, abandon_everything
from tests.worker_values import make_approved

BTC = "BTC/USDT:USDT"
START = Decimal(50_000)


class Desk:
    """An executor of one style at the matching engine, in virtual time."""

    def __init__(self, style: EntryStyle) -> None:
        self.clock = VirtualClock(START_MS)
        self.gateway = EngineGateway(self.clock, INSTRUMENTS, balance=BALANCE)
        for symbol, price in PRICES.items():
            self.gateway.move(symbol, price)
        self.journal = MemoryJournal()
        self.style = style

    async def begin(self) -> None:
        """Start a process from the journal."""
        self.executor = Executor(
            gateway=self.gateway,
            journal=self.journal,
            book=Book.rebuilt(self.journal.events()),
            now_ms=self.clock.now_ms,
            monotonic=self.clock.monotonic,
            sleep=self.clock.sleep,
            taker_fee=TAKER_FEE,
            entry_style=self.style,
            entry_patience_seconds=20,
        )
        self.gateway.stream = self._hear
        asyncio.get_running_loop().create_task(self.executor.run())
        await self.clock.drive(self.executor.start())

    async def enter(self, direction: Direction = Direction.LONG) -> None:
        """Approve an entry at the present price, its exits far away."""
        sign = 1 if direction is Direction.LONG else -1
        self.executor.know({BTC: self.gateway._quote(BTC)})
        approved = make_approved(
            direction=direction, stop_price=START - sign * 5_000, target_price=START + sign * 5_000
        )
        await self.clock.drive(self.executor.enter(approved, candle_close_ms=self.clock.now_ms()))

    async def wait(self, seconds: float) -> None:
        """Let time pass."""
        await self.clock.drive(self.clock.sleep(seconds))

    @property
    def entries(self) -> list:
        """The trade's entry orders."""
        (trade,) = self.executor.book.trades.values()
        return trade.of(Purpose.ENTRY)

    def _hear(self, event) -> None:
        (self.executor.on_fill if hasattr(event, "fill_id") else self.executor.on_report)(event)


@pytest.fixture
async def desk(request):
    one = Desk(request.param)
    await one.begin()
    yield one
    await abandon_everything()


def styled(style: EntryStyle):
    return pytest.mark.parametrize("desk", [style], indirect=True, ids=[style.value])


@styled(EntryStyle.LIMIT)
async def test_a_limit_entry_rests_at_the_best_price_and_is_protected_as_it_fills(desk):
    """It asks for the bid, waits there, and is a protected position once the price has gone through it."""
    await desk.enter()
    (order,) = desk.entries
    assert (order.intent.order_type, order.status) == (OrderType.LIMIT, OrderStatus.ACCEPTED)
    assert order.intent.limit_price == desk.gateway._quote(BTC).bid
    assert not order.intent.post_only
    assert desk.gateway.held() == {}

    desk.gateway.move(BTC, START - 20)
    await desk.wait(1)
    assert desk.gateway.held() == {BTC: order.intent.quantity}
    assert desk.gateway.longest_bare_s() == 0
    (fill,) = [one for one in desk.journal.events() if isinstance(one, FillBooked)]
    assert fill.fill.is_maker
    # Better than the middle by half the spread.
    assert fill.slippage < 0
    assert fill.order_type is OrderType.LIMIT


@styled(EntryStyle.LIMIT)
async def test_a_limit_entry_whose_time_is_over_takes_the_rest_at_market(desk):
    """After twenty seconds without a fill the order is cancelled and the quantity bought at market."""
    await desk.enter()
    await desk.wait(19)
    assert desk.gateway.held() == {}
    await desk.wait(3)

    kinds = [(one.intent.order_type, one.status) for one in desk.entries]
    assert kinds == [(OrderType.LIMIT, OrderStatus.CANCELED), (OrderType.MARKET, OrderStatus.FILLED)]
    assert desk.gateway.held() == {BTC: Decimal("0.04")}
    assert desk.gateway.longest_bare_s() == 0
    fills = [one for one in desk.journal.events() if isinstance(one, FillBooked)]
    assert all(one.slippage > 0 and one.order_type is OrderType.MARKET for one in fills)


@styled(EntryStyle.POST_ONLY)
@pytest.mark.parametrize("direction", [Direction.LONG, Direction.SHORT])
async def test_a_post_only_entry_follows_the_price_and_gives_up_in_time(desk, direction):
    """It moves its order after a better price of its own side, never takes, and is no trade when its time is over."""
    await desk.enter(direction)
    sign = 1 if direction is Direction.LONG else -1
    desk.gateway.move(BTC, START + sign * 100)
    await desk.wait(3)
    assert len(desk.entries) == 2
    assert all(one.intent.post_only for one in desk.entries)
    quote = desk.gateway._quote(BTC)
    assert desk.entries[-1].intent.limit_price == (quote.bid if sign > 0 else quote.ask)

    await desk.wait(20)
    assert desk.gateway.held() == {}
    assert desk.gateway.resting() == set()
    (trade,) = desk.executor.book.trades.values()
    assert trade.result.reason is ExitReason.NOT_ENTERED


@styled(EntryStyle.POST_ONLY)
@pytest.mark.parametrize("direction", [Direction.LONG, Direction.SHORT])
async def test_a_post_only_entry_follows_no_price_beyond_its_target(desk, direction):
    """Beyond the target there is nothing to gain: the order stays where it was until its time is over."""
    await desk.enter(direction)
    sign = 1 if direction is Direction.LONG else -1
    (order,) = desk.entries
    desk.gateway.move(BTC, START + sign * 5_100)
    await desk.wait(3)
    assert desk.entries == [order]
    assert order.status is OrderStatus.ACCEPTED

    desk.gateway.move(BTC, START + sign * 4_900)
    await desk.wait(3)
    assert len(desk.entries) == 2
    await desk.wait(20)
    assert desk.gateway.resting() == set()


@styled(EntryStyle.POST_ONLY)
async def test_a_post_only_order_that_would_take_is_asked_for_again_at_a_new_price(desk):
    """The venue's -5022 is no refusal of the trade."""
    real = desk.gateway.quote

    async def stale(symbol):
        desk.gateway.quote = real
        return Quote(symbol=symbol, bid=START + 100, ask=START + 101, event_time_ms=desk.clock.now_ms())

    desk.gateway.quote = stale
    await desk.enter()
    assert [one.refusal for one in desk.entries] == ["-5022", ""]
    assert desk.entries[-1].status is OrderStatus.ACCEPTED


@styled(EntryStyle.LIMIT)
async def test_leaving_takes_the_entry_away(desk):
    """What rests could still add to a position that is left."""
    await desk.enter()
    await desk.clock.drive(desk.executor.request_exit(BTC, ExitReason.OPERATOR))
    await desk.wait(2)

    assert desk.gateway.resting() == set()
    assert [one.status for one in desk.entries] == [OrderStatus.CANCELED]


@styled(EntryStyle.LIMIT)
async def test_an_exit_waits_for_no_cancellation(desk):
    """A position is left at market at once, though the venue will not take the rest of its entry away for long."""
    await desk.enter()
    (resting,) = desk.gateway.exchange.open_orders()
    desk.gateway.exchange._make(resting, Decimal("0.001"), now_ms=desk.clock.now_ms())
    desk.gateway._settle()
    await desk.wait(1)
    held = desk.gateway.held()

    async def down(intent) -> None:
        raise VenueDownError(f"nobody cancels {intent.client_order_id}")

    desk.gateway.cancel = down
    await desk.clock.drive(desk.executor.request_exit(BTC, ExitReason.OPERATOR))
    await desk.wait(3)

    assert held == {BTC: Decimal("0.001")}
    assert desk.gateway.held() == {}


@styled(EntryStyle.LIMIT)
async def test_an_entry_that_somebody_cancelled_is_not_sent_again(desk):
    """A person, or the switch at the venue, took it away: it stays away."""
    await desk.enter()
    desk.gateway.exchange.cancel_all("BTCUSDT", now_ms=desk.clock.now_ms())
    desk.gateway._settle()
    await desk.wait(30)

    assert len(desk.entries) == 1
    assert desk.gateway.held() == {}


@styled(EntryStyle.LIMIT)
async def test_a_new_process_wishes_for_no_entry(desk):
    """After a kill the resting entry is taken away, and what it filled by then is protected."""
    await desk.enter()
    await abandon_everything()
    desk.gateway.move(BTC, START - 20)
    await desk.begin()
    await desk.wait(5)

    assert desk.gateway.held() == {BTC: Decimal("0.04")}
    assert desk.gateway.longest_bare_s() == 0
    assert desk.executor.is_reconciled


@styled(EntryStyle.LIMIT)
async def test_the_switch_cancels_what_a_dead_worker_left_and_nothing_that_protects(desk):
    """Half a minute after the last word of ours the venue takes entries away; stops stay."""
    await desk.enter()
    desk.gateway.move(BTC, START - 20)
    await desk.wait(2)
    protecting = desk.gateway.resting()
    assert len(protecting) == 2
    # The entry is done, so its switch was taken back.
    assert desk.gateway.exchange.state.countdowns == {}
    await desk.gateway.set_countdown(BTC, 30)
    await abandon_everything()
    desk.gateway.exchange.submit(_resting_order(desk), now_ms=desk.clock.now_ms())
    desk.clock.seconds += 31
    desk.gateway._run_countdowns()

    assert desk.gateway.resting() == protecting


@styled(EntryStyle.LIMIT)
async def test_the_switch_is_wound_up_while_an_entry_rests(desk):
    """Before the order is sent, and again each ten seconds; a stop of the worker takes both away."""
    await desk.enter()
    first = dict(desk.gateway.exchange.state.countdowns)
    assert first == {"BTCUSDT": desk.clock.now_ms() + 30_000}
    await desk.wait(15)
    assert desk.gateway.exchange.state.countdowns["BTCUSDT"] > first["BTCUSDT"]
    assert len(desk.gateway.resting()) == 1

    await desk.clock.drive(desk.executor.stop())
    assert desk.gateway.resting() == set()
    assert desk.gateway.exchange.state.countdowns == {}


@styled(EntryStyle.LIMIT)
async def test_an_entry_waits_for_a_switch_that_cannot_be_armed(desk):
    """Where the venue cannot be asked for it nothing rests; where it has none, entries rest without."""
    desk.gateway.asking_faults = ["", "down"]
    await desk.enter()
    assert desk.entries == []
    await desk.wait(3)
    assert len(desk.entries) == 1


@styled(EntryStyle.MARKET)
async def test_a_market_entry_arms_nothing_and_an_exit_tells_its_slippage(desk):
    """The default is as it was; what an exit cost is held against the price that was known."""
    await desk.enter()
    assert desk.gateway.exchange.state.countdowns == {}
    await desk.clock.drive(desk.executor.request_exit(BTC, ExitReason.TIME_BARRIER))

    fills = [one for one in desk.journal.events() if isinstance(one, FillBooked)]
    assert [one.fill.side for one in fills] == [Side.BUY, Side.SELL]
    assert all(one.slippage > 0 for one in fills)


@styled(EntryStyle.MARKET)
async def test_slippage_is_unknown_where_the_price_is_old(desk):
    """A price of long ago says nothing of what an order met."""
    await desk.enter()
    await desk.wait(120)
    await desk.clock.drive(desk.executor.request_exit(BTC, ExitReason.TIME_BARRIER))

    fills = [one for one in desk.journal.events() if isinstance(one, FillBooked)]
    assert fills[-1].slippage is UNSET
    intents = [one.intent for one in desk.journal.events() if isinstance(one, OrderIntended)]
    assert intents[-1].arrival_price is None
    stop = next(one for one in intents if one.purpose is Purpose.STOP)
    assert stop.arrival_price == stop.trigger_price


@styled(EntryStyle.MARKET)
async def test_a_doubt_lasts_until_journal_and_venue_were_compared(desk):
    """After an interruption of the stream nothing is entered before the next reconciliation; exits go on."""
    desk.executor.doubt()
    assert not desk.executor.is_reconciled
    await desk.enter()
    assert desk.executor.book.trades == {}

    await desk.wait(3)
    assert desk.executor.is_reconciled
    await desk.enter()
    assert desk.gateway.held() == {BTC: Decimal("0.04")}


@styled(EntryStyle.MARKET)
async def test_a_doubt_during_a_reconciliation_outlasts_it(desk):
    """What happens after the venue was read is not in what was read."""
    reconciling = asyncio.create_task(desk.executor.reconcile())
    await asyncio.sleep(0)
    desk.executor.doubt()

    assert not await desk.clock.drive(reconciling)


@styled(EntryStyle.MARKET)
async def test_what_nothing_explains_is_flattened_and_ends_entries(desk):
    """A position without a trade and an order of ours is ended, journaled with its reason, and halts entries."""
    desk.gateway.trade_by_hand("SOL/USDT:USDT", Decimal(10))
    await desk.wait(40)

    assert desk.gateway.held() == {}
    assert "SOL/USDT:USDT" in desk.executor.unexplained
    (noted,) = [one for one in desk.journal.events() if isinstance(one, Noted)]
    assert noted.event_type == "risk.corrected"
    assert noted.detail["action"] == "position_flattened"
    assert "explains" in noted.detail["reason"]
    await desk.enter()
    assert desk.gateway.held() == {}


def _purpose(client_order_id: str) -> Purpose | None:
    key = order_key(client_order_id)
    return None if key is None else key.purpose


@styled(EntryStyle.MARKET)
async def test_what_another_journal_of_ours_explains_is_flattened_and_halts_nothing(desk):
    """The successor of another home ends what it knows nothing of, and goes on."""
    await desk.enter()
    await abandon_everything()
    desk.journal = MemoryJournal()
    await desk.begin()
    await desk.wait(5)

    assert desk.gateway.held() == {}
    assert desk.gateway.resting() == set()
    assert desk.executor.unexplained == ""
    told = [one.detail for one in desk.journal.events() if isinstance(one, Noted)]
    actions = [one["action"] for one in told]
    assert set(actions) == {"position_flattened", "orphan_cancelled"}
    # Its stop protects what is held until that is gone.
    (stop,) = [at for at, one in enumerate(told) if _purpose(one.get("client_order_id", "")) is Purpose.STOP]
    assert actions.index("position_flattened") < stop


@styled(EntryStyle.MARKET)
async def test_what_somebody_else_trades_of_ours_is_adopted_with_its_reason(desk):
    """Half of a position closed by hand: the venue is right, the stop shrinks, and the journal says why."""
    await desk.enter()
    desk.gateway.trade_by_hand(BTC, Decimal("-0.02"))
    await desk.wait(45)

    (found,) = [one for one in desk.journal.events() if isinstance(one, PositionFoundChanged)]
    assert found.open_quantity == Decimal("0.02")
    assert "somebody else" in found.reason
    assert desk.executor.unexplained == ""
    assert desk.gateway.longest_bare_s() == 0


def _resting_order(desk):
    from infra.sandbox.engine.model import OrderRequest
    from infra.sandbox.engine.model import OrderType as EngineType
    from infra.sandbox.engine.model import Side as EngineSide

    return OrderRequest("BTCUSDT", EngineSide.BUY, EngineType.LIMIT, Decimal("0.01"), price=START - 1000)
