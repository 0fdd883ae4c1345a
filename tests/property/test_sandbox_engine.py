from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infra.sandbox.engine import state as states
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import AlgoRequest, OrderRequest, OrderType, PositionSide, Side, TimeInForce

D = Decimal
COIN = Instrument("COINUSDT", "COIN", 2, 1, D(5), D(10_000), D(5_000), D(2_000))
OPENING = D(1_000_000)

sides = st.sampled_from(list(Side))
quantities = st.integers(1, 400).map(lambda n: D(n) / 10)
offsets = st.integers(-600, 600).map(lambda n: D(n) / 100)
forces = st.sampled_from([TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK, TimeInForce.GTX])


class AnyTrading(RuleBasedStateMachine):
    """Whatever a client sends and wherever the price goes, the books stay true."""

    @initialize()
    def open_account(self) -> None:
        """Two exchanges that must never differ."""
        self.exchange = Exchange([COIN], states.new_state(OPENING))
        self.twin = Exchange([COIN], states.new_state(OPENING))
        self.price = D(100)
        self.now = 0
        self._both(lambda one: one.tick({"COINUSDT": self.price}, now_ms=self.now))

    def _both(self, act) -> None:
        """Do the same to two exchanges; they must answer the same."""
        self.now += 1
        answers = []
        for one in (self.exchange, self.twin):
            try:
                answers.append(act(one))
            except VenueError as refusal:
                answers.append(refusal.code)
        assert answers[0] == answers[1]
        assert self.exchange.drain() == self.twin.drain()

    @property
    def held(self) -> Decimal:
        """The position."""
        return self.exchange.state.position("COINUSDT", PositionSide.BOTH).quantity

    def _without_flip(self, act) -> None:
        before = self.held
        self._both(act)
        assert before * self.held >= 0
        assert abs(self.held) <= abs(before)

    @rule(side=sides, quantity=quantities)
    def market(self, side, quantity) -> None:
        """A market order."""
        request = OrderRequest("COINUSDT", side, OrderType.MARKET, quantity)
        self._both(lambda one: one.submit(request, now_ms=self.now))

    @rule(side=sides, quantity=quantities)
    def reduce_only_market(self, side, quantity) -> None:
        """An order that may only reduce."""
        request = OrderRequest("COINUSDT", side, OrderType.MARKET, quantity, reduce_only=True)
        self._without_flip(lambda one: one.submit(request, now_ms=self.now))

    @rule(side=sides, quantity=quantities, offset=offsets, force=forces, reduces=st.booleans())
    def limit(self, side, quantity, offset, force, reduces) -> None:
        """A limit order of any kind."""
        request = OrderRequest(
            "COINUSDT", side, OrderType.LIMIT, quantity, self.price + offset, force, reduce_only=reduces
        )
        act = self._without_flip if reduces else self._both
        act(lambda one: one.submit(request, now_ms=self.now))

    @rule(
        side=sides,
        quantity=quantities,
        offset=offsets,
        kind=st.sampled_from([OrderType.STOP_MARKET, OrderType.TAKE_PROFIT_MARKET, OrderType.STOP]),
        closes=st.sampled_from(["reduce", "close", "open"]),
    )
    def conditional(self, side, quantity, offset, kind, closes) -> None:
        """A conditional order of any kind."""
        request = AlgoRequest(
            "COINUSDT", side, kind, quantity, trigger_price=self.price + offset, price=self.price + offset,
            reduce_only=closes == "reduce",
        )  # fmt: skip
        if closes == "close":
            request = replace(request, quantity=D(0), close_position=True)
        self._both(lambda one: one.submit_algo(request, now_ms=self.now))

    @precondition(lambda self: self.exchange.open_orders())
    @rule(quantity=quantities, offset=offsets)
    def amend(self, quantity, offset) -> None:
        """A change of a resting order."""
        order = self.exchange.open_orders()[0]
        self._both(
            lambda one: one.amend(
                "COINUSDT", order.order_id, quantity=quantity, price=self.price + offset, now_ms=self.now
            )
        )

    @precondition(lambda self: self.exchange.open_orders())
    @rule()
    def cancel(self) -> None:
        """A cancellation."""
        order = self.exchange.open_orders()[-1]
        self._both(lambda one: one.cancel("COINUSDT", order_id=order.order_id, now_ms=self.now))

    @rule(move=offsets)
    def price_moves(self, move) -> None:
        """A new price."""
        self.price = max(D(50), self.price + move)
        self._both(lambda one: one.tick({"COINUSDT": self.price}, now_ms=self.now))

    @rule(rate=st.integers(-20, 20))
    def funding(self, rate) -> None:
        """A funding settlement."""
        self._both(lambda one: one.settle_funding({"COINUSDT": D(rate) / 10_000}, now_ms=self.now))

    @rule()
    def restart(self) -> None:
        """What was saved and read back goes on exactly like what never stopped."""
        raw = states.encode(self.exchange.state)
        restored = states.decode(raw)
        assert restored == self.exchange.state
        self.exchange = Exchange([COIN], restored)

    @invariant()
    def money_is_conserved(self) -> None:
        """The wallet is what was paid in and out: fills, fees and funding; nothing appears or vanishes."""
        state = self.exchange.state
        realized = sum((t.realized_pnl for t in state.trades), D(0))
        fees = sum((t.fee for t in state.trades), D(0))
        funding = sum((i.amount for i in state.incomes if i.kind == "FUNDING_FEE"), D(0))
        assert state.wallet == OPENING + realized - fees + funding
        assert state.wallet == OPENING + sum((i.amount for i in state.incomes), D(0))
        # Cash out of all fills equals realized profit less the cost of what is still held.
        cash = sum((-t.side.sign * t.notional for t in state.trades), D(0))
        cost = state.position("COINUSDT", PositionSide.BOTH).cost
        assert cash == realized - cost

    @invariant()
    def position_is_the_sum_of_fills(self) -> None:
        """Quantities agree wherever they are kept."""
        state = self.exchange.state
        assert self.held == sum((t.side.sign * t.quantity for t in state.trades), D(0))
        for order in state.orders.values():
            assert D(0) <= order.filled <= order.quantity
            assert order.filled == sum((t.quantity for t in state.trades if t.order_id == order.order_id), D(0))

    @invariant()
    def round_trips_account_for_every_fee(self) -> None:
        """Closed and open round trips share out all fees and all realized profit."""
        state = self.exchange.state
        trips = [*state.trips, *state.open_trips.values()]
        assert sum((t.realized_pnl for t in trips), D(0)) == sum((t.realized_pnl for t in state.trades), D(0))
        difference = sum((t.fees for t in trips), D(0)) - sum((t.fee for t in state.trades), D(0))
        assert abs(difference) < D("1e-15")


AnyTrading.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyTrading = AnyTrading.TestCase
