"""Candles of other kinds and the terms of funding."""

from __future__ import annotations

from typing import Any

from infra.sandbox.handlers.call import Call
from infra.sandbox.market.timetable import under_maintenance
from infra.sandbox.protocol import market_data


def index_klines(call: Call) -> Any:
    """Candles of mark or index price; here both are the last price."""
    pair = (call.params.text("pair") or call.params.required("symbol")).upper()
    return market_data.flat_rows(market_data.klines(call.venue, call.params, call.now_ms, symbol=pair))


def premium_klines(call: Call) -> Any:
    """Candles of the premium; here it is zero."""
    table = market_data.flat_rows(market_data.klines(call.venue, call.params, call.now_ms))
    return [[row[0], "0", "0", "0", "0", *row[5:]] for row in table]


def continuous_klines(call: Call) -> Any:
    """Candles of the perpetual contract of a pair."""
    return market_data.klines(call.venue, call.params, call.now_ms, symbol=call.params.required("pair").upper())


def funding_info(call: Call) -> Any:
    """Interval and bounds of funding."""
    return [
        {
            "symbol": one.symbol,
            "adjustedFundingRateCap": "0.02000000",
            "adjustedFundingRateFloor": "-0.02000000",
            "fundingIntervalHours": one.funding_hours,
            "disclaimer": False,
        }
        for one in call.venue.market.instruments
    ]


def system_status(call: Call) -> Any:
    """Whether the venue is under maintenance."""
    standing = under_maintenance(call.venue.exchange.state, call.now_ms)
    return {"status": int(standing), "msg": "system_maintenance" if standing else "normal"}
