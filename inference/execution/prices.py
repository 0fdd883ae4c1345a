"""The prices that were known last, and for how long they say something of what an order met."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from inference.domain.market import Quote

# A price that is older says little of what an order met.
_FRESH_MS = 60_000


class Prices:
    """
    Best bids and asks by symbol; an old one is none.

    They are asked for when something is decided. In between, `traded` says what a symbol traded at last, or None.
    """

    def __init__(self, now_ms: Callable[[], int], traded: Callable[[str], Decimal | None] = lambda _: None) -> None:
        self._now_ms = now_ms
        self._traded = traded
        self._quotes: dict[str, Quote] = {}

    def know(self, quotes: Mapping[str, Quote]) -> None:
        """Take in newer prices."""
        self._quotes.update(quotes)

    def arrival(self, symbol: str) -> Decimal | None:
        """Return halfway between the best prices, where those are old the last trade, None where that is too."""
        quote = self._quotes.get(symbol)
        if quote is None or abs(self._now_ms() - quote.event_time_ms) > _FRESH_MS:
            return self._traded(symbol)
        return quote.mid
