"""Funding: the rate of each interval and what an open position pays."""

from __future__ import annotations

from decimal import Decimal
from hashlib import blake2b

from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.position import Position, cents

HOUR_MS = 3_600_000
INTERVAL_MS = 8 * HOUR_MS
HOURS = (1, 4, 8)
_BASE = Decimal("0.0001")
_UNIT = Decimal("0.000001")


def interval_ms(instrument: Instrument) -> int:
    """Time between two settlements of an instrument."""
    return instrument.funding_hours * HOUR_MS


def rate_at(seed: int, symbol: str, time_ms: int, interval: int = INTERVAL_MS) -> Decimal:
    """
    Funding rate settled at the interval boundary at or before `time_ms`.

    A fixed function of seed, symbol and time around the venue's base of one basis point in eight hours, and its share
    of that in shorter intervals; it knows nothing of prices.
    """
    boundary = time_ms - time_ms % interval
    digest = blake2b(f"{seed}|{symbol}|{boundary}".encode(), digest_size=4).digest()
    offset = int.from_bytes(digest, "big") % 201 - 100
    rate = _BASE + _UNIT * offset
    return rate if interval == INTERVAL_MS else cents(rate * interval / INTERVAL_MS)


def next_boundary(time_ms: int, interval: int = INTERVAL_MS) -> int:
    """The first settlement strictly after `time_ms`."""
    return time_ms - time_ms % interval + interval


def payment(position: Position, mark: Decimal, rate: Decimal) -> Decimal:
    """What the holder receives; negative when longs pay a positive rate."""
    return cents(-position.quantity * mark * rate)
