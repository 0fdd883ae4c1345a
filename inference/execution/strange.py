"""What the account's stream tells of a symbol that it cannot be of: told once, never traded on, asked for again."""

from __future__ import annotations

from collections.abc import Callable

from inference.domain.events import Noted
from inference.domain.order import Fill, OrderReport
from inference.execution.ledger import Ledger

UNEXPLAINED = "risk.report_unexplained"
# Names of a venue are a few hundred; whoever invents them does not fill the journal.
_TOLD_AT_MOST = 256


class Strangers:
    """
    Tells which reports and executions are of a symbol that they cannot be of, one event for each such symbol.

    What is said of an order of ours under another symbol is not believed: `doubt` has the venue asked for all that
    happened, so that nothing is lost. What is said of a symbol that is not followed is somebody else's, and changes
    nothing; the reconciliation looks at the account's positions as ever.
    """

    def __init__(
        self, ledger: Ledger, *, doubt: Callable[[], None], is_followed: Callable[[str], bool] = lambda _: True
    ) -> None:
        self._ledger = ledger
        self._doubt = doubt
        self._is_followed = is_followed
        self._told: set[tuple[str, str]] = set()

    def is_strange(self, one: OrderReport | Fill) -> bool:
        """Whether this is not to be taken in; the first of its kind is journaled."""
        book = self._ledger.book
        order = book.order(one.client_order_id)
        if order is None:
            order = book.order(book.client_order_id_of(one.venue_order_id) or "")
        if order is None:
            if not self._is_followed(one.symbol):
                self._tell(one, ours="", why="no such symbol is followed, and the order is none of ours")
                return True
            return False
        ours = order.intent.symbol
        if one.symbol == ours:
            return False
        self._tell(one, ours=ours, why="the order is ours, and of another symbol: the venue is asked")
        self._doubt()
        return True

    def _tell(self, one: OrderReport | Fill, *, ours: str, why: str) -> None:
        kind = (one.symbol, ours)
        if kind in self._told or len(self._told) >= _TOLD_AT_MOST:
            return
        self._told.add(kind)
        detail = {
            "symbol": one.symbol[:80],
            "ours": ours,
            "client_order_id": one.client_order_id[:80],
            "venue_order_id": one.venue_order_id[:80],
            "what": "execution" if isinstance(one, Fill) else "report",
            "why": why,
        }
        self._ledger.note(Noted(event_type=UNEXPLAINED, detail=detail))
