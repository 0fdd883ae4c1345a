"""Whatever is asked of a spot account: nothing is created, nothing is owed, and what is locked is what is open."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infra.sandbox.engine.book import BookModel
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.instrument import instrument_for_price
from infra.sandbox.engine.model import AlgoOrder, AlgoRequest, Order, OrderRequest, OrderType, Side, TimeInForce
from infra.sandbox.engine.rules import Rules
from infra.sandbox.engine.spot import SpotExchange
from infra.sandbox.engine.spot_ledger import Balances, number
from infra.sandbox.engine.spot_state import SpotState, Transfer, new_spot_state
from infra.sandbox.engine.state import encode

D = Decimal
COINS = [instrument_for_price("SOLUSDT", "SOL", 150.0), instrument_for_price("XRPUSDT", "XRP", 0.6)]
START = {"SOLUSDT": D(150), "XRPUSDT": D("0.6")}
OPENING = D(10_000)
SYMBOLS = st.sampled_from(sorted(START))
SIDES = st.sampled_from(Side)
SHARES = st.sampled_from([D("0.001"), D("0.1"), D("0.37"), D("0.9"), D("1"), D("1.5")])
OFFSETS = st.sampled_from([D("0.9"), D("0.99"), D("0.9999"), D("1"), D("1.0001"), D("1.01"), D("1.1")])
FORCES = st.sampled_from([TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK, TimeInForce.GTX])
WAITING = st.sampled_from([OrderType.STOP_MARKET, OrderType.STOP, OrderType.TAKE_PROFIT_MARKET, OrderType.TAKE_PROFIT])
RULES = st.sampled_from(
    [Rules(), Rules(touch_probability=D("0.5"), queue=True), Rules(participation=D("0.1"), impact_bps=D(20))]
)


class SpotAccount(RuleBasedStateMachine):
    """Random orders and prices against one account, beside a twin that is saved and restored all the time."""

    def __init__(self) -> None:
        super().__init__()
        self.spot = made(new_spot_state(OPENING))
        self.twin = made(new_spot_state(OPENING))
        self.now_ms = 1_000
        self.prices = dict(START)
        self.moved: dict[str, D] = {}

    @initialize(rules=RULES)
    def begin(self, rules: Rules) -> None:
        """The market opens, under some rules of liquidity."""
        for one in (self.spot, self.twin):
            one.state.rules = rules
            one.state.last_prices.update(START)
        self.see_prices({})

    def both(self, name: str, *arguments: Any) -> None:
        """Do the same to both, and expect the same answer or the same refusal."""
        self.now_ms += 10
        answers = []
        for one in (self.spot, self.twin):
            try:
                answers.append(getattr(one, name)(*arguments, now_ms=self.now_ms))
            except VenueError as refusal:
                answers.append((refusal.code, refusal.message))
        assert answers[0] == answers[1]

    def size(self, symbol: str, side: Side, share: D) -> D:
        """Return a share of what can be traded, in whole steps or not quite."""
        lot = self.spot.lots[symbol]
        most = self.spot.free(lot.base) if side is Side.SELL else self.spot.free(lot.quote) / self.prices[symbol]
        return (most * share).quantize(lot.step)

    @rule(symbol=SYMBOLS, side=SIDES, share=SHARES)
    def at_market(self, symbol: str, side: Side, share: D) -> None:
        """A market order of a quantity."""
        self.both("submit", OrderRequest(symbol, side, OrderType.MARKET, self.size(symbol, side, share)))

    @rule(symbol=SYMBOLS, side=SIDES, share=SHARES)
    def for_money(self, symbol: str, side: Side, share: D) -> None:
        """A market order that says what it spends or brings in."""
        money = (self.spot.free("USDT") * share).quantize(D("0.01")) or D(1)
        self.both("submit_for_quote", OrderRequest(symbol, side, OrderType.MARKET, D(0)), money)

    @rule(symbol=SYMBOLS, side=SIDES, share=SHARES, offset=OFFSETS, force=FORCES)
    def at_a_limit(self, symbol: str, side: Side, share: D, offset: D, force: TimeInForce) -> None:
        """A limit order around the market."""
        price = (self.prices[symbol] * offset).quantize(self.spot.lots[symbol].tick)
        quantity = self.size(symbol, side, share)
        self.both("submit", OrderRequest(symbol, side, OrderType.LIMIT, quantity, price, time_in_force=force))

    @rule(symbol=SYMBOLS, side=SIDES, share=SHARES, offset=OFFSETS, beyond=OFFSETS, kind=WAITING)
    def for_a_price(self, symbol: str, side: Side, share: D, offset: D, beyond: D, kind: OrderType) -> None:
        """An order that waits for a price."""
        tick = self.spot.lots[symbol].tick
        trigger = (self.prices[symbol] * offset).quantize(tick)
        limit = (trigger * beyond).quantize(tick) if kind in {OrderType.STOP, OrderType.TAKE_PROFIT} else None
        self.both("submit_algo", AlgoRequest(symbol, side, kind, self.size(symbol, side, share), trigger, limit))

    @rule(symbol=SYMBOLS, side=SIDES, share=SHARES, limit=OFFSETS, trigger=OFFSETS, then=st.none() | OFFSETS)
    def either(self, symbol: str, side: Side, share: D, limit: D, trigger: D, then: D | None) -> None:
        """A pair of which one at most is executed; the one that waits sells at any price, or at a limit."""
        tick, quantity = self.spot.lots[symbol].tick, self.size(symbol, side, share)
        at, beyond = ((self.prices[symbol] * offset).quantize(tick) for offset in (limit, trigger))
        kind = OrderType.STOP_MARKET if then is None else OrderType.STOP
        price = None if then is None else (self.prices[symbol] * then).quantize(tick)
        resting = OrderRequest(symbol, side, OrderType.LIMIT, quantity, at, time_in_force=TimeInForce.GTX)
        waiting = AlgoRequest(symbol, side, kind, quantity, beyond, price)
        self.both("submit_pair", resting, waiting, "")

    @precondition(lambda self: self.spot.all_open())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """An open order is cancelled."""
        one = data.draw(st.sampled_from(self.spot.all_open()))
        self.now_ms += 10
        for account in (self.spot, self.twin):
            account.cancel_any(one.symbol, order_id=number(one), now_ms=self.now_ms)

    @rule(symbol=SYMBOLS)
    def cancel_every(self, symbol: str) -> None:
        """All orders of a symbol are cancelled."""
        self.both("cancel_every", symbol)

    @rule(asset=st.sampled_from(["USDT", "SOL", "XRP"]), amount=st.sampled_from([D(-5_000), D("-0.5"), D(3), D(1_000)]))
    def transfer(self, asset: str, amount: D) -> None:
        """Assets come and go, but never what is locked."""
        before = self.spot.state.held(asset)
        self.both("transfer", asset, amount)
        self.moved[asset] = self.moved.get(asset, D(0)) + self.spot.state.held(asset) - before

    @rule(changes=st.dictionaries(SYMBOLS, OFFSETS))
    def see_prices(self, changes: dict[str, D]) -> None:
        """The market moves, and everybody trades a little."""
        self.now_ms += 10_000
        for symbol, offset in changes.items():
            moved = (self.prices[symbol] * offset).quantize(self.spot.lots[symbol].tick)
            self.prices[symbol] = max(min(moved, START[symbol] * 3), START[symbol] / 3)
        volumes = dict.fromkeys(START, D(500))
        for one in (self.spot, self.twin):
            one.tick(dict(self.prices), now_ms=self.now_ms, volumes=volumes)
            for symbol, price in self.prices.items():
                one.trade(symbol, price, D(100), Side.SELL, now_ms=self.now_ms)

    @rule()
    def restart(self) -> None:
        """The twin is written down and read back."""
        self.twin = made(msgspec.json.decode(encode(self.twin.state), type=SpotState))

    @invariant()
    def nothing_is_owed(self) -> None:
        """No balance, free or locked, is ever below zero."""
        for asset in self.spot.state.assets:
            assert self.spot.free(asset) >= 0, asset
            assert self.spot.locked(asset) >= 0, asset

    @invariant()
    def what_is_locked_is_open(self) -> None:
        """The locked amount of an asset is what its open orders would give, counted anew."""
        wanted: dict[str, D] = {}
        for one in self.spot.all_open():
            asset, amount = given(self.spot, one)
            pair = self.spot.state.pair(number(one))
            if pair is not None and pair.is_open and number(one) == pair.limit_id:
                # The other one of the pair locks for both.
                amount = D(0)
            wanted[asset] = wanted.get(asset, D(0)) + amount
        for asset in {*self.spot.state.assets, *wanted}:
            assert self.spot.locked(asset) == wanted.get(asset, D(0)), asset

    @invariant()
    def assets_are_conserved(self) -> None:
        """What there is of each asset is what there was, what came, and what each execution exchanged, less its fee."""
        expected = {"USDT": OPENING} | {asset: D(0) for asset in ("SOL", "XRP")}
        for asset, amount in self.moved.items():
            expected[asset] += amount
        for one in self.spot.state.trades:
            base = self.spot.lots[one.symbol].base
            expected[base] += one.side.sign * one.quantity
            expected["USDT"] -= one.side.sign * one.notional
            expected[base if one.side is Side.BUY else "USDT"] -= one.fee
        for asset, amount in expected.items():
            assert self.spot.state.held(asset) == amount, asset

    @invariant()
    def twins_agree(self) -> None:
        """The account that was restored is the one that never was."""
        assert encode(self.spot.state) == encode(self.twin.state)
        assert [number(one) for one in self.spot.all_open()] == [number(one) for one in self.twin.all_open()]

    @invariant()
    def orders_have_numbers_of_their_own(self) -> None:
        """Each number is one order, which fills no more than it asks for, and trades name orders that exist."""
        orders = self.spot.all_orders()
        assert len({number(one) for one in orders}) == len(orders)
        filled: dict[int, D] = {}
        for one in self.spot.state.trades:
            filled[one.order_id] = filled.get(one.order_id, D(0)) + one.quantity
        for order in orders:
            if isinstance(order, Order):
                money = self.spot.state.quote_quantities.get(order.order_id, order.filled_notional)
                assert order.filled_notional <= money
                assert filled.pop(order.order_id, D(0)) == order.filled <= order.quantity
        assert not filled

    @invariant()
    def of_a_pair_one_at_most_is_executed(self) -> None:
        """While a pair is open both wait and nothing is filled; after it, only one has executions."""
        opened = {number(one) for one in self.spot.all_open()}
        for pair in self.spot.state.pairs.values():
            filled = [number_ for number_ in pair.numbers if any(t.order_id == number_ for t in self.spot.state.trades)]
            assert len(filled) <= 1
            assert pair.is_open == (set(pair.numbers) <= opened)
            assert not (pair.is_open and filled)

    @invariant()
    def news_are_told_once(self) -> None:
        """Each transfer and each order is told of once, and the balances told are those there are."""
        told = self.spot.news(self.now_ms)
        self.twin.news(self.now_ms)
        assert sum(isinstance(one, Transfer) for one in told) <= 1
        for one in told:
            for asset, amounts in one.assets.items() if isinstance(one, Balances) else ():
                assert amounts == (self.spot.free(asset), self.spot.locked(asset))
        assert self.spot.news(self.now_ms) == []


def made(state: SpotState) -> SpotExchange:
    """Return an exchange around a state."""
    return SpotExchange(COINS, state, book=BookModel(spread_bps=D(4)))


def given(spot: SpotExchange, one: Order | AlgoOrder) -> tuple[str, D]:
    """Return what an order gives when it executes at its own price, or at the one it waits for."""
    left = one.quantity - (one.filled if isinstance(one, Order) else 0)
    if one.side is Side.SELL:
        return spot.lots[one.symbol].base, left
    return "USDT", left * (one.price or getattr(one, "trigger_price", D(0)))


SpotAccount.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestSpotAccount = SpotAccount.TestCase
