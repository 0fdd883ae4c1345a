"""How long positions have been without a stop, and stops have fired without filling."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from decimal import Decimal

from inference.domain.order import OrderStatus, Purpose
from inference.domain.trade import ExitReason
from inference.execution.book import Trade
from inference.execution.patience import ExecutionSettings
from inference.execution.steps import Leave


class Protection:
    """The clocks that run while something is unprotected; they begin anew with each process."""

    def __init__(
        self,
        settings: ExecutionSettings,
        monotonic: Callable[[], float],
        *,
        sent_at: Callable[[str], float | None] = lambda _: None,
    ) -> None:
        """`sent_at` says when an order of this life was sent: an entry at market may have executed since then."""
        self._settings = settings
        self._sent_at = sent_at
        self._monotonic = monotonic
        self._naked_since: dict[str, float] = {}
        self._fired_since: dict[str, float] = {}

    def is_overdue(self, trade: Trade) -> bool:
        """Whether the venue has had its time to confirm a stop for all that is open."""
        return self._monotonic() > self.bare_until(trade)

    def bare_until(self, trade: Trade) -> float:
        """Return until when, in monotonic seconds, what is open may do without a stop; endless where it has one."""
        key = trade.plan.trade_id
        covered = sum((order.remaining for order in trade.of(Purpose.STOP) if order.is_live), Decimal(0))
        if covered >= trade.open_quantity:
            self._naked_since.pop(key, None)
            return math.inf
        if key not in self._naked_since:
            self._naked_since[key] = self._bare_from(trade)
        return self._naked_since[key] + self._settings.stop_within_seconds

    def _bare_from(self, trade: Trade) -> float:
        now = self._monotonic()
        entry = trade.of(Purpose.ENTRY)[-1:]
        if not entry or entry[0].intent.rests or trade.of(Purpose.STOP):
            return now
        # What became of it may have been learned long after it happened.
        sent_at = self._sent_at(entry[0].intent.client_order_id)
        return now if sent_at is None else sent_at

    def unfilled_stop(self, trade: Trade) -> Leave | None:
        """Return what a stop that fired in vain calls for."""
        if trade.exit_reason is None and self.has_fired_in_vain(trade):
            return Leave(ExitReason.STOP_UNFILLED, "the stop fired and did not fill in time")
        return None

    def has_fired_in_vain(self, trade: Trade) -> bool:
        """Whether a stop fired and has not filled for too long."""
        late = False
        for order in trade.of(Purpose.STOP):
            key = order.intent.client_order_id
            fired = order.status in (OrderStatus.TRIGGERED, OrderStatus.PARTIALLY_FILLED)
            if not fired or trade.open_quantity == 0:
                self._fired_since.pop(key, None)
                continue
            since = self._fired_since.setdefault(key, self._monotonic())
            late = late or self._monotonic() - since > self._settings.fired_patience_seconds
        return late

    def forget(self, trade_id: str, client_order_ids: Collection[str]) -> None:
        """Let go of what was remembered of a trade that is over."""
        self._naked_since.pop(trade_id, None)
        for key in client_order_ids:
            self._fired_since.pop(key, None)
