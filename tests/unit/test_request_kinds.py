"""What kind of request each call of ccxt is."""

from __future__ import annotations

import pytest

from feature_store.venue.requests import Endpoint, Kind, Urgency, kind_of

BULKY = Kind(Endpoint.MARKET, Urgency.USUAL)
READ = Kind(Endpoint.ACCOUNT, Urgency.USUAL)
ASKED = Kind(Endpoint.ACCOUNT, Urgency.URGENT)
CANCELLED = Kind(Endpoint.CANCEL, Urgency.URGENT)
ENTRY = Kind(Endpoint.ORDER, Urgency.USUAL, 1)
EXIT = Kind(Endpoint.ORDER, Urgency.URGENT, 1)


@pytest.mark.parametrize(
    ("path", "api", "method", "params", "kind"),
    [
        ("klines", ["fapiPublic"], "GET", {}, BULKY),
        ("order", ["fapiPrivate"], "POST", {"side": "BUY"}, ENTRY),
        ("order", "fapiPrivate", "POST", {"side": "BUY", "reduceOnly": "false"}, ENTRY),
        ("order", ["fapiPrivate"], "POST", {"reduceOnly": "true"}, EXIT),
        ("order", ["fapiPrivate"], "POST", {"reduceOnly": True}, EXIT),
        ("algoOrder", ["fapiPrivate"], "POST", {"closePosition": "true"}, EXIT),
        ("algoOrder", ["fapiPrivate"], "POST", {}, ENTRY),
        ("batchOrders", ["fapiPrivate"], "POST", {"batchOrders": [{}, {}, {}]}, Kind(Endpoint.ORDER, Urgency.USUAL, 3)),
        ("order", ["fapiPrivate"], "PUT", {}, ENTRY),
        ("order", ["fapiPrivate"], "DELETE", {}, CANCELLED),
        ("algoOpenOrders", ["fapiPrivate"], "DELETE", {}, CANCELLED),
        ("order", ["fapiPrivate"], "GET", {}, ASKED),
        ("positionRisk", ["fapiPrivateV3"], "GET", {}, ASKED),
        ("listenKey", ["fapiPrivate"], "PUT", {}, ASKED),
        ("countdownCancelAll", ["fapiPrivate"], "POST", {}, ASKED),
        ("leverage", ["fapiPrivate"], "POST", {}, READ),
        ("account", ["fapiPrivateV3"], "GET", None, READ),
        ("order", ["private"], "POST", {"side": "SELL"}, EXIT),
        ("order", "private", "POST", {"side": "SELL"}, EXIT),
        ("order", ["private"], "POST", {"side": "BUY"}, ENTRY),
        ("order", ["fapiPrivate"], "POST", {"side": "SELL"}, ENTRY),
        ("myTrades", ["private"], "GET", {}, ASKED),
        ("auth/w/order/submit", ["private"], "POST", {"flags": 0}, ENTRY),
        ("auth/w/order/submit", ["private"], "POST", {"flags": 1024}, EXIT),
        ("auth/w/order/submit", ["private"], "POST", {"flags": 5120}, EXIT),
        ("auth/w/order/submit", ["private"], "POST", {"flags": "1024"}, ENTRY),
        ("auth/w/order/cancel", ["private"], "POST", {}, CANCELLED),
        ("auth/w/order/cancel/multi", ["private"], "POST", {}, CANCELLED),
        ("auth/r/positions", ["private"], "POST", {}, ASKED),
        ("auth/r/wallets", ["private"], "POST", {}, READ),
        ("candles/trade:1m:tBTCUSD/hist", ["public"], "GET", {}, BULKY),
        ("order", ["fapiPrivate"], "POST", "not a mapping", ENTRY),
        ("order", ["fapiPrivate"], "POST", {"batchOrders": "x"}, ENTRY),
    ],
)
def test_each_request_has_its_kind(path, api, method, params, kind):
    """What protects a position goes first, orders are counted, and what cannot be read is not urgent."""
    assert kind_of(path, api, method, params) == kind
