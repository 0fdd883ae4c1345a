"""A worker's executor at the real matching engine, while venue, stream, price and process misbehave."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from decimal import Decimal
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inference.domain.decision import Approved
from inference.domain.events import TradeClosed
from inference.domain.order import Fill, OrderReport, OrderStatus
from inference.domain.policy import EntryStyle
from inference.domain.signal import Direction, SignalScore
from inference.domain.trade import ExitReason
from inference.execution.book import Book
from inference.execution.executor import Executor
from inference.execution.lifecycle import TRANSITIONS
from inference.execution.submission import ExecutionSettings
from infra.prove.engine_gateway import ASKING_FAULTS, SENDING_FAULTS, EngineGateway
from infra.prove.virtual import Crash, MemoryJournal, VirtualClock, abandon_everything, shuffled
from infra.sandbox.engine.instrument import Instrument, instrument_for_price

START_MS = 1_750_000_200_000
PRICES = {"BTC/USDT:USDT": Decimal(50_000), "SOL/USDT:USDT": Decimal(150)}
# All levels of the second's book together hold less than the largest entry: it ends with a part of it filled.
INSTRUMENTS: dict[str, Instrument] = {
    "BTC/USDT:USDT": instrument_for_price("BTCUSDT", "BTC", 50_000, depth_notional=400_000),
    "SOL/USDT:USDT": instrument_for_price("SOLUSDT", "SOL", 150, depth_notional=500),
}
TAKER_FEE = Decimal("0.0005")
BALANCE = Decimal(10_000_000)
# Five seconds for a stop, and one to leave; each fault on the way may cost what one costs, and what nobody was told of
# is found by the next reconciliation.
BARE_S, BARE_PER_FAULT_S, UNSEEN_S, HANDS_S = 6.0, 2.5, 45.0, 60.0
_PROMPT_S = 3000.0

symbols = st.sampled_from(sorted(PRICES))
sending = st.lists(st.sampled_from(["", *SENDING_FAULTS]), max_size=5)
asking = st.lists(st.sampled_from(["", *ASKING_FAULTS]), max_size=5)


class Trading(RuleBasedStateMachine):
    """Whatever happens: no order doubled or lost, no position bare for long, and journal and venue agree in the end."""

    steps: ClassVar[int] = 0
    seen: ClassVar[Counter[str]] = Counter()

    @initialize(style=st.sampled_from(list(EntryStyle)))
    def begin(self, style: EntryStyle = EntryStyle.MARKET) -> None:
        """An empty account, an empty journal, a running process."""
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda *_: None)
        self.clock = VirtualClock(START_MS)
        self.gateway = EngineGateway(self.clock, INSTRUMENTS, balance=BALANCE)
        for symbol, price in PRICES.items():
            self.gateway.move(symbol, price)
        self.journal = MemoryJournal(moment=self.gateway.moment)
        self.number, self.style = 0, style
        self.known: dict[str, tuple[OrderStatus, Decimal]] = {}
        self.by_hand = self.hands_now = False
        self.hands_at = float("-inf")
        self._forgive()
        self.start()

    def start(self) -> None:
        """Start a process from what the journal holds."""
        self.gateway.crash_at = None
        self.executor = Executor(
            gateway=self.gateway,
            journal=self.journal,
            book=Book.rebuilt(self.journal.events()),
            now_ms=self.clock.now_ms,
            monotonic=self.clock.monotonic,
            sleep=self.clock.sleep,
            taker_fee=TAKER_FEE,
            settings=ExecutionSettings(),
            entry_style=self.style,
            entry_patience_seconds=20,
        )
        self.gateway.stream = self._stream(self.executor)
        self.running = self.loop.create_task(self.executor.run())
        self.drive(self.executor.start())

    def drive(self, work: Any) -> None:
        """Run in virtual time; a crash on the way is a dead process that starts again from its journal."""
        try:
            self.loop.run_until_complete(self.clock.drive(work, limit_seconds=_PROMPT_S))
        except Crash:
            self.gateway.is_dead = True
        # Where a task in the background died, so did the process.
        if self.gateway.is_dead:
            self.restart()

    def restart(self) -> None:
        """Kill the process, if it still lives, and start the next."""
        self.gateway.crash_at, self.gateway.is_dead = None, False
        self.seen["processes killed"] += 1
        self.loop.run_until_complete(abandon_everything())
        self.start()

    @rule(
        symbol=symbols,
        direction=st.sampled_from([Direction.LONG, Direction.SHORT]),
        notional=st.sampled_from([500, 5_000, 300_000]),
        wide=st.booleans(),
    )
    def enter(self, symbol: str, direction: Direction, notional: int, *, wide: bool) -> None:
        """An entry is approved at the present price."""
        self.number += 1
        price, instrument = self.gateway.prices[symbol], INSTRUMENTS[symbol]
        sign = 1 if direction is Direction.LONG else -1
        step = instrument.step
        away = price * (Decimal("0.05") if wide else Decimal("0.004"))
        approved = Approved(
            symbol=symbol,
            direction=direction,
            quantity=max(step, (Decimal(notional) / price // step) * step),
            reference_price=price,
            stop_price=(price - sign * away).quantize(instrument.tick),
            target_price=(price + sign * away).quantize(instrument.tick),
            risk=Decimal(1),
            signal=SignalScore(
                symbol=symbol, direction=direction, probability=0.6, expected_return=0.001 * sign, members=(),
                consensus=1, model_version="machine", feature_time_ms=self.clock.now_ms(),
                trace_id=f"trade-{self.number}",
            ),
        )  # fmt: skip
        self.drive(self.executor.enter(approved, candle_close_ms=self.clock.now_ms()))

    @rule(symbol=symbols, permille=st.integers(-9, 9))
    def move(self, symbol: str, permille: int) -> None:
        """The price moves, through stops and targets perhaps."""
        price = self.gateway.prices[symbol] * (1 + Decimal(permille) / 1000)
        self.gateway.move(symbol, price.quantize(INSTRUMENTS[symbol].tick))
        self.drive(self.clock.sleep(0.01))

    @rule(symbol=symbols, permille=st.integers(-9, 9), lots=st.sampled_from([1, 20, 1_000]))
    def move_thinly(self, symbol: str, permille: int, lots: int) -> None:
        """The price moves and hardly anybody trades: what rests, or fires, fills in part."""
        instrument = INSTRUMENTS[symbol]
        price = self.gateway.prices[symbol] * (1 + Decimal(permille) / 1000)
        self.gateway.move(symbol, price.quantize(instrument.tick), volume=lots * instrument.step)
        self.drive(self.clock.sleep(0.01))

    @rule(symbol=symbols)
    def leave(self, symbol: str) -> None:
        """The time barrier ends whatever is open."""
        self.drive(self.executor.request_exit(symbol, ExitReason.TIME_BARRIER))

    @rule(faults=sending)
    def break_sendings(self, faults: list[str]) -> None:
        """The next sendings fail in these ways."""
        self.gateway.sending_faults = list(faults)

    @rule(faults=asking)
    def break_questions(self, faults: list[str]) -> None:
        """The next questions and cancels fail in these ways."""
        self.gateway.asking_faults = list(faults)

    @rule(holds=st.booleans())
    def hold_stream(self, *, holds: bool) -> None:
        """The user stream falls silent, or speaks again of what is new."""
        self.gateway.holds_stream = holds
        self.unseen = self.unseen or holds

    @rule(seed=st.integers(0, 1000))
    def deliver(self, seed: int) -> None:
        """What the stream held back arrives late, repeated and out of order."""
        self.gateway.deliver(shuffled(seed))
        self.drive(self.clock.sleep(0.01))

    @rule()
    def lose_events(self) -> None:
        """What the stream held back never arrives."""
        self.gateway.undelivered = []
        self.unseen = True

    @rule(moments=st.integers(1, 40))
    def die_soon(self, moments: int) -> None:
        """The process will be killed at one of its next requests or journal lines."""
        self.gateway.crash_at = self.gateway.moments + moments

    @rule()
    def die_now(self) -> None:
        """The process is killed."""
        self.restart()

    @rule(symbol=symbols, lots=st.sampled_from([-40, -10, 10, 40]))
    @precondition(lambda self: self.number > 0 and self.number % 4 == 0)
    def trade_by_hand(self, symbol: str, lots: int) -> None:
        """Somebody else trades on the account."""
        self.by_hand = self.hands_now = True
        self.hands_at = self.clock.seconds
        self.gateway.trade_by_hand(symbol, lots * INSTRUMENTS[symbol].step * 10)

    @rule(seconds=st.sampled_from([1, 5, 35]))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.drive(self.clock.sleep(seconds))

    @rule()
    def come_to_rest(self) -> None:
        """Venue and stream are well for a while: whatever is believed is so."""
        self.calm()
        self.check_belief()

    @invariant()
    def no_order_executed_twice(self) -> None:
        """No client order id ever stands for two executed orders."""
        if hasattr(self, "gateway"):
            Trading.steps += 1
            assert [key for key, ids in self.gateway.exchange.state.executed.items() if len(ids) > 1] == []

    @invariant()
    def orders_live_by_the_table(self) -> None:
        """No order leaves a state but for one that may follow it, none executes less, none more than it asked for."""
        if not hasattr(self, "executor"):
            return
        for trade in self.executor.book.trades.values():
            for key, order in trade.orders.items():
                before, executed = self.known.get(key, (OrderStatus.INTENDED, Decimal(0)))
                if before is OrderStatus.FILLED:
                    assert order.status is OrderStatus.FILLED, f"{key} was filled and is {order.status}"
                elif before.is_terminal and before is not OrderStatus.REFUSED and order.status is not before:
                    assert order.status in TRANSITIONS[before], f"{key} went from {before} to {order.status}"
                # A restart forgets what was never journaled, which is only what nobody acted upon.
                assert order.executed >= executed or not order.status.is_terminal, key
                assert order.executed <= order.intent.quantity, key
                assert order.booked == sum((one.quantity for one in order.fills.values()), Decimal(0)), key
                self.known[key] = (order.status, order.executed)

    @invariant()
    def nothing_is_bare_for_long(self) -> None:
        """A position without a stop is a matter of seconds, and of the faults that were met."""
        if not hasattr(self, "gateway"):
            return
        bare_s = self.gateway.longest_bare_s()
        if bare_s == 0:
            self._forgive()
            return
        faults = self.gateway.faults_met - self.faults_before
        bound = BARE_S + BARE_PER_FAULT_S * faults + UNSEEN_S * self.unseen + HANDS_S * self.hands_now
        assert bare_s <= bound, f"bare for {bare_s:.1f} s, {faults} faults met"

    def _forgive(self) -> None:
        self.faults_before = self.gateway.faults_met
        self.unseen = self.gateway.holds_stream
        # What is done at this very moment has not been without a stop for any time yet.
        self.hands_now = self.hands_now and self.clock.seconds <= self.hands_at

    def calm(self) -> None:
        """Let venue, stream and process be well until nothing is left to do."""
        self.gateway.sending_faults, self.gateway.asking_faults = [], []
        self.gateway.holds_stream, self.gateway.crash_at = False, None
        self.gateway.deliver()
        self.drive(self.clock.sleep(45))
        self.drive(self.executor.reconcile())
        assert self.executor.is_reconciled, "journal and venue do not agree in the end"

    def check_belief(self) -> None:
        """Hold what is believed against what is."""
        book, venue = self.executor.book, self.gateway.exchange
        assert self.executor.failure is None
        believed = {one.symbol: one.signed_quantity for one in book.active() if one.signed_quantity != 0}
        assert believed == self.gateway.held()
        wanted = {key for trade in book.active() for key in trade.orders}
        assert self.gateway.resting() <= wanted
        assert self.gateway.longest_bare_s() == 0
        for trade in book.trades.values():
            for key, order in trade.orders.items():
                filled = sum((one.quantity for one in venue.state.trades if one.client_order_id == key), Decimal(0))
                assert order.executed == filled, f"{key}: {order.executed} with us, {filled} at the venue"
        assert Book.rebuilt(self.journal.events()).trades == book.trades

    def teardown(self) -> None:
        """Once all are well again, everything can be closed, nothing is left over, and the money is the venue's."""
        if not hasattr(self, "gateway"):
            return
        try:
            self.finish()
        finally:
            self.loop.run_until_complete(abandon_everything())
            self.loop.close()

    def finish(self) -> None:
        """Restart, close everything, and count."""
        self.restart()
        self.calm()
        self.check_belief()
        for symbol in PRICES:
            self.drive(self.executor.request_exit(symbol, ExitReason.OPERATOR))
        self.calm()
        assert self.gateway.held() == {}
        assert self.gateway.resting() == set()
        state = self.gateway.exchange.state
        self.seen["trades"] += len({e.trade_id for e in self.journal.events() if isinstance(e, TradeClosed)})
        self.seen["orders executed"] += len(state.executed)
        self.seen["faults met"] += self.gateway.faults_met
        ended = [order for trade in self.executor.book.trades.values() for order in trade.orders.values()]
        self.seen["orders filled in part"] += sum(
            order.status is not OrderStatus.FILLED and 0 < order.executed < order.intent.quantity for order in ended
        )
        if not self.by_hand:
            results = {e.trade_id: e.result for e in self.journal.events() if isinstance(e, TradeClosed)}
            assert sum((one.pnl for one in results.values()), Decimal(0)) == state.wallet - state.opening_balance

    def _stream(self, executor: Executor) -> Any:
        def told(event: OrderReport | Fill) -> None:
            # The venue does not notice that we died while listening.
            with suppress(Crash):
                if isinstance(event, Fill):
                    executor.on_fill(event)
                else:
                    executor.on_report(event)

        return told
