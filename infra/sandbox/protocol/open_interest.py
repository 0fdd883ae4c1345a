"""Answers about open interest: how much of a contract is open, now and in the past."""

from __future__ import annotations

from decimal import Decimal
from hashlib import blake2b
from typing import Any

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.market.series import DAY_MS, INTERVALS
from infra.sandbox.protocol import shapes
from infra.sandbox.protocol.params import Params, symbol_of
from infra.sandbox.venue import Venue

PERIODS = ("5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d")
KEPT_MS = 30 * DAY_MS
"""The venue tells of the last month only."""
_FIVE_MINUTES_MS = 300_000
_SWING = 2016
"""Five-minute steps of one rise and fall: a week."""


def open_contracts(seed: int, instrument: Instrument, time_ms: int) -> Decimal:
    """
    Return how much is open: a fixed function of seed, instrument and time that knows nothing of prices.

    It rises and falls by a fifth within a week, from a level and a phase of the instrument's own.
    """
    digest = blake2b(f"{seed}|{instrument.symbol}|open interest".encode(), digest_size=8).digest()
    level = 50_000 + int.from_bytes(digest[:4], "big") % 950_000
    step = (time_ms // _FIVE_MINUTES_MS + int.from_bytes(digest[4:], "big")) % _SWING
    height = min(step, _SWING - step)
    return instrument.quantity(level * 100) * (1 + Decimal(height) / (_SWING * 5 // 2)).quantize(Decimal("0.0001"))


def present(venue: Venue, params: Params, now_ms: int) -> dict[str, Any]:
    """How much of one contract is open now."""
    instrument = venue.instrument(symbol_of(params))
    amount = open_contracts(venue.seed, instrument, now_ms)
    return {"symbol": instrument.symbol, "openInterest": shapes.text(amount), "time": now_ms}


def history(venue: Venue, params: Params, now_ms: int) -> list[dict[str, Any]]:
    """How much was open at the end of each period; with a start the oldest from there, without one the newest."""
    instrument = venue.instrument(symbol_of(params))
    period = params.required("period")
    if period not in PERIODS:
        raise VenueError(-1130, "Data sent for parameter 'period' is not valid.")
    step, limit = INTERVALS[period], params.limit(30, 500)
    end = min(params.integer("endTime") or now_ms, now_ms)
    start = params.integer("startTime")
    if start is not None and start < now_ms - KEPT_MS:
        raise VenueError(-1130, "Data sent for parameter 'startTime' is not valid.")
    if start is None:
        start = end - end % step - (limit - 1) * step
    first = -(-max(start, venue.market.first_ms) // step) * step
    times = range(first, end + 1, step)[:limit]
    return [_row(venue, instrument, at) for at in times]


def _row(venue: Venue, instrument: Instrument, at: int) -> dict[str, Any]:
    amount = open_contracts(venue.seed, instrument, at)
    candle = venue.market.history(venue.index[instrument.symbol], at - venue.market.base_ms, at)
    price = instrument.price(int(candle.close[-1])) if len(candle) else venue.last_price(instrument.symbol)
    return {
        "symbol": instrument.symbol,
        "sumOpenInterest": shapes.text(amount),
        "sumOpenInterestValue": shapes.text((amount * price).quantize(Decimal("0.0001"))),
        "CMCCirculatingSupply": shapes.text(amount * 100),
        "timestamp": at,
    }
