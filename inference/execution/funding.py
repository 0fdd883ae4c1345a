"""What the venue paid or took for holding positions, counted once each by the venue's own number."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from inference.domain.errors import JournalError
from inference.domain.events import Noted

FUNDING_PAID = "trade.funding_paid"
# Payments of the newest day are read again each time: one may be shown later than its successor.
OVERLAP_MS = 86_400_000
# Numbers are remembered for twice as long as they can be read again.
_REMEMBERED_MS = 2 * OVERLAP_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class FundingPayment:
    """One payment; `amount` is what the account received, negative where it paid. The venue's number is unique."""

    transaction_id: str
    symbol: str
    amount: Decimal
    event_time_ms: int


def funding_event(payment: FundingPayment) -> Noted:
    """Return the journal's event of a payment."""
    return Noted(
        event_type=FUNDING_PAID,
        detail={
            "transaction_id": payment.transaction_id,
            "symbol": payment.symbol,
            "amount": f"{payment.amount:f}",
            "event_time_ms": str(payment.event_time_ms),
        },
    )


def funding_payment(event: object) -> FundingPayment | None:
    """
    Return the payment that an event of the journal holds; None where it is another event.

    Raises:
        JournalError: It says that it holds one, and what it holds is none.
    """
    if not isinstance(event, Noted) or event.event_type != FUNDING_PAID:
        return None
    try:
        return FundingPayment(
            transaction_id=event.detail["transaction_id"],
            symbol=event.detail["symbol"],
            amount=Decimal(event.detail["amount"]),
            event_time_ms=int(event.detail["event_time_ms"]),
        )
    except (KeyError, ValueError, InvalidOperation) as error:
        raise JournalError(
            f"A funding payment in the journal cannot be read, was {dict(event.detail)}; "
            "run `qtctl audit verify` to see whether the chain is whole"
        ) from error


class FundingAccount:
    """The sum of all payments; one that was counted before changes nothing, in this life or an earlier one."""

    def __init__(self) -> None:
        self.total = Decimal(0)
        self.payments = 0
        self.newest_ms = 0
        self._counted: dict[str, int] = {}

    def count(self, payment: FundingPayment) -> bool:
        """Count a payment; return whether it was new."""
        forgotten = payment.event_time_ms < self.newest_ms - _REMEMBERED_MS
        if forgotten or payment.transaction_id in self._counted:
            return False
        self.total += payment.amount
        self.payments += 1
        self._counted[payment.transaction_id] = payment.event_time_ms
        if payment.event_time_ms > self.newest_ms:
            self.newest_ms = payment.event_time_ms
            self._forget_oldest()
        return True

    def begin_anew(self) -> None:
        """Let go of the venue's numbers and times, where it is another one from here on; what was received stays."""
        self.newest_ms = 0
        self._counted.clear()

    def read_from(self, began_ms: int) -> int:
        """Return from which venue time on payments have to be read, for an account that was traded since `began_ms`."""
        return max(began_ms, self.newest_ms - OVERLAP_MS)

    def _forget_oldest(self) -> None:
        oldest = self.newest_ms - _REMEMBERED_MS
        # In the order in which they were counted, which is nearly that of their times.
        while self._counted and next(iter(self._counted.values())) < oldest:
            del self._counted[next(iter(self._counted))]
