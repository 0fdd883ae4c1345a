"""What the sandbox does to an account on its own: liquidation, deleveraging, settlement."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from infra.sandbox import audit
from infra.sandbox.audit import Auditor
from infra.sandbox.engine.clearing import is_venue_order
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.fees import Clearance
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import AlgoRequest, OrderRequest, OrderType, PositionSide, Side, TimeInForce
from infra.sandbox.engine.state import new_state
from infra.sandbox.persist import Identity, Saved, load, save
from infra.sandbox.protocol.user_events import user_event

D = Decimal
COIN = Instrument("COINUSDT", "COIN", 2, 1, D(5), D(10_000), D(5_000), D(50_000))
OTHER = replace(COIN, symbol="OTHERUSDT", base="OTHER")
BUY, SELL = Side.BUY, Side.SELL
BOTH, LONG, SHORT = PositionSide
MARKET = OrderRequest("COINUSDT", BUY, OrderType.MARKET, D(100))
LIMIT = replace(MARKET, type=OrderType.LIMIT, quantity=D(1), price=D(95))
RULES = Clearance(D("0.0125"), insured=True)


def make_exchange(balance: str = "700", *, isolated: bool = False, rules: Clearance = RULES, **coin) -> Exchange:
    exchange = Exchange([replace(COIN, **coin), OTHER], new_state(D(balance)), clearance=rules)
    exchange.tick({"COINUSDT": D(100), "OTHERUSDT": D(100)}, now_ms=1)
    if isolated:
        exchange.set_isolated("COINUSDT", isolated=True)
    return exchange


def move(exchange: Exchange, price: str, *, now_ms: int = 5, symbol: str = "COINUSDT") -> bool:
    exchange.tick({symbol: D(price)}, now_ms=now_ms)
    return exchange.liquidate_if_needed(now_ms=now_ms)


def told(exchange: Exchange) -> list[dict]:
    return [user_event(event, exchange.state) for event in exchange.drain()]


def clearance(exchange: Exchange) -> Decimal:
    return sum((one.amount for one in exchange.state.incomes if one.kind == "INSURANCE_CLEAR"), D(0))


def test_a_liquidation_warns_orders_fills_and_clears_in_this_order():
    """MARGIN_CALL first, then the venue's IOC order, its fills, then clearance, which takes what is left."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    exchange.drain()

    assert move(exchange, "94", now_ms=1_700_000_000_005)
    events = told(exchange)
    orders = [one["o"] for one in events if one["e"] == "ORDER_TRADE_UPDATE"]
    assert events[0]["e"] == "MARGIN_CALL"
    assert events[0]["p"][0]["mt"] == "CROSSED"
    assert "cw" in events[0]
    assert (orders[0]["x"], orders[0]["X"], orders[0]["f"]) == ("NEW", "NEW", "IOC")
    assert {one["c"] for one in orders} == {"autoclose-1700000000005"}
    assert orders[-1]["X"] == "FILLED"
    assert events[-1]["a"]["m"] == "INSURANCE_CLEAR"
    assert exchange.state.open_positions() == []
    assert exchange.state.wallet >= 0


def test_a_margin_call_comes_once_until_the_account_has_recovered():
    """The warning is not repeated at each price, and comes again after a recovery."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    exchange.drain()
    calls = []
    for price in ("94.2", "94.1", "94.2", "99", "94.2"):
        assert not move(exchange, price)
        calls.append([one["e"] for one in told(exchange)].count("MARGIN_CALL"))

    assert calls == [1, 0, 0, 0, 1]


def test_equity_at_maintenance_is_liquidated():
    """Cross positions go when margin balance is no more than their maintenance, not only below it."""
    exchange = make_exchange("10000")
    exchange.submit(MARKET, now_ms=2)
    account = exchange.margin()
    exchange.state.wallet -= account.cross_balance - account.cross_maintenance - D("0.00000001")
    assert not exchange.liquidate_if_needed(now_ms=3)
    exchange.state.wallet -= D("0.00000001")
    assert exchange.liquidate_if_needed(now_ms=4)


def test_all_cross_positions_go_together_and_their_orders_with_them():
    """Each position has an order id and a client id of its own, and no order is left to open a new one."""
    exchange = make_exchange("1000")
    exchange.submit(MARKET, now_ms=2)
    exchange.submit(replace(MARKET, symbol="OTHERUSDT", quantity=D(20)), now_ms=3)
    exchange.submit(LIMIT, now_ms=4)

    assert move(exchange, "91")
    ids = [one.client_order_id for one in exchange.state.orders.values() if is_venue_order(one.client_order_id)]
    assert len(ids) == len(set(ids)) == 2
    assert exchange.state.open_positions() == exchange.open_orders() == []
    report = audit.report(exchange, Auditor(), now_ms=9, wall_ms=0.0)
    assert report["duplicate_client_ids"] == []
    assert D(report["clearance"]) == clearance(exchange)
    total = D("1000") + D(report["realized_pnl"]) - D(report["fees"]) + D(report["funding"]) + D(report["clearance"])
    assert D(report["wallet"]) == total


def test_the_clearance_fee_is_a_share_of_notional_as_far_as_there_is_money():
    """A rich account pays 1.25 percent of what was closed; a poor one what it has left."""
    exchange = make_exchange("100000")
    exchange.submit(MARKET, now_ms=2)
    assert exchange.liquidate(now_ms=3) == 1
    closed = sum(one.notional for one in exchange.state.trades if is_venue_order(one.client_order_id))
    assert clearance(exchange) == -(closed * D("0.0125")).quantize(D("1e-8"))

    poor = make_exchange()
    poor.submit(MARKET, now_ms=2)
    move(poor, "94")
    assert poor.state.wallet == 0
    assert -118 < clearance(poor) < 0


def test_a_gap_leaves_no_debt():
    """What a gap takes beyond the wallet, the insurance fund pays, and an income row says so."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    move(exchange, "60")

    assert exchange.state.wallet == 0
    assert clearance(exchange) > 3_000


def test_without_a_fund_nothing_is_added_to_the_fills():
    """An engine that was not told of clearance liquidates by its fills alone, as backtests do."""
    exchange = make_exchange(rules=Clearance())
    exchange.submit(MARKET, now_ms=2)
    move(exchange, "60")

    assert clearance(exchange) == 0
    assert exchange.state.wallet < -3_000
    assert exchange.state.wallet == 700 + sum(t.realized_pnl - t.fee for t in exchange.state.trades)


def test_what_the_book_does_not_take_is_deleveraged():
    """A position that is larger than the book is closed all the same: the rest at the mark, under adl_autoclose."""
    exchange = make_exchange("1000000", depth_notional=D(100), max_market_quantity=D(50_000))
    exchange.state.leverage["COINUSDT"] = 5
    for _ in range(5):
        exchange.submit(replace(MARKET, quantity=D(200)), now_ms=2)
    exchange.liquidate("COINUSDT", now_ms=3)
    ids = [one.client_order_id for one in exchange.state.orders.values() if is_venue_order(one.client_order_id)]

    assert exchange.state.open_positions() == []
    assert ids == ["autoclose-3", "adl_autoclose"]


def test_an_isolated_position_goes_alone():
    """It goes before its own stop, takes its own orders along and leaves wallet, others and their orders alone."""
    exchange = make_exchange("10000", isolated=True)
    exchange.submit(MARKET, now_ms=2)
    exchange.submit(replace(MARKET, symbol="OTHERUSDT"), now_ms=2)
    exchange.submit(replace(LIMIT, symbol="OTHERUSDT"), now_ms=2)
    exchange.submit(LIMIT, now_ms=2)
    stop = AlgoRequest("COINUSDT", SELL, OrderType.STOP_MARKET, D(100), trigger_price=D(97), reduce_only=True)
    exchange.submit_algo(stop, now_ms=2)
    cross = exchange.state.cross_wallet()
    exchange.drain()
    move(exchange, "80")
    events = told(exchange)

    assert [one.symbol for one in exchange.state.open_positions()] == ["OTHERUSDT"]
    assert [one.symbol for one in exchange.open_orders()] == ["OTHERUSDT"]
    assert exchange.state.cross_wallet() == exchange.state.wallet == cross
    assert events[0]["e"] == "MARGIN_CALL"
    assert events[0]["p"][0]["mt"] == "ISOLATED"
    assert "cw" not in events[0]
    assert not any(one.client_order_id.startswith("sandboxalgo") for one in exchange.state.trades)


def test_an_isolated_position_loses_its_margin_without_a_fund_too():
    """Even an engine without clearance takes no more from an isolated position than it holds."""
    exchange = make_exchange("10000", isolated=True, rules=Clearance())
    exchange.submit(MARKET, now_ms=2)
    cross = exchange.state.cross_wallet()
    move(exchange, "60")

    assert exchange.state.wallet == cross


def test_one_leg_of_a_hedged_pair_is_liquidated_alone():
    """Isolated legs have margins of their own: the long goes, the short stays and keeps its margin."""
    exchange = make_exchange("10000", isolated=True)
    exchange.set_hedge_mode(hedge=True)
    exchange.submit(replace(MARKET, position_side=LONG), now_ms=2)
    exchange.submit(replace(MARKET, side=SELL, position_side=SHORT), now_ms=2)
    kept = exchange.state.position("COINUSDT", SHORT).isolated_wallet
    move(exchange, "94")

    assert exchange.state.position("COINUSDT", LONG).quantity == 0
    assert exchange.state.position("COINUSDT", SHORT).quantity == -100
    assert exchange.state.position("COINUSDT", SHORT).isolated_wallet == kept


@pytest.mark.parametrize(("share", "left"), [("1", 0), ("0.5", 50), ("0.333", D("66.7"))])
def test_deleveraging_closes_a_share_at_the_mark(share, left):
    """One fill at the mark price under adl_autoclose, in whole quantity steps, however deep the book is."""
    exchange = make_exchange("10000")
    exchange.submit(MARKET, now_ms=2)
    exchange.tick({"COINUSDT": D("101.37")}, now_ms=3)
    order = exchange.deleverage("COINUSDT", BOTH, D(share), now_ms=3)

    assert (order.client_order_id, order.average_price) == ("adl_autoclose", D("101.37"))
    assert exchange.state.position("COINUSDT", BOTH).quantity == left


@pytest.mark.parametrize(
    ("symbol", "side", "share", "code"),
    [
        ("NOUSDT", BOTH, "1", -1121),
        ("COINUSDT", BOTH, "0", -1130),
        ("COINUSDT", BOTH, "1.1", -1130),
        ("COINUSDT", BOTH, "0.0001", -2022),
        ("COINUSDT", SHORT, "1", -2022),
    ],
)
def test_deleveraging_refuses_what_is_not_there(symbol, side, share, code):
    """Unknown symbols, shares outside (0, 1] and empty positions change nothing."""
    exchange = make_exchange("10000")
    exchange.submit(MARKET, now_ms=2)
    with pytest.raises(VenueError) as refusal:
        exchange.deleverage(symbol, side, D(share), now_ms=3)

    assert refusal.value.code == code
    assert exchange.state.position("COINUSDT", BOTH).quantity == 100


def test_settlement_ends_a_symbol():
    """Orders of both kinds expire, each position closes at the settlement price under the venue's id."""
    exchange = make_exchange("10000")
    exchange.submit(MARKET, now_ms=2)
    exchange.submit(LIMIT, now_ms=2)
    exchange.submit_algo(
        AlgoRequest("COINUSDT", SELL, OrderType.STOP_MARKET, D(100), trigger_price=D(90), reduce_only=True), now_ms=2
    )
    exchange.settle("COINUSDT", D("98.765"), now_ms=7)

    assert exchange.open_orders() == exchange.open_algos() == exchange.state.open_positions() == []
    assert exchange.state.trades[-1].client_order_id == "settlement_autoclose-7"
    assert exchange.state.trades[-1].price == D("98.765")
    assert exchange.state.settled == {"COINUSDT"}


def test_venue_ids_are_known_by_their_form():
    """Liquidation, deleveraging and settlement are told apart from whatever a client may name its orders."""
    assert all(map(is_venue_order, ["autoclose-1", "adl_autoclose", "settlement_autoclose-1"]))
    assert not any(map(is_venue_order, ["", "autoclose", "my-autoclose-1", "adl_autoclose-1", "x-cvBPrNm9"]))


def test_forced_liquidation_names_what_it_does_not_know():
    """An unknown symbol is refused; an account without positions is left as it is."""
    exchange = make_exchange()
    with pytest.raises(VenueError):
        exchange.liquidate("NOUSDT", now_ms=2)

    assert exchange.liquidate(now_ms=2) == 0
    assert exchange.drain() == []


def test_liquidation_orders_are_immediate_and_reduce():
    """What the venue sends is an IOC market order that cannot turn the position."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    exchange.liquidate(now_ms=3)
    order = next(one for one in exchange.state.orders.values() if is_venue_order(one.client_order_id))

    assert (order.time_in_force, order.reduce_only, order.side) == (TimeInForce.IOC, True, SELL)


def test_an_isolated_position_of_an_older_state_has_its_margin(tmp_path):
    """Saved before margin was kept apart, it is given what it binds, and lives on at the next price."""
    identity = Identity("synthetic", 7, 0.0, ("COINUSDT",), 0)
    exchange = make_exchange("7000", isolated=True)
    exchange.submit(MARKET, now_ms=2)
    exchange.drain()
    (key, position), *_ = exchange.state.positions.items()
    before = position.isolated_wallet
    exchange.state.positions[key] = replace(position, isolated_wallet=D(0))
    save(tmp_path, Saved(identity, 3, exchange.state, []))
    again = load(tmp_path, identity)
    went_on = Exchange([COIN, OTHER], again.engine, clearance=RULES)

    assert float(again.engine.positions[key].isolated_wallet) == pytest.approx(float(before), rel=0.01)
    assert not move(went_on, "100")
    assert went_on.state.open_positions()
