"""Making journal and venue agree: reads the venue, acts on the differences, looks again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal

from feature_store.venue.errors import VenueError
from inference.domain.events import ExitRequested, Noted, PositionFoundChanged, TradePlanned
from inference.domain.order import Purpose
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason, TradePlan
from inference.execution.book import Trade
from inference.execution.client_order_id import trade_id_of
from inference.execution.ledger import Ledger
from inference.execution.patience import ExecutionSettings
from inference.execution.ports import Gateway, VenuePosition
from inference.execution.reconcile import (
    Action,
    AdoptPosition,
    CancelOrphan,
    FlattenPosition,
    QueryOrder,
    Recheck,
    Settle,
    VenueView,
    reconcile,
)
from inference.execution.steps import intent_of
from inference.execution.submission import Submission

# Two looks only ask; from the third on the venue is believed.
_LOOKS = 6
_LOOKS_THAT_ASK = 2
# So many exits of one trade may have been sent after a backup.
_EARLIER_EXITS = 8


class Reconciler:
    """Runs the reconciliation; symbols that are being settled meanwhile are left to their own turn."""

    def __init__(
        self,
        *,
        gateway: Gateway,
        ledger: Ledger,
        submission: Submission,
        settings: ExecutionSettings,
        locks: dict[str, asyncio.Lock],
        settle: Callable[[str], Awaitable[None]],
        is_due: Callable[[Trade], bool],
        now_ms: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]],
        answers_again: Callable[[], None],
        on_positions: Callable[[Sequence[VenuePosition]], None] = lambda _: None,
    ) -> None:
        """`on_positions` hears what the venue holds, and at which marks, whenever that was read."""
        self._on_positions = on_positions
        self._gateway = gateway
        self._ledger = ledger
        self._submission = submission
        self._settings = settings
        self._locks = locks
        self._settle = settle
        self._is_due = is_due
        # What was found and nothing of ours explains; a person has to look at the account.
        self.unexplained = ""
        # Where orders of another journal of ours were found, until all agrees.
        self._orphaned: set[str] = set()
        self._now_ms = now_ms
        self._sleep = sleep
        self._answers_again = answers_again
        self._was_unanswered = False

    async def reconcile(self) -> bool:
        """Return whether journal and venue agree in the end; a venue that cannot be asked agrees with nothing."""
        try:
            for look in range(_LOOKS):
                revisions = self._ledger.book.revisions()
                view = await self._view()
                found = reconcile(self._ledger.book, view, confirmed=look >= _LOOKS_THAT_ASK, is_due=self._is_due)
                # What changed since the venue was read, or is being settled, makes the reading worthless.
                actions = [one for one in found if self._is_quiet(one.symbol, revisions)]
                if not actions:
                    self._orphaned.clear()
                    return True
                for action in actions:
                    await self._act(action, revisions)
                await self._sleep(self._settings.poll_seconds)
        except VenueError:
            self._was_unanswered = True
            return False
        return False

    async def ask_for_earlier_exits(self) -> None:
        """After a restore, find what has ended since before its symbol's position is taken for its own."""
        book = self._ledger.book
        for key in sorted(book.older & {trade.plan.trade_id for trade in book.active()}):
            for _ in range(_EARLIER_EXITS):
                trade = book.trades[key]
                exit_order = intent_of(trade, Purpose.EXIT, trade.open_quantity)
                if trade.open_quantity <= 0 or not await self._submission.was_sent_before(exit_order):
                    break
                # Why it was left stands in the journal that was lost.
                since = ExitRequested(trade_id=key, reason=ExitReason.EXTERNAL, detail="it was left after the backup")
                self._ledger.note(since, trace_id=trade.plan.trace_id)
                await self._settle(trade.symbol)

    async def _view(self) -> VenueView:
        positions = await self._gateway.positions()
        self._on_positions(positions)
        view = VenueView(
            positions={one.symbol: one for one in positions if one.signed_quantity != 0},
            open_orders=tuple(await self._gateway.open_orders()),
        )
        if self._was_unanswered:
            self._was_unanswered = False
            self._answers_again()
        return view

    def _is_quiet(self, symbol: str, revisions: dict[str, int]) -> bool:
        return not self._locks[symbol].locked() and self._ledger.book.revision(symbol) == revisions.get(symbol, 0)

    async def _act(self, action: Action, revisions: dict[str, int]) -> None:
        match action:
            case Recheck():
                pass
            case Settle(symbol=symbol):
                await self._settle(symbol)
            case QueryOrder(symbol=symbol, client_order_id=key):
                async with self._locks[symbol]:
                    if order := self._ledger.book.order(key):
                        await self._submission.ask(order.intent)
            case AdoptPosition() | FlattenPosition() | CancelOrphan():
                if not self._is_quiet(action.symbol, revisions):
                    return
                async with self._locks[action.symbol]:
                    await self._correct(action)
                await self._settle(action.symbol)

    async def _correct(self, action: AdoptPosition | FlattenPosition | CancelOrphan) -> None:
        match action:
            case AdoptPosition(trade_id=key, open_quantity=quantity, price=price, symbol=symbol):
                trade = self._ledger.book.trades[key]
                reason = "somebody else traded: our executions do not explain what the venue holds"
                detail = {"ours": str(trade.open_quantity), "venue": str(quantity), "trade_id": key}
                self._note(symbol, "position_adopted", reason, detail)
                event = PositionFoundChanged(
                    trade_id=key, symbol=symbol, open_quantity=quantity, price=price, reason=reason
                )
                self._ledger.note(event, trace_id=trade.plan.trace_id, durable=True)
            case FlattenPosition(symbol=symbol, signed_quantity=signed, price=price, is_ours=ours):
                ours = ours or symbol in self._orphaned
                reason = (
                    "a trade of another journal of ours holds it"
                    if ours
                    else "no trade and no order of ours explains this position"
                )
                if not ours:
                    self.unexplained = self.unexplained or f"{symbol}: {reason} ({signed})"
                self._note(symbol, "position_flattened", reason, {"venue": str(signed)})
                self._flatten(symbol, signed, price)
            case CancelOrphan(symbol=symbol, intent=intent):
                self._orphaned.add(symbol)
                detail = {"client_order_id": intent.client_order_id}
                self._note(symbol, "orphan_cancelled", "no open trade of ours wants this order", detail)
                await self._submission.remove(intent)

    def _note(self, symbol: str, action: str, reason: str, detail: Mapping[str, str]) -> None:
        told = {"symbol": symbol, "action": action, "reason": reason, **detail}
        self._ledger.note(Noted(event_type="risk.corrected", detail=told))

    def _flatten(self, symbol: str, signed_quantity: Decimal, price: Decimal) -> None:
        plan = _found_position(symbol=symbol, signed_quantity=signed_quantity, price=price, now_ms=self._now_ms())
        found = PositionFoundChanged(trade_id=plan.trade_id, symbol=symbol, open_quantity=plan.quantity, price=price)
        leave = ExitRequested(
            trade_id=plan.trade_id, reason=ExitReason.EXTERNAL, detail="no trade of ours explains this position"
        )
        for event in (TradePlanned(plan=plan), found, leave):
            self._ledger.note(event, trace_id=plan.trace_id, durable=event is leave)


def _found_position(*, symbol: str, signed_quantity: Decimal, price: Decimal, now_ms: int) -> TradePlan:
    # Only exists to end the position: its barriers are never used, its risk is unknown and counts as all of it.
    origin = f"found|{symbol}|{now_ms}"
    quantity = abs(signed_quantity)
    return TradePlan(
        trade_id=trade_id_of(origin),
        trace_id=origin,
        symbol=symbol,
        direction=Direction.LONG if signed_quantity > 0 else Direction.SHORT,
        quantity=quantity,
        reference_price=price,
        stop_price=price,
        target_price=price,
        risk=quantity * price,
        confidence=0.0,
        model_version="",
        candle_close_ms=now_ms,
        planned_at_ms=now_ms,
    )
