"""What a paper account does with prices, time and its file."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from feature_store.venue.errors import OrderRefusedError, OutcomeUnknownError
from inference.domain.errors import PaperAccountError
from inference.domain.market import Quote
from inference.domain.order import Fill, OrderIntent, OrderStatus, OrderType, Purpose, Side
from inference.exchange.paper_desk import FundingTold, PaperDesk
from inference.exchange.paper_file import Announced, PaperFile, forget_old
from inference.exchange.paper_market import Extremes, Span, engine_instrument
from infra.sandbox.engine.fees import Fees
from tests.worker_values import make_instrument

BTC = "BTC/USDT:USDT"
T0 = 1_750_000_200_000
CANDLE_MS = 300_000
NO_FEES = Fees(maker=Decimal(0), taker=Decimal(0))


def file_in(folder) -> PaperFile:
    return PaperFile(folder / "paper" / "binanceusdm.json", venue="binanceusdm", balance=Decimal(10_000))


def desk_in(folder, *, told=None, fees=NO_FEES) -> PaperDesk:
    desk = PaperDesk(file_in(folder), fees=fees, tell=(told if told is not None else []).append)
    desk.know(make_instrument())
    return desk


def quoted(bid, ask) -> Quote:
    return Quote(symbol=BTC, bid=Decimal(bid), ask=Decimal(ask), event_time_ms=T0)


def order(key: str, side=Side.BUY, *, purpose=Purpose.ENTRY, kind=OrderType.MARKET, price=None) -> OrderIntent:
    return OrderIntent(
        client_order_id=key,
        trade_id="t",
        trace_id="",
        symbol=BTC,
        side=side,
        order_type=kind,
        purpose=purpose,
        quantity=Decimal("0.01"),
        limit_price=Decimal(price) if kind is OrderType.LIMIT else None,
        trigger_price=Decimal(price) if kind not in (OrderType.LIMIT, OrderType.MARKET) else None,
    )


def send(desk: PaperDesk, intent: OrderIntent, *, now_ms=T0):
    return desk.act(lambda: desk.account.place(intent, now_ms=now_ms), now_ms=now_ms)


def span(open_ms, high, low, close, **more) -> Span:
    return Span(
        open_ms=open_ms,
        close_ms=open_ms + CANDLE_MS,
        high=Decimal(high),
        low=Decimal(low),
        close=Decimal(close),
        **more,
    )


def long_with_exits(desk: PaperDesk, *, now_ms=T0) -> None:
    """Hold a long, its stop at 49,000 and its target at 51,000."""
    desk.hear_quote(quoted(49_999, 50_001), now_ms=now_ms)
    send(desk, order("E1"), now_ms=now_ms)
    send(desk, order("S1", Side.SELL, purpose=Purpose.STOP, kind=OrderType.STOP_MARKET, price=49_000), now_ms=now_ms)
    target = order("T1", Side.SELL, purpose=Purpose.TARGET, kind=OrderType.TAKE_PROFIT_MARKET, price=51_000)
    send(desk, target, now_ms=now_ms)


def test_takers_pay_what_the_venue_quoted(tmp_path):
    """A buyer gets the ask and a seller the bid, whatever the engine's own spread would have been."""
    desk = desk_in(tmp_path)
    desk.hear_quote(quoted("49990.1", "50020.6"), now_ms=T0)

    assert send(desk, order("E1")).average_price == Decimal("50020.6")
    assert send(desk, order("X1", Side.SELL, purpose=Purpose.EXIT)).average_price == Decimal("49990.1")


def test_low_that_nobody_saw_fires_the_stop_and_not_the_target(tmp_path):
    """Of a candle that passed both, the adverse extreme comes first, so that no stop is jumped over."""
    told = []
    desk = desk_in(tmp_path, told=told)
    long_with_exits(desk)
    desk.hear_candle(BTC, span(T0 + CANDLE_MS, 52_000, 48_000, 50_500), now_ms=T0 + 2 * CANDLE_MS)

    assert [one.client_order_id for one in told if isinstance(one, Fill)] == ["E1", "S1"]
    assert desk.held() == []
    assert desk.exchange.state.last_prices[BTC] == 50_500


def test_short_meets_the_high_first(tmp_path):
    """What is adverse depends on the position."""
    told = []
    desk = desk_in(tmp_path, told=told)
    desk.hear_quote(quoted(49_999, 50_001), now_ms=T0)
    send(desk, order("E1", Side.SELL))
    send(desk, order("S1", purpose=Purpose.STOP, kind=OrderType.STOP_MARKET, price=51_000))
    send(desk, order("T1", purpose=Purpose.TARGET, kind=OrderType.TAKE_PROFIT_MARKET, price=49_000))
    desk.hear_candle(BTC, span(T0 + CANDLE_MS, 52_000, 48_000, 50_500), now_ms=T0 + 2 * CANDLE_MS)

    assert [one.client_order_id for one in told if isinstance(one, Fill)] == ["E1", "S1"]


def test_what_a_candle_had_before_an_order_was_made_is_no_news_to_it(tmp_path):
    """A stop is not fired by a low from before it existed, but by one that the same candle makes afterwards."""
    desk = desk_in(tmp_path)
    long_with_exits(desk, now_ms=T0 + 60_000)
    desk.hear_candle(BTC, span(T0, 50_500, 48_000, 50_000), now_ms=T0 + 61_000)
    kept = desk.held()
    desk.hear_candle(BTC, span(T0, 50_500, 47_999, 50_000), now_ms=T0 + 62_000)

    assert kept == [BTC]
    assert desk.held() == []


def test_candle_that_closed_late_changes_no_last_price(tmp_path):
    """An older candle brings its extremes; what was heard after it stays the last price."""
    desk = desk_in(tmp_path)
    long_with_exits(desk)
    desk.hear_candle(BTC, span(T0 + CANDLE_MS, 50_200, 49_800, 50_100), now_ms=T0 + CANDLE_MS + 1)
    desk.hear_candle(BTC, span(T0 + 2 * CANDLE_MS, 50_300, 50_300, 50_300), now_ms=T0 + 2 * CANDLE_MS + 1)
    late = span(T0 + CANDLE_MS, 50_400, 49_500, 49_600)
    desk.hear_candle(BTC, late, now_ms=T0 + 2 * CANDLE_MS + 2, ends_at_close=False)

    assert desk.exchange.state.last_prices[BTC] == 50_300
    assert desk.held() == [BTC]


@pytest.mark.parametrize(
    ("known", "told", "youngest_ms", "found"),
    [
        pytest.param([], (110, 90), 0, (90, 110), id="first-word-of-a-candle"),
        pytest.param([], (110, 90), T0 + 1, (None, None), id="older-than-the-order"),
        pytest.param([(110, 90)], (110, 90), 0, (None, None), id="nothing-new"),
        pytest.param([(110, 90)], (120, 90), 0, (None, 120), id="new-high"),
        pytest.param([(110, 90)], (115, 80), T0 + 1, (80, 115), id="made-after-it-was-told"),
        pytest.param([(110, 90)], (120, 80), T0 + CANDLE_MS, (None, None), id="order-made-after-the-candle"),
        pytest.param([(110, 90), (100, 95)], (110, 90), 0, (None, None), id="a-word-that-goes-back"),
    ],
)
def test_which_extremes_are_news(known, told, youngest_ms, found):
    """Only what was traded since the orders were made is shown to them."""
    extremes = Extremes()
    for high, low in known:
        extremes.news(BTC, span(T0, high, low, 100), youngest_ms=0)

    assert extremes.news(BTC, span(T0, *told, 100), youngest_ms=youngest_ms) == found


def test_a_minute_that_was_caught_up_with_is_not_the_longer_candle():
    """Both open together; what the longer tells first was traded at any time, and is no news to a new stop."""
    extremes = Extremes()
    minute = replace(span(T0, 110, 90, 100), close_ms=T0 + 60_000)
    caught_up = extremes.news(BTC, minute, youngest_ms=0)

    assert caught_up == (90, 110)
    assert extremes.news(BTC, span(T0, 110, 85, 100), youngest_ms=T0 + 150_000) == (None, None)
    assert extremes.news(BTC, span(T0, 110, 80, 100), youngest_ms=T0 + 150_000) == (80, None)


def test_funding_is_paid_once_at_the_rate_and_mark_that_were_announced(tmp_path):
    """What is held when the venue settles pays by the announcement; a later start pays nothing again."""
    told = []
    desk = desk_in(tmp_path, told=told)
    long_with_exits(desk)
    due = Announced(T0 + 1_000, Decimal("0.0001"), Decimal(60_000))
    desk.announce(BTC, [due])
    before = desk.exchange.state.wallet
    desk.pass_time(T0 + 999)
    early = desk.exchange.state.wallet
    desk.pass_time(T0 + 5_000)
    again = desk_in(tmp_path)
    again.pass_time(T0 + 9_000)

    assert early == before
    assert before - desk.exchange.state.wallet == Decimal("0.06")
    assert [one.event_time_ms for one in desk.account.funding(0)] == [T0 + 1_000]
    assert told[-1] == FundingTold()
    assert again.exchange.state.wallet == desk.exchange.state.wallet
    assert BTC not in desk.exchange.state.mark_prices


def test_nobody_is_told_before_it_is_written(tmp_path):
    """At each word of the stream, the file already holds what it tells."""
    written = []
    desk = PaperDesk(
        file_in(tmp_path), fees=NO_FEES, tell=lambda _: written.append(len(file_in(tmp_path).load().engine.trades))
    )
    desk.know(make_instrument())
    desk.hear_quote(quoted(49_999, 50_001), now_ms=T0)
    send(desk, order("E1"))

    assert written
    assert set(written) == {1}


def test_what_cannot_be_written_has_not_happened(tmp_path, monkeypatch):
    """Where the disk fails the outcome is unknown, memory is what the file is, and nobody hears of the rest."""
    told = []
    desk = desk_in(tmp_path, told=told)
    long_with_exits(desk)
    heard = len(told)
    monkeypatch.setattr(desk._file, "save", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutcomeUnknownError, match="No space left"):
        send(desk, order("E2"), now_ms=T0 + 1)
    monkeypatch.undo()

    assert desk.account.find(order("E2")) is None
    assert len(told) == heard
    assert send(desk, order("E2"), now_ms=T0 + 2).status is OrderStatus.FILLED


def test_refusals_are_the_engines_and_change_nothing(tmp_path):
    """What the engine refuses is refused with its code; an id that rests already may exist."""
    desk = desk_in(tmp_path)
    long_with_exits(desk)
    with pytest.raises(OrderRefusedError) as nothing_to_reduce:
        send(desk, order("X1", Side.BUY, purpose=Purpose.EXIT))
    with pytest.raises(OutcomeUnknownError):
        send(desk, order("S1", Side.SELL, purpose=Purpose.STOP, kind=OrderType.STOP_MARKET, price=49_000))
    with pytest.raises(OrderRefusedError):
        desk.use_leverage(BTC, 1_000, now_ms=T0)

    assert nothing_to_reduce.value.code == -2022
    assert len(desk.account.open_orders()) == 2


def test_countdown_outlives_a_restart(tmp_path):
    """Entries that rest are cancelled in time though nobody ran, stops stay."""
    desk = desk_in(tmp_path)
    long_with_exits(desk)
    send(desk, order("E2", kind=OrderType.LIMIT, price=48_000))
    desk.set_countdown(BTC, 30_000, now_ms=T0)
    again = desk_in(tmp_path)
    again.pass_time(T0 + 30_000)

    assert {one.client_order_id for one in again.account.open_orders()} == {"S1", "T1"}
    assert again.account.find(order("E2", kind=OrderType.LIMIT, price=48_000)).status is OrderStatus.CANCELED


def test_countdown_of_a_symbol_that_no_one_holds_is_dropped_after_a_restart(tmp_path):
    """The instrument of what is over is not known again, and a countdown that is due of it stops nobody."""
    desk = desk_in(tmp_path)
    desk.hear_quote(quoted(49_999, 50_001), now_ms=T0)
    desk.set_countdown(BTC, 30_000, now_ms=T0)
    again = PaperDesk(file_in(tmp_path), fees=NO_FEES, tell=[].append)
    again.pass_time(T0 + 60_000)

    assert again.exchange.state.countdowns == {}


def test_an_extreme_that_could_not_be_written_is_news_again(tmp_path, monkeypatch):
    """Where the disk failed as a low reached the stop, the same candle told again fires it."""
    desk = desk_in(tmp_path)
    long_with_exits(desk)
    low = span(T0 + CANDLE_MS, 50_100, 48_900, 50_000)
    monkeypatch.setattr(desk._file, "save", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutcomeUnknownError):
        desk.hear_candle(BTC, low, now_ms=T0 + 2 * CANDLE_MS)
    monkeypatch.undo()
    held = desk.held()
    desk.hear_candle(BTC, low, now_ms=T0 + 2 * CANDLE_MS + 1)

    assert (held, desk.held()) == ([BTC], [])


def test_symbol_that_is_listed_no_more_ends_at_its_last_price(tmp_path):
    """What is held there is closed and its orders end, so that no trade waits for ever."""
    desk = desk_in(tmp_path)
    long_with_exits(desk)
    desk.show(BTC, [Decimal(50_500)], now_ms=T0 + 1)
    again = PaperDesk(file_in(tmp_path), fees=NO_FEES, tell=[].append)
    again.end_unlisted(BTC, now_ms=T0 + 2)

    assert again.active() == []
    assert again.account.fills(BTC, 0)[-1].quantity == Decimal("0.01")


def test_fees_follow_the_policy(tmp_path):
    """What takes pays the policy's fee, from the moment it changes."""
    desk = desk_in(tmp_path)
    desk.hear_quote(quoted(49_999, 50_001), now_ms=T0)
    send(desk, order("E1"))
    desk.use_fees(Fees(maker=Decimal(0), taker=Decimal("0.001")))
    send(desk, order("E2"))

    assert [one.fee for one in desk.account.fills(BTC, 0)] == [0, Decimal("0.50001")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "damaged", id="empty"),
        pytest.param(b"\xff\x00", "damaged", id="no-text"),
        pytest.param(b"[]", "damaged", id="a-list"),
        pytest.param(b'{"venue": "binanceusdm", "engine": {"wallet": "many"}}', "damaged", id="no-number"),
        pytest.param(
            b'{"venue":"bitfinex","engine":{"wallet":"1","opening_balance":"1"}}', "of venue 'bitfinex'", id="another"
        ),
        pytest.param(
            b'{"venue":"binanceusdm","engine":{"wallet":"1","opening_balance":"1","schema":99}}',
            "schema 99",
            id="later",
        ),
    ],
)
def test_file_that_is_no_account_is_named_and_left_alone(tmp_path, content, said):
    """Nothing is traded on a guess; the sentence says what to do, and the file stays as it is."""
    path = tmp_path / "paper" / "binanceusdm.json"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(PaperAccountError, match=said) as caught:
        file_in(tmp_path).load()

    assert "move it away" in str(caught.value)
    assert path.read_bytes() == content


def test_file_is_cut_in_half_and_refused(tmp_path):
    """Half of a file is never taken for a whole one."""
    desk = desk_in(tmp_path)
    long_with_exits(desk)
    path = tmp_path / "paper" / "binanceusdm.json"
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(PaperAccountError):
        desk_in(tmp_path)

    assert json.loads(raw)["venue"] == "binanceusdm"


def test_what_ended_long_ago_is_forgotten_and_what_waits_is_not(tmp_path):
    """After two months the open trade, its fills and its exits are still there, and what ended before it is not."""
    desk = desk_in(tmp_path)
    desk.hear_quote(quoted(49_999, 50_001), now_ms=T0)
    send(desk, order("E0"))
    send(desk, order("X0", Side.SELL, purpose=Purpose.EXIT))
    long_with_exits(desk, now_ms=T0 + 86_400_000)
    forget_old(desk.exchange.state, T0 + 60 * 86_400_000)
    desk.remember(T0 + 60 * 86_400_000)
    again = desk_in(tmp_path)

    assert [one.venue_order_id for one in again.account.fills(BTC, 0)] != []
    assert again.account.find(order("E0")) is None
    assert again.account.find(order("E1")) is not None
    assert {one.client_order_id for one in again.account.open_orders()} == {"S1", "T1"}
    assert again.exchange.state.wallet == desk.exchange.state.wallet


@pytest.mark.parametrize(("tick", "decimals"), [("0.1", 1), ("0.10", 1), ("0.05", 2), ("1", 0), ("10", 0), ("1E-7", 7)])
def test_steps_are_at_least_as_fine_as_the_venues(tick, decimals):
    """Whatever is a multiple of the venue's tick is one of the engine's."""
    found = engine_instrument(make_instrument(price_tick=Decimal(tick)))

    assert found.price_decimals == decimals
    assert Decimal(tick) % found.tick == 0
