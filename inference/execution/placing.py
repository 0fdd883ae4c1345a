"""Sending one order of a trade: what has to be asked before it leaves, and what its answer says of the next ones."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import replace

from inference.domain.order import OrderIntent, OrderType, Purpose
from inference.execution.book import Trade
from inference.execution.closing import Closing
from inference.execution.dead_man import DeadMan
from inference.execution.entry_door import EntryDoor
from inference.execution.exit_pauses import ExitPauses
from inference.execution.ledger import Ledger
from inference.execution.lifecycle import Order
from inference.execution.patience import ExecutionSettings
from inference.execution.prices import Prices
from inference.execution.protection import Protection
from inference.execution.standing_orders import NOTHING_TO_REDUCE
from inference.execution.steps import held_as
from inference.execution.submission import Outcome, Submission


class Placing:
    """Places one order; returns whether to look at once for what its trade needs next."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        submission: Submission,
        closing: Closing,
        protection: Protection,
        dead_man: DeadMan,
        door: EntryDoor,
        pauses: ExitPauses,
        prices: Prices,
        settings: ExecutionSettings,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        may_send_entry: Callable[[Trade], bool],
        doubt: Callable[[], None],
    ) -> None:
        self._book = ledger.book
        self._submission = submission
        self._closing = closing
        self._protection = protection
        self._dead_man = dead_man
        self._door = door
        self._pauses = pauses
        self._prices = prices
        self._settings = settings
        self._monotonic = monotonic
        self._sleep = sleep
        self._may_send_entry = may_send_entry
        self._doubt = doubt

    async def place(self, trade: Trade, intent: OrderIntent, *, is_moot: Callable[[], bool]) -> bool:
        """
        Send an order; one that follows others of its purpose in doubt only after a question about those.

        `is_moot` says whether what was learned meanwhile calls for something else.

        Raises:
            JournalError: An entry could not be recorded; it was not sent.
        """
        is_entry, key = intent.purpose is Purpose.ENTRY, trade.plan.trade_id
        # Before anything else is asked of the venue: what is short is room for requests.
        if is_entry and not self._may_send_entry(trade):
            return False
        if intent.rests and not await self._dead_man.arm(intent.symbol):
            return False
        intent = held_as(intent, self._settings.target_type)
        if _leaves_at_market(intent) and self._waits(intent):
            return False
        if intent.purpose is Purpose.EXIT:
            intent = replace(intent, arrival_price=self._prices.arrival(intent.symbol))
        if await self._is_answered(trade, intent, is_moot=is_moot):
            return True
        # The first stop is given its time, however late it was learned that one is needed.
        is_another = intent.purpose is Purpose.STOP and bool(trade.of(Purpose.STOP))
        outcome = await self._submission.send(
            intent,
            is_wanted=lambda: not is_entry or self._may_send_entry(self._book.trades[key]),
            until=self._protection.bare_until(trade) if is_another else math.inf,
        )
        if outcome is Outcome.IN_DOUBT:
            # What is asked, or sent beside it, is the trade's next step.
            return True
        return outcome is Outcome.KNOWN and await self.after(trade, intent.client_order_id)

    async def _is_answered(self, trade: Trade, intent: OrderIntent, *, is_moot: Callable[[], bool]) -> bool:
        """Put the questions that come before an order; return whether what was learned makes it another one."""
        in_doubt = [order.intent for order in trade.of(intent.purpose) if order.may_exist]
        is_older = trade.plan.trade_id in self._book.older and self._book.order(intent.client_order_id) is None
        if is_older and await self._submission.was_sent_before(intent):
            # What the venue holds may be of a trade that no record tells of.
            self._doubt()
            return True
        if in_doubt:
            await self._submission.ask_soon(in_doubt)
        return bool(in_doubt or is_older) and is_moot()

    async def after(self, trade: Trade, client_order_id: str) -> bool:
        """Take in what became of an order once that is known."""
        order, key = self._book.order(client_order_id), trade.plan.trade_id
        if order is None:
            return True
        if not order.refusal:
            return await self._after_answer(key, order)
        if order.intent.purpose is Purpose.ENTRY:
            self._door.note(order.intent.symbol, order.refusal)
        if order.intent.purpose is Purpose.EXIT and order.refusal == NOTHING_TO_REDUCE:
            if not await self._closing.believe_venue(key):
                return False
            current = self._book.trades.get(key)
            if current is None or current.open_quantity != trade.open_quantity:
                return True
            # It holds what we hold, and takes no exit for it: a refusal as any other.
        if order.intent.purpose is Purpose.EXIT and not order.never_existed:
            return await self._try_again_later(order.intent)
        await self._sleep(self._settings.poll_seconds)
        return not self._pauses.waits(key, self._monotonic())

    async def _after_answer(self, trade_id: str, order: Order) -> bool:
        if not _leaves_at_market(order.intent) or order.executed > 0:
            self._pauses.note_accepted(trade_id)
            return True
        # Taken, and nothing has come of it: where it has ended so, the next may fare no better.
        return not order.status.is_terminal or await self._try_again_later(order.intent)

    async def _try_again_later(self, intent: OrderIntent) -> bool:
        # An exit in vain is tried again and again, but in turns that let the rest live.
        of_target = intent.purpose is Purpose.TARGET
        self._pauses.note_refusal(intent.trade_id, self._monotonic(), of_target=of_target)
        await self._sleep(self._settings.poll_seconds)
        return not self._waits(intent)

    def _waits(self, intent: OrderIntent) -> bool:
        of_target = intent.purpose is Purpose.TARGET
        return self._pauses.waits(intent.trade_id, self._monotonic(), of_target=of_target)


def _leaves_at_market(intent: OrderIntent) -> bool:
    """Whether it is sent again, as often as it takes, where it ends unfilled."""
    is_target = intent.purpose is Purpose.TARGET and intent.order_type is OrderType.MARKET
    return intent.purpose is Purpose.EXIT or is_target
