from __future__ import annotations

import asyncio
from decimal import Decimal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inference.domain.events import TradeClosed
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason
from inference.execution.book import Book
from tests.fault.test_executor_crash import cash
from tests.worker_support import (
    Crash,
    FakeClock,
    FakeGateway,
    MemoryJournal,
    abandon_everything,
    make_executor,
    shuffled,
)
from tests.worker_values import make_approved

SYMBOLS = ["BTC/USDT:USDT", "ETH/USDT:USDT"]
FAULTS = ["", "drop", "exec_then_drop", "late", "down", "overload", "limited", "partial", "hang"]
symbols = st.sampled_from(SYMBOLS)


class Chaos(RuleBasedStateMachine):
    """A worker that trades two symbols while the venue, the stream, the price and the process misbehave."""

    @initialize()
    def begin(self):
        """An empty account, an empty journal, a running worker."""
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda *_: None)
        self.clock = FakeClock()
        self.gateway = FakeGateway(self.clock, marks=dict.fromkeys(SYMBOLS, Decimal(50_000)))
        self.journal = MemoryJournal(moment=self.gateway.moment)
        self.count = 0
        self.by_hand = False
        self.start()

    def start(self):
        """Start a process from what the journal holds."""
        self.gateway.crash_at = None
        self.executor = make_executor(self.gateway, self.journal, book=Book.rebuilt(self.journal.events()))
        self.running = self.loop.create_task(self.executor.run())
        self.drive(self.executor.start())

    def drive(self, awaitable):
        """Run in virtual time; a crash on the way is a dead process that starts again from its journal."""
        try:
            self.loop.run_until_complete(self.clock.drive(awaitable, limit_seconds=3000))
        except Crash:
            self.restart()

    def restart(self):
        """Kill the process, if it still lives, and start the next."""
        self.gateway.crash_at = None
        self.loop.run_until_complete(abandon_everything())
        self.start()

    @rule(symbol=symbols, direction=st.sampled_from([Direction.LONG, Direction.SHORT]))
    def enter(self, symbol, direction):
        """A signal is approved at the current price."""
        self.count += 1
        mark = self.gateway.marks[symbol]
        sign = 1 if direction is Direction.LONG else -1
        approved = make_approved(
            symbol,
            direction=direction,
            trace_id=f"trace-{self.count}",
            stop_price=mark - sign * 300,
            target_price=mark + sign * 400,
        )
        self.drive(self.executor.enter(approved, candle_close_ms=self.clock.now_ms()))

    @rule(symbol=symbols, ticks=st.integers(-6, 6))
    def move(self, symbol, ticks):
        """The price moves, through stops and targets perhaps."""
        self.gateway.move(symbol, self.gateway.marks[symbol] + 100 * ticks)
        self.drive(self.clock.sleep(0.01))

    @rule(symbol=symbols)
    def leave(self, symbol):
        """The time barrier ends whatever is open."""
        self.drive(self.executor.request_exit(symbol, ExitReason.TIME_BARRIER))

    @rule(faults=st.lists(st.sampled_from(FAULTS), max_size=6))
    def break_sendings(self, faults):
        """The next sendings fail in these ways."""
        self.gateway.faults = faults

    @rule(faults=st.lists(st.sampled_from(["", "down", "stale"]), max_size=6))
    def break_queries(self, faults):
        """The next questions fail in these ways."""
        self.gateway.query_faults = faults

    @rule(held=st.booleans())
    def hold_stream(self, held):
        """The user stream falls silent, or speaks again."""
        self.gateway.hold_stream = held

    @rule(seed=st.integers(0, 1000))
    def deliver(self, seed):
        """What the stream held back arrives late, repeated and out of order."""
        self.gateway.deliver(shuffled(seed))
        self.drive(self.clock.sleep(0.01))

    @rule(moments=st.integers(1, 40))
    def die_soon(self, moments):
        """The process will be killed at one of its next awaits or journal lines."""
        self.gateway.crash_at = self.gateway.moments + moments

    @rule()
    def die_now(self):
        """The process is killed."""
        self.restart()

    @rule(symbol=symbols, thousandths=st.sampled_from([-40, -10, 10, 40]))
    @precondition(lambda self: self.count > 0)
    def trade_by_hand(self, symbol, thousandths):
        """Somebody else trades on the account."""
        self.by_hand = True
        self.gateway.trade_by_hand(symbol, Decimal(thousandths) / 1000)

    @rule(seconds=st.sampled_from([1, 5, 40]))
    def wait(self, seconds):
        """Time passes."""
        self.drive(self.clock.sleep(seconds))

    @invariant()
    def no_order_executed_twice(self):
        """No client order id ever stands for two executed orders."""
        if hasattr(self, "gateway"):
            assert self.gateway.duplicates() == []

    def teardown(self):
        """Once venue and process are well again, journal and venue agree and everything open is protected."""
        if not hasattr(self, "gateway"):
            return
        try:
            self.check_in_the_end()
        finally:
            self.loop.run_until_complete(abandon_everything())
            self.loop.close()

    def check_in_the_end(self):
        """Let everything recover, then hold what is believed against what is."""
        self.gateway.faults, self.gateway.query_faults, self.gateway.hold_stream = [], [], False
        self.restart()
        self.gateway.deliver()
        self.drive(self.clock.sleep(90))
        assert self.executor.failure is None
        self.drive(self.executor.reconcile())
        assert self.executor.is_reconciled

        held = {symbol: quantity for symbol, quantity in self.gateway.held.items() if quantity != 0}
        signed = {trade.symbol: trade.signed_quantity for trade in self.executor.book.active()}
        assert held == {symbol: quantity for symbol, quantity in signed.items() if quantity != 0}
        assert self.gateway.unprotected() == []
        wanted = {key for trade in self.executor.book.active() for key in trade.orders}
        assert set(self.gateway.orders) <= wanted

        for symbol in SYMBOLS:
            self.drive(self.executor.request_exit(symbol, ExitReason.OPERATOR))
        self.drive(self.clock.sleep(10))
        assert self.gateway.orders == {}
        assert all(quantity == 0 for quantity in self.gateway.held.values())
        if not self.by_hand:
            results = {e.trade_id: e.result for e in self.journal.events() if isinstance(e, TradeClosed)}
            assert sum(result.pnl for result in results.values()) == cash(self.gateway)
        assert Book.rebuilt(self.journal.events()).trades == self.executor.book.trades


Chaos.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestChaos = Chaos.TestCase
