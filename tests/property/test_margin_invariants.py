"""Whatever is traded in whichever mode, and whatever the venue does to the account, its money adds up."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infra.sandbox.engine import margin
from infra.sandbox.engine import state as states
from infra.sandbox.engine.clearing import CROSS, is_venue_order
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.fees import Clearance
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import (
    AlgoRequest,
    MarginCallEvent,
    OrderEvent,
    OrderRequest,
    OrderType,
    PositionSide,
    Side,
)
from infra.sandbox.engine.position import position_key

D = Decimal
COINS = tuple(
    Instrument(f"{name}USDT", name, 2, 1, D(5), D(10_000), D(5_000), D(2_000)) for name in ("ONE", "TWO", "THREE")
)
SYMBOLS = [one.symbol for one in COINS]
OPENING = D(20_000)
RULES = Clearance(D("0.0125"), insured=True)
BOTH, LONG, SHORT = PositionSide

symbols = st.sampled_from(SYMBOLS)
sides = st.sampled_from(list(Side))
legs = st.sampled_from([LONG, SHORT])
quantities = st.integers(1, 3_000).map(lambda n: D(n) / 10)


class AnyMargin(RuleBasedStateMachine):
    """Three symbols, each in cross or isolated margin, in one-way or hedge mode, up to liquidation and beyond."""

    @initialize(hedge=st.booleans(), isolated=st.sets(symbols))
    def open_account(self, hedge, isolated) -> None:
        """An account in some mode."""
        self.exchange = Exchange(COINS, states.new_state(OPENING), clearance=RULES)
        self.now = 0
        self.exchange.tick(dict.fromkeys(SYMBOLS, D(100)), now_ms=0)
        for symbol in sorted(isolated):
            self.exchange.set_isolated(symbol, isolated=True)
        if hedge:
            self.exchange.set_hedge_mode(hedge=True)
        self.called: set[str] = set()
        self.exchange.drain()

    @property
    def state(self) -> states.EngineState:
        """The account."""
        return self.exchange.state

    def _try(self, act) -> bool:
        self.now += 1
        try:
            act()
        except VenueError:
            return False
        return True

    def _leg(self, leg: PositionSide) -> PositionSide:
        return leg if self.state.hedge_mode else BOTH

    @rule(symbol=symbols, side=sides, leg=legs, quantity=quantities)
    def market(self, symbol, side, leg, quantity) -> None:
        """A market order moves its own leg and no other position."""
        request = OrderRequest(symbol, side, OrderType.MARKET, quantity, position_side=self._leg(leg))
        others = {k: p for k, p in self.state.positions.items() if k != f"{symbol}|{request.position_side}"}
        self._try(lambda: self.exchange.submit(request, now_ms=self.now))
        assert others == {k: p for k, p in self.state.positions.items() if k != f"{symbol}|{request.position_side}"}

    @rule(symbol=symbols, side=sides, leg=legs, quantity=quantities, ticks=st.integers(1, 500))
    def resting(self, symbol, side, leg, quantity, ticks) -> None:
        """A limit order away from the price."""
        price = self.state.last_prices[symbol] - side.sign * D(ticks) / 100
        request = OrderRequest(symbol, side, OrderType.LIMIT, quantity, price, position_side=self._leg(leg))
        self._try(lambda: self.exchange.submit(request, now_ms=self.now))

    @rule(symbol=symbols, leg=legs, ticks=st.integers(1, 800))
    def stop(self, symbol, leg, ticks) -> None:
        """A stop that closes a whole position."""
        held = self.state.position(symbol, self._leg(leg)).quantity
        side = Side.SELL if held > 0 else Side.BUY
        trigger = self.state.last_prices[symbol] - (1 if held > 0 else -1) * D(ticks) / 100
        request = AlgoRequest(
            symbol, side, OrderType.STOP_MARKET, D(0), trigger_price=trigger, close_position=True,
            position_side=self._leg(leg),
        )  # fmt: skip
        self._try(lambda: self.exchange.submit_algo(request, now_ms=self.now))

    @rule(symbol=symbols, leg=legs, amount=st.integers(-2_000, 2_000))
    def move_margin(self, symbol, leg, amount) -> None:
        """Margin is moved by hand: the wallet as a whole does not change."""
        wallet = self.state.wallet
        self._try(lambda: self.exchange.move_margin(symbol, self._leg(leg), D(amount), now_ms=self.now))
        assert self.state.wallet == wallet

    @rule(symbol=symbols, leverage=st.integers(1, 50))
    def set_leverage(self, symbol, leverage) -> None:
        """A leverage that may not be allowed."""
        self._try(lambda: self.exchange.set_leverage(symbol, leverage, now_ms=self.now))

    @rule(rates=st.dictionaries(symbols, st.integers(-50, 50)))
    def funding(self, rates) -> None:
        """Funding of some symbols."""
        self.now += 1
        self.exchange.settle_funding({s: D(rate) / 10_000 for s, rate in rates.items()}, now_ms=self.now)

    @rule(symbol=symbols, per_mille=st.integers(-300, 300))
    def price_moves(self, symbol, per_mille) -> None:
        """A new price, perhaps far away, and what the venue does then."""
        self.now += 1
        price = max(D(1), (self.state.last_prices[symbol] * (1000 + per_mille) / 1000).quantize(D("0.01")))
        margins = {one.key: one for one in self.state.open_positions() if one.symbol in self.state.isolated}
        trades, incomes = len(self.state.trades), len(self.state.incomes)
        self.exchange.tick({symbol: price}, now_ms=self.now)
        self._check_liquidations(margins, trades, incomes)
        self.exchange.liquidate_if_needed(now_ms=self.now)

    def _check_liquidations(self, margins, trades, incomes) -> None:
        # A liquidated isolated position lost its margin at most, fees included.
        gone = {
            (one.symbol, one.position_side)
            for one in self.state.trades[trades:]
            if one.client_order_id.startswith("autoclose-")
        }
        for symbol, side in gone:
            lost = -sum(
                one.realized_pnl - one.fee
                for one in self.state.trades[trades:]
                if (one.symbol, one.position_side) == (symbol, side) and is_venue_order(one.client_order_id)
            )
            if len([one for one in gone if one[0] == symbol]) == 1:
                lost -= sum(
                    (
                        one.amount
                        for one in self.state.incomes[incomes:]
                        if one.kind == "INSURANCE_CLEAR" and one.symbol == symbol
                    ),
                    D(0),
                )
                assert lost <= margins[f"{symbol}|{side}"].isolated_wallet

    @rule(symbol=st.none() | symbols)
    def forced(self, symbol) -> None:
        """The venue liquidates on demand; nothing of the kind is left."""
        self.now += 1
        self.exchange.liquidate(symbol, now_ms=self.now)
        assert [one for one in self.state.open_positions() if symbol in {None, one.symbol}] == []

    @rule(symbol=symbols, leg=legs, tenths=st.integers(1, 10))
    def deleverage(self, symbol, leg, tenths) -> None:
        """The venue deleverages a share."""
        self._try(lambda: self.exchange.deleverage(symbol, self._leg(leg), D(tenths) / 10, now_ms=self.now))

    @precondition(lambda self: not self.state.settled)
    @rule(symbol=symbols)
    def delist(self, symbol) -> None:
        """A symbol ends; nothing of it is left."""
        self.now += 1
        self.state.delistings[symbol] = self.now
        self.exchange.settle(symbol, self.state.last_prices[symbol] + D("0.003"), now_ms=self.now)
        assert [one for one in self.state.open_positions() if one.symbol == symbol] == []
        assert self.exchange.open_orders(symbol) == self.exchange.open_algos(symbol) == []

    @rule()
    def restart(self) -> None:
        """What was saved and read back goes on like what never stopped."""
        restored = states.decode(states.encode(self.state))
        assert restored == self.state
        self.exchange = Exchange(COINS, restored, clearance=RULES)

    @invariant()
    def wallet_is_what_was_paid(self) -> None:
        """Wallet change = realised + fees + funding + clearance, to the last digit, in any mode."""
        if not hasattr(self, "exchange"):
            return
        state = self.state
        fills = sum((t.realized_pnl - t.fee for t in state.trades), D(0))
        other = sum((i.amount for i in state.incomes if i.kind in {"FUNDING_FEE", "INSURANCE_CLEAR"}), D(0))
        assert state.wallet == OPENING + fills + other
        assert state.wallet == OPENING + sum((i.amount for i in state.incomes), D(0))

    @invariant()
    def margin_is_where_it_was_moved(self) -> None:
        """Only open positions of isolated symbols hold margin."""
        if not hasattr(self, "exchange"):
            return
        for one in self.state.positions.values():
            assert not one.isolated_wallet or (one.quantity and one.symbol in self.state.isolated)
        account = self.exchange.margin()
        assert account.cross_wallet + account.isolated_wallet == account.wallet == self.state.wallet

    @invariant()
    def positions_are_sums_of_fills(self) -> None:
        """Each leg is what was filled on it, and a leg is never on its wrong side."""
        if not hasattr(self, "exchange"):
            return
        for one in self.state.positions.values():
            fills = [t for t in self.state.trades if (t.symbol, t.position_side) == (one.symbol, one.position_side)]
            assert one.quantity == sum((t.side.sign * t.quantity for t in fills), D(0))
            if one.position_side is not BOTH:
                assert one.quantity * (1 if one.position_side is LONG else -1) >= 0

    @invariant()
    def a_liquidation_was_announced(self) -> None:
        """Whoever is liquidated was warned before."""
        if not hasattr(self, "exchange"):
            return
        for event in self.exchange.drain():
            if isinstance(event, MarginCallEvent):
                isolated = event.cross_wallet is None
                self.called |= {one.key for one in event.positions} if isolated else {CROSS}
            elif isinstance(event, OrderEvent) and event.order.client_order_id.startswith("autoclose-"):
                one = event.order
                key = position_key(one.symbol, one.position_side) if one.symbol in self.state.isolated else CROSS
                assert key in self.called


AnyMargin.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestAnyMargin = AnyMargin.TestCase


@given(
    balance=st.integers(50, 5_000),
    quantity=quantities,
    side=sides,
    price=st.integers(1_000, 30_000).map(lambda n: D(n) / 100),
)
@settings(max_examples=200, deadline=None)
def test_cross_margin_is_liquidated_exactly_when_balance_is_no_more_than_maintenance(balance, quantity, side, price):
    """Above maintenance nothing happens; at or below it nothing is left but a wallet that is not negative."""
    exchange = Exchange(COINS, states.new_state(D(balance)), clearance=RULES)
    exchange.tick(dict.fromkeys(SYMBOLS, D(100)), now_ms=0)
    try:
        exchange.submit(OrderRequest("ONEUSDT", side, OrderType.MARKET, quantity), now_ms=1)
    except VenueError:
        return
    exchange.tick({"ONEUSDT": price}, now_ms=2)
    account = exchange.margin()
    gone = exchange.liquidate_if_needed(now_ms=2)

    assert gone == (account.cross_balance <= account.cross_maintenance)
    assert bool(exchange.state.open_positions()) == (not gone)
    assert not gone or exchange.state.wallet >= 0


@given(
    steps=st.lists(st.tuples(sides, legs, quantities), min_size=1, max_size=12),
    moves=st.lists(st.integers(-8, 8), min_size=12, max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_the_legs_of_a_hedged_pair_do_not_know_of_each_other(steps, moves):
    """Long and short traded together leave the fills and legs that each leaves when it is traded alone."""

    def trade(chosen: set[PositionSide]) -> Exchange:
        exchange = Exchange(COINS, states.new_state(D(10_000_000)))
        exchange.set_hedge_mode(hedge=True)
        price = D(100)
        for place, (side, leg, quantity) in enumerate(steps):
            price = max(D(50), price + moves[place])
            exchange.tick({"ONEUSDT": price}, now_ms=place)
            if leg in chosen:
                request = OrderRequest("ONEUSDT", side, OrderType.MARKET, quantity, position_side=leg)
                try:
                    exchange.submit(request, now_ms=place)
                except VenueError:
                    # Nothing to reduce, with or without the other leg.
                    continue
        return exchange

    together = trade({LONG, SHORT})
    for leg in (LONG, SHORT):
        alone = trade({leg})
        fills = [replace(one, trade_id=0, order_id=0, client_order_id="") for one in together.state.trades]
        ours = [replace(one, trade_id=0, order_id=0, client_order_id="") for one in alone.state.trades]
        assert [one for one in fills if one.position_side is leg] == ours
        assert together.state.position("ONEUSDT", leg) == alone.state.position("ONEUSDT", leg)


@given(balance=st.integers(300, 3_000), quantity=quantities, side=sides, isolated=st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_liquidation_price_is_where_liquidation_begins(balance, quantity, side, isolated):
    """A cent before the stated price the position lives, a cent beyond it is gone; tiers apart."""
    exchange = Exchange(COINS, states.new_state(D(balance)), clearance=RULES)
    exchange.tick(dict.fromkeys(SYMBOLS, D(100)), now_ms=0)
    if isolated:
        exchange.set_isolated("ONEUSDT", isolated=True)
    try:
        exchange.submit(OrderRequest("ONEUSDT", side, OrderType.MARKET, quantity), now_ms=1)
    except VenueError:
        return
    position = exchange.state.position("ONEUSDT", BOTH)
    price = margin.liquidation_price(exchange.state, position, exchange.margin())
    if price == 0 or abs(position.quantity) * max(price, D(100)) > 50_000:
        return
    for cents, gone in ((1, False), (-1, True)):
        tried = states.decode(states.encode(exchange.state))
        at = price + cents * position.quantity.copy_sign(side.sign) / abs(position.quantity) / 100
        tried.last_prices["ONEUSDT"] = at
        assert Exchange(COINS, tried, clearance=RULES).liquidate_if_needed(now_ms=2) is gone


@given(
    quantity=quantities,
    side=sides,
    moves=st.lists(st.integers(-250, 250), min_size=1, max_size=8),
    stop=st.integers(1, 900) | st.none(),
    added=st.integers(0, 500),
)
@settings(max_examples=200, deadline=None)
def test_an_isolated_trade_never_costs_more_than_its_margin_and_fees(quantity, side, moves, stop, added):
    """However the price jumps, and whether stop, liquidation or the client ends it, the other money is not touched."""
    exchange = Exchange(COINS, states.new_state(OPENING))
    exchange.tick(dict.fromkeys(SYMBOLS, D(100)), now_ms=0)
    exchange.set_isolated("ONEUSDT", isolated=True)
    try:
        exchange.submit(OrderRequest("ONEUSDT", side, OrderType.MARKET, quantity), now_ms=1)
    except VenueError:
        return
    if added:
        exchange.move_margin("ONEUSDT", BOTH, D(added), now_ms=2)
    own = exchange.state.position("ONEUSDT", BOTH).isolated_wallet
    if stop is not None:
        trigger = D(100) - side.sign * D(stop) / 100
        request = AlgoRequest(
            "ONEUSDT", side.opposite, OrderType.STOP_MARKET, D(0), trigger_price=trigger, close_position=True
        )
        exchange.submit_algo(request, now_ms=2)
    price = D(100)
    for place, move in enumerate(moves, start=3):
        price = (price * (1000 + move) / 1000).quantize(D("0.01"))
        exchange.tick({"ONEUSDT": price}, now_ms=place)
        exchange.liquidate_if_needed(now_ms=place)
    held = abs(exchange.state.position("ONEUSDT", BOTH).quantity)
    if held:
        exchange.submit(OrderRequest("ONEUSDT", side.opposite, OrderType.MARKET, held, reduce_only=True), now_ms=1_000)
    fees = sum((one.fee for one in exchange.state.trades), D(0))

    assert exchange.state.open_positions() == []
    assert OPENING - exchange.state.wallet <= own + fees
    assert exchange.state.cross_wallet() == exchange.state.wallet
