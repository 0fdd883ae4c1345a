"""The venue's clock."""

from __future__ import annotations

from typing import Any

from feature_store import clock
from feature_store.venue.retry import retrying


async def venue_time_ms(exchange: Any) -> int:
    """
    Return the venue's time; the wall clock where a venue does not tell its own (Bitfinex).

    Raises:
        VenueDownError: The venue does not answer, after several attempts.
    """
    if not exchange.has.get("fetchTime"):
        return clock.utc_now_ms()
    answer = await retrying(lambda: exchange.fetch_time(), exchange=exchange)  # noqa: PLW0108  # looked up at each try
    return int(answer)
