"""Funding: the rate of each interval and what an open position pays."""

from __future__ import annotations

from decimal import Decimal
from hashlib import blake2b

from infra.sandbox.engine.position import Position, cents

INTERVAL_MS = 8 * 3_600_000
_BASE = Decimal("0.0001")
_UNIT = Decimal("0.000001")


def rate_at(seed: int, symbol: str, time_ms: int) -> Decimal:
    """
    Funding rate settled at the interval boundary at or before `time_ms`.

    A fixed function of seed, symbol and time around the venue's base of one basis point; it knows nothing of prices.
    """
    boundary = time_ms - time_ms % INTERVAL_MS
    digest = blake2b(f"{seed}|{symbol}|{boundary}".encode(), digest_size=4).digest()
    offset = int.from_bytes(digest, "big") % 201 - 100
    return _BASE + _UNIT * offset


def next_boundary(time_ms: int) -> int:
    """The first settlement strictly after `time_ms`."""
    return time_ms - time_ms % INTERVAL_MS + INTERVAL_MS


def payment(position: Position, mark: Decimal, rate: Decimal) -> Decimal:
    """What the holder receives; negative when longs pay a positive rate."""
    return cents(-position.quantity * mark * rate)
