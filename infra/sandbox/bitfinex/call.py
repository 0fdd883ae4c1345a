"""One admitted request, its body, and what several handlers read of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from infra.sandbox.bitfinex.refusals import invalid
from infra.sandbox.venue import Venue

CID_LIMIT = 1 << 45

_MOST_DECIMALS = 40


@dataclass(frozen=True, slots=True)
class Call:
    """
    One request, parsed and let in.

    `place` holds what stands in the path; `before_ms` is set where a copy answers that lags: it knows no order made
    since then.
    """

    venue: Venue
    now_ms: int
    body: dict[str, Any] = field(default_factory=dict)
    place: tuple[str, ...] = ()
    before_ms: float | None = None

    def whole(self, name: str) -> int | None:
        """
        Return a whole number of the body, None where it is absent.

        Raises:
            Refusal: It is none.
        """
        value = self.body.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
            value = int(value)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise invalid(name)
        return value

    def decimal(self, name: str) -> Decimal | None:
        """
        Return a number of the body, None where it is absent.

        Raises:
            Refusal: It is none, or has more digits than anybody trades.
        """
        value = self.body.get(name)
        if value is None:
            return None
        try:
            number = Decimal(str(value)) if isinstance(value, str | int | float) and len(str(value)) < 40 else None
        except InvalidOperation:
            number = None
        if number is None or isinstance(value, bool) or not number.is_finite() or number.adjusted() > 15:
            raise invalid(name)
        # What nobody trades by is refused here, whatever arithmetic would make of it.
        if int(number.as_tuple().exponent) < -_MOST_DECIMALS:
            raise invalid(name)
        return number

    def client_id(self) -> int | None:
        """
        Return the client's number of an order.

        Raises:
            Refusal: It is none of 45 bits.
        """
        found = self.whole("cid")
        if found is not None and not 0 < found < CID_LIMIT:
            raise invalid("cid")
        return found

    def limit(self, default: int, most: int) -> int:
        """
        Return how many rows are wanted.

        Raises:
            Refusal: They are none, or too many.
        """
        found = self.whole("limit")
        if found is not None and not 1 <= found <= most:
            raise invalid("limit")
        return default if found is None else found


def date_of(time_ms: int) -> str:
    """Return the UTC day of a moment, as a client's number of an order is dated."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d")
