"""Orders that take their price over from the book: whose, at which level, and what they may not bring."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import islice

import pytest

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.model import OrderRequest, OrderStatus, OrderType, PriceMatch, TimeInForce
from infra.sandbox.protocol.params import Params, algo_request, order_request
from tests.matching_support import BUY, COIN, LIMIT, MARKET, NAME, SELL, STOP, code_of, held, make_exchange, move

D = Decimal
MATCHES = [one for one in PriceMatch if one is not PriceMatch.NONE]


@pytest.mark.parametrize("side", [BUY, SELL])
@pytest.mark.parametrize("match", MATCHES)
def test_the_price_is_that_of_the_named_level(match, side):
    """OPPONENT takes and QUEUE rests, each at the very price that the book shows at its level."""
    exchange = make_exchange(balance="100000")
    bids, asks = exchange.book.depth(COIN, D(100), 20)
    shown = (asks if side is BUY else bids) if match.is_opponent else (bids if side is BUY else asks)

    order = exchange.submit(replace(LIMIT, side=side, price=None, price_match=match), now_ms=2)

    assert order.price == shown[match.level - 1][0]
    assert order.price_match is match
    assert order.status is (OrderStatus.FILLED if match.is_opponent else OrderStatus.NEW)


def test_post_only_joins_the_queue_and_never_the_other_side():
    """What takes over the other side's price would take, and a post-only order is refused for it."""
    exchange = make_exchange()
    post_only = replace(LIMIT, price=None, time_in_force=TimeInForce.GTX)

    assert code_of(
        lambda: exchange.submit(replace(post_only, price_match=PriceMatch.OPPONENT), now_ms=2)
    ) == -5022  # fmt: skip
    assert exchange.submit(replace(post_only, price_match=PriceMatch.QUEUE), now_ms=2).is_open


def test_a_conditional_order_asks_for_its_price_when_it_triggers():
    """A stop that takes over a price takes the book's of that moment, not the one it was sent at."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    exchange.submit_algo(
        replace(STOP, type=OrderType.STOP, price_match=PriceMatch.OPPONENT_20), now_ms=3
    )  # fmt: skip

    move(exchange, "97", now_ms=4)

    child = exchange.state.orders[max(exchange.state.orders)]
    assert child.price == next(islice(exchange.book.levels(COIN, D(97), SELL), 19, None))[0]
    assert child.status is OrderStatus.FILLED
    assert held(exchange) == 0


def test_an_amendment_takes_over_a_price_too_and_one_of_its_own_ends_that():
    """The amended order says whose price it has; amended by a price, it has its own."""
    exchange = make_exchange()
    order = exchange.submit(LIMIT, now_ms=2)
    price = exchange.matched_price(NAME, BUY, PriceMatch.QUEUE_5)

    queued = exchange.amend(
        NAME, order.order_id, quantity=D(10), price=price, price_match=PriceMatch.QUEUE_5, now_ms=3
    )  # fmt: skip
    own = exchange.amend(NAME, order.order_id, quantity=D(10), price=D(98), now_ms=4)

    assert (queued.price, queued.price_match) == (price, PriceMatch.QUEUE_5)
    assert (own.price, own.price_match) == (D(98), PriceMatch.NONE)


def test_a_level_that_the_book_does_not_have_is_refused():
    """Twenty levels below a price of a few ticks there are none."""
    exchange = make_exchange(price="0.05")

    found = code_of(lambda: exchange.submit(replace(LIMIT, price=None, price_match=PriceMatch.QUEUE_20), now_ms=2))

    assert found == -5041


@pytest.mark.parametrize(
    ("given", "code"),
    [
        pytest.param({"priceMatch": "BEST"}, -5037, id="no-such-match"),
        pytest.param({"priceMatch": "queue"}, -5037, id="words-are-capital"),
        pytest.param({"priceMatch": "QUEUE", "type": "MARKET"}, -5038, id="a-market-order-has-no-price"),
        pytest.param({"priceMatch": "QUEUE", "price": "99"}, -1106, id="two-prices"),
        pytest.param({"priceMatch": "NONE"}, -1102, id="none-is-no-price"),
        pytest.param({}, -1102, id="no-price-at-all"),
    ],
)
def test_what_cannot_be_matched_is_refused_in_the_words_of_the_venue(given, code):
    """A match that is unknown, or beside a price, or of a kind without one, is refused before anything is looked at."""
    asked = {"symbol": NAME, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "10"} | given

    with pytest.raises(VenueError) as refusal:
        order_request(Params(asked))

    assert refusal.value.code == code


def test_a_match_is_read_of_both_endpoints():
    """Plain and conditional orders say it by the same name."""
    plain = {"symbol": NAME, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "10"}
    conditional = {"symbol": NAME, "side": "SELL", "type": "STOP", "quantity": "10", "triggerPrice": "98"}

    read = order_request(Params(plain | {"priceMatch": "OPPONENT_5"}))
    algo = algo_request(Params(conditional | {"priceMatch": "QUEUE_10"}))

    assert read == OrderRequest(NAME, BUY, OrderType.LIMIT, D(10), price_match=PriceMatch.OPPONENT_5)
    assert (algo.price, algo.price_match) == (None, PriceMatch.QUEUE_10)
