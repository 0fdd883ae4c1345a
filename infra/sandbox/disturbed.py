"""What is wrong with the venue at present beyond single requests; all of it off unless asked for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from infra.sandbox.engine.book import BookModel
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.limits import TooMany

# What a lagging copy of the order store answers late, and which field of a row says how old it is.
STALE_PATHS = {
    "/fapi/v1/order": "time",
    "/fapi/v1/openOrder": "time",
    "/fapi/v1/openOrders": "time",
    "/fapi/v1/allOrders": "time",
    "/fapi/v1/algoOrder": "createTime",
    "/fapi/v1/openAlgoOrders": "createTime",
    "/fapi/v1/allAlgoOrders": "createTime",
    "/api/v3/order": "time",
    "/api/v3/openOrders": "time",
    "/api/v3/allOrders": "time",
}


@dataclass(slots=True)
class Disturbed:
    """The disturbances in force."""

    # Orders younger than so many seconds are not found by those who ask.
    stale_seconds: float = 0.0
    # Handshakes of WebSockets that are still refused, with which status and Retry-After.
    handshakes: int = 0
    handshake_status: int = 429
    handshake_retry_after: float = 2.0
    # While it is not set, sockets and requests are accepted and never answered, not even pings.
    answering: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answering.set()

    @property
    def black_hole(self) -> bool:
        """Whether all that comes is swallowed."""
        return not self.answering.is_set()

    def swallow(self, *, on: bool) -> None:
        """Begin or end to swallow what comes."""
        if on:
            self.answering.clear()
        else:
            self.answering.set()

    def refuses_handshake(self) -> bool:
        """Whether this handshake is refused; uses one up."""
        if self.handshakes <= 0:
            return False
        self.handshakes -= 1
        return True

    def clear(self) -> None:
        """Be well again."""
        self.stale_seconds = 0.0
        self.handshakes = 0
        self.swallow(on=False)


def without_young(path: str, data: Any, since_ms: float) -> Any:
    """
    Return an answer of a copy that lags: orders made at or after a venue time are not in it.

    Raises:
        VenueError: It was about one order, and that is too young.
    """
    name = STALE_PATHS.get(path)
    if name is None:
        return data
    if isinstance(data, list):
        return [row for row in data if row.get(name, 0) < since_ms]
    if data.get(name, 0) >= since_ms:
        raise VenueError(-2013)
    return data


def too_many(refusal: TooMany, now_ms: int, speed: float) -> dict[str, Any]:
    """Return what is said to one that asks too often; the end of a ban stands in it in the venue's time."""
    if refusal.status != 418:
        return {"code": -1003, "msg": VenueError(-1003).message}
    until = now_ms + round(refusal.retry_after_seconds * 1000 * speed)
    return {"code": -1003, "msg": f"Way too many requests; IP banned until {until}. Please use the websocket."}


class ThinBook:
    """A book that gives takers a part of what they want, so often; in everything else it is the one it stands for."""

    def __init__(self, book: BookModel, share: Decimal, times: int | None) -> None:
        self.whole = book
        self._share = share
        self._times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def walk(self, instrument: Any, *asked: Any, **named: Any) -> Any:
        """Return the fills of a taker who gets but a part."""
        if self._times is not None:
            if self._times <= 0:
                return self.whole.walk(instrument, *asked, **named)
            self._times -= 1
        wanted = (named["quantity"] * self._share).quantize(instrument.step, rounding=ROUND_FLOOR)
        return self.whole.walk(instrument, *asked, **(named | {"quantity": wanted}))
