"""Whatever is asked of the engine, under whatever rules of liquidity, its orders keep their promises."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infra.sandbox.engine import state as states
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.model import (
    AlgoRequest,
    OrderEvent,
    OrderRequest,
    OrderStatus,
    OrderType,
    PositionSide,
    SelfTradePrevention,
    Side,
    TimeInForce,
    WorkingType,
)
from infra.sandbox.engine.rules import Rules
from tests.matching_support import COIN, NAME

D = Decimal
GTD_MS = 600_000

sides = st.sampled_from(list(Side))
quantities = st.integers(1, 400).map(lambda n: D(n) / 10)
offsets = st.integers(-300, 300).map(lambda n: D(n) / 100)
some_rules = st.builds(
    Rules,
    seed=st.integers(0, 9),
    touch_probability=st.sampled_from([D(0), D("0.5"), D(1)]),
    participation=st.sampled_from([D(0), D("0.1"), D(1)]),
    impact_bps=st.sampled_from([D(0), D(20)]),
    queue=st.booleans(),
    take_bound=st.sampled_from([D(0), D("0.15")]),
)
kinds = st.sampled_from(
    [OrderType.STOP, OrderType.STOP_MARKET, OrderType.TAKE_PROFIT, OrderType.TAKE_PROFIT_MARKET,
     OrderType.TRAILING_STOP_MARKET]
)  # fmt: skip


class AnyOrders(RuleBasedStateMachine):
    """Two engines that are asked the same, one of which is saved and read back now and then."""

    @initialize(rules=some_rules, hedge=st.booleans())
    def open_account(self, rules, hedge) -> None:
        """One account under some rules."""
        self.engines = []
        for _ in range(2):
            state = states.new_state(D(1_000_000))
            state.rules = rules
            self.engines.append(Exchange([COIN], state))
        self.now, self.price = 0, D(100)
        self.news: list[OrderEvent] = []
        self.sides = [PositionSide.LONG, PositionSide.SHORT] if hedge else [PositionSide.BOTH]
        if hedge:
            self._ask(lambda one: one.set_hedge_mode(hedge=True))
        self._ask(lambda one: one.tick({NAME: self.price}, now_ms=self.now, volumes={NAME: D(500)}))

    @property
    def engine(self) -> Exchange:
        """The engine that is looked at."""
        return self.engines[0]

    def _ask(self, act) -> object:
        """Ask both; they must say and tell the same, digit for digit."""
        self.now += 1
        answers = []
        for one in self.engines:
            try:
                answers.append(act(one))
            except VenueError as refusal:
                answers.append(refusal.code)
        assert answers[0] == answers[1]
        mine, other = (one.drain() for one in self.engines)
        assert mine == other
        self.news = [event for event in mine if isinstance(event, OrderEvent)]
        return answers[0]

    @rule(
        data=st.data(), side=sides, quantity=quantities, offset=offsets, force=st.sampled_from(list(TimeInForce)),
        reduces=st.booleans(), mode=st.sampled_from(list(SelfTradePrevention)),
    )  # fmt: skip
    def limit(self, data, side, quantity, offset, force, reduces, mode) -> None:
        """A limit order of any kind keeps what its time in force promises."""
        request = OrderRequest(
            NAME, side, OrderType.LIMIT, quantity, self.price + offset, force, reduce_only=reduces,
            position_side=data.draw(st.sampled_from(self.sides)), self_trade_prevention=mode,
            good_till_ms=self.now + GTD_MS + 50 if force is TimeInForce.GTD else 0,
        )  # fmt: skip
        order = self._ask(lambda one: one.submit(request, now_ms=self.now))
        if isinstance(order, int):
            return
        if force is TimeInForce.FOK:
            assert (order.status, order.filled) == (OrderStatus.FILLED, quantity)
        if force is TimeInForce.IOC:
            assert not order.is_open
        if force is TimeInForce.GTX:
            assert (order.status, order.filled) == (OrderStatus.NEW, 0)

    @rule(data=st.data(), side=sides, quantity=quantities, reduces=st.booleans())
    def market(self, data, side, quantity, reduces) -> None:
        """A market order never waits."""
        request = OrderRequest(
            NAME, side, OrderType.MARKET, quantity, reduce_only=reduces,
            position_side=data.draw(st.sampled_from(self.sides)),
        )  # fmt: skip
        order = self._ask(lambda one: one.submit(request, now_ms=self.now))
        assert isinstance(order, int) or not order.is_open

    @rule(
        data=st.data(), side=sides, kind=kinds, quantity=quantities, offset=offsets, beyond=offsets,
        closes=st.sampled_from(["reduce", "close", "open"]), on_mark=st.booleans(),
        force=st.sampled_from([TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK, TimeInForce.GTX]),
    )  # fmt: skip
    def conditional(self, data, side, kind, quantity, offset, beyond, closes, on_mark, force) -> None:
        """A conditional order of any kind."""
        trailing = kind is OrderType.TRAILING_STOP_MARKET
        request = AlgoRequest(
            NAME, side, kind, D(0) if closes == "close" else quantity,
            trigger_price=None if trailing else self.price + offset, price=self.price + offset + beyond,
            reduce_only=closes == "reduce", close_position=closes == "close",
            position_side=data.draw(st.sampled_from(self.sides)), time_in_force=force,
            working_type=WorkingType.MARK_PRICE if on_mark else WorkingType.CONTRACT_PRICE,
            callback_rate=D("0.5") if trailing else None, activate_price=self.price + offset if trailing else None,
        )  # fmt: skip
        self._ask(lambda one: one.submit_algo(request, now_ms=self.now))

    @precondition(lambda self: self.engine.open_orders())
    @rule(data=st.data(), quantity=quantities, offset=offsets)
    def amend(self, data, quantity, offset) -> None:
        """A change of a resting order: never as a taker where the order is post-only."""
        order = data.draw(st.sampled_from(self.engine.open_orders()))
        self._ask(
            lambda one: one.amend(NAME, order.order_id, quantity=quantity, price=self.price + offset, now_ms=self.now)
        )

    @precondition(lambda self: self.engine.open_orders())
    @rule(data=st.data())
    def cancel(self, data) -> None:
        """A cancellation, and another one that comes too late."""
        order = data.draw(st.sampled_from(self.engine.open_orders()))
        ended = self._ask(lambda one: one.cancel(NAME, order_id=order.order_id, now_ms=self.now))
        assert ended.status is OrderStatus.CANCELED
        assert self._ask(lambda one: one.cancel(NAME, order_id=order.order_id, now_ms=self.now)) == -2011

    @rule(step=offsets, volume=st.integers(0, 5_000), premium=offsets)
    def price_moves(self, step, volume, premium) -> None:
        """A new bar with another mark price; what the account takes of it stays within its share."""
        self.price = max(D(60), self.price + step)
        before = len(self.engine.state.trades)
        self._ask(
            lambda one: one.tick(
                {NAME: self.price}, now_ms=self.now, volumes={NAME: D(volume) / 10},
                marks={NAME: self.price + premium / 10},
            )
        )  # fmt: skip
        share = self.engine.state.rules.participation
        if share:
            fresh = sum((t.quantity for t in self.engine.state.trades[before:]), D(0))
            assert fresh <= share * volume / 10

    @rule(offset=offsets, quantity=quantities, side=sides)
    def others_trade(self, offset, quantity, side) -> None:
        """A trade of somebody else."""
        self._ask(lambda one: one.trade(NAME, self.price + offset / 10, quantity, side, now_ms=self.now))

    @rule(later=st.integers(1, GTD_MS // 2))
    def time_passes(self, later) -> None:
        """Nothing but time."""
        self.now += later
        self._ask(lambda one: one.elapse(self.now))
        assert all(not o.good_till_ms or o.good_till_ms > self.now - 1 for o in self.engine.open_orders())

    @rule()
    def restart(self) -> None:
        """What was saved and read back goes on exactly like what never stopped."""
        restored = states.decode(states.encode(self.engine.state))
        assert restored == self.engine.state
        self.engines[0] = Exchange([COIN], restored)

    @invariant()
    def news_keeps_the_promises_of_each_order(self) -> None:
        """Post-only makes, limits get their price or better, and what only reduces never opens or flips."""
        for event in self.news:
            order, trade = event.order, event.trade
            if trade is None:
                continue
            if order.time_in_force is TimeInForce.GTX:
                assert trade.is_maker
            if order.type is OrderType.LIMIT:
                assert (order.price - trade.price) * order.side.sign >= 0
                assert not trade.is_maker or trade.price == order.price
        self.news = []

    @invariant()
    def what_was_asked_is_accounted_for(self) -> None:
        """Asked is filled and remaining; ended orders end for a reason, and fills are what trades say."""
        state = self.engine.state
        for order in state.orders.values():
            fills = [t for t in state.trades if t.order_id == order.order_id]
            assert order.filled == sum((t.quantity for t in fills), D(0))
            assert order.filled_notional == sum((t.notional for t in fills), D(0))
            assert D(0) <= order.filled <= order.quantity
            assert order.filled + order.remaining == order.quantity
            assert (order.status is OrderStatus.FILLED) == (not order.remaining)
            assert not (order.status is OrderStatus.NEW and order.filled)

    @invariant()
    def positions_are_sums_of_fills(self) -> None:
        """Each position is what was traded for it; in hedge mode a long is never short, and the other way round."""
        state = self.engine.state
        for side in self.sides:
            held = state.position(NAME, side).quantity
            assert held == sum((t.side.sign * t.quantity for t in state.trades if t.position_side is side), D(0))
            assert side is not PositionSide.LONG or held >= 0
            assert side is not PositionSide.SHORT or held <= 0

    @invariant()
    def what_only_reduces_never_flips(self) -> None:
        """Followed fill by fill, no order that only reduces opens anything."""
        state = self.engine.state
        held = dict.fromkeys(self.sides, D(0))
        for trade in state.trades:
            before = held[trade.position_side]
            held[trade.position_side] = after = before + trade.side.sign * trade.quantity
            if state.orders[trade.order_id].reduce_only:
                assert before * after >= 0
                assert abs(after) < abs(before)

    @invariant()
    def reserved_margin_is_never_negative(self) -> None:
        """Orders and positions bind margin; none of them lends any."""
        margin = self.engine.margin()
        assert margin.order_initial >= 0
        assert margin.position_initial >= 0
        assert margin.available >= 0

    @invariant()
    def places_in_the_queue_belong_to_open_orders(self) -> None:
        """Nothing is remembered of the queue of an order that has ended."""
        state = self.engine.state
        assert set(state.ahead) <= {one.order_id for one in self.engine.open_orders()}
        assert all(ahead >= 0 for ahead in state.ahead.values())


AnyOrders.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestAnyOrders = AnyOrders.TestCase


@given(
    quantity=st.integers(1, 3_000).map(lambda n: D(n) / 10), volume=st.integers(1, 10_000),
    share=st.sampled_from([D("0.01"), D("0.1"), D(1)]), impact=st.integers(0, 200), side=sides,
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_bounded_fills_are_never_better_than_free_ones(quantity, volume, share, impact, side):
    """Participation and impact only take away: less is filled, and each part at the same price or a worse one."""

    def fills(rules: Rules) -> list[tuple[Decimal, Decimal]]:
        state = states.new_state(D(10_000_000))
        state.rules = rules
        exchange = Exchange([COIN], state)
        exchange.tick({NAME: D(100)}, now_ms=1, volumes={NAME: D(volume)})
        exchange.submit(OrderRequest(NAME, side, OrderType.MARKET, quantity), now_ms=2)
        return [(t.price, t.quantity) for t in exchange.state.trades]

    free, bounded = fills(Rules()), fills(Rules(participation=share, impact_bps=D(impact)))

    assert sum(q for _, q in bounded) <= min(sum(q for _, q in free), share * volume)
    assert all((b - f) * side.sign >= 0 for (f, _), (b, _) in zip(free, bounded, strict=False))


@given(st.builds(OrderRequest, symbol=st.just(NAME), side=sides, type=st.just(OrderType.LIMIT), quantity=quantities,
                 price=offsets.map(lambda one: 100 + one), reduce_only=st.booleans()))  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_checking_changes_nothing(request_):
    """An order that is only checked is refused or not exactly as it would be, and leaves no trace."""
    state = states.new_state(D(10_000))
    exchange = Exchange([COIN], state)
    exchange.tick({NAME: D(100)}, now_ms=1)
    before = states.encode(state)

    def outcome(act) -> int:
        try:
            act()
        except VenueError as refusal:
            return refusal.code
        return 0

    checked = outcome(lambda: exchange.check(replace(request_), now_ms=2))
    assert states.encode(state) == before
    assert outcome(lambda: exchange.submit(request_, now_ms=2)) == checked
