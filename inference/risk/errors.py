"""Execution errors by class: which count, how many came in a row, and which share of a window failed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from feature_store.venue.reactions import ACCOUNT_NUMBERS, REDUCE_ONLY_NUMBERS
from inference.domain.events import Event, OrderFoundAbsent, OrderIntended, OrderRefused, OrderReported
from inference.domain.order import OrderStatus

# Words of the venue that hold entries back for a while, by themselves: the key or its rights, our address; an account
# that may only reduce; a symbol that does not trade, or whose leverage or margin mode cannot be had. The class stands
# where the venue gave no number, or one that it has for refusals of other kinds too.
ACCOUNT_CODES = frozenset({"AccountError", *map(str, ACCOUNT_NUMBERS)})
REDUCE_ONLY_CODES = frozenset(map(str, REDUCE_ONLY_NUMBERS))
SYMBOL_CODES = frozenset({"-4028", "-4046", "-4047", "-4048", "-4059", "-4061", "-4067", "-4068", "-4108", "-4140"})
# Words of the venue that are part of trading: the price moved, nothing is left to reduce, one stop rests already, a
# resting order would take.
# What was not sent, since the account's lease was in doubt, is no answer of anybody.
_ORDINARY = frozenset({"-2021", "-2022", "-4118", "-4130", "-5022", "NOT_SENT"})
# Refusals of execution's own: nothing happened, or nothing is there.
_UNANSWERED = frozenset({"NOTHING_HAPPENED", "ABSENT"})
LEAST_OUTCOMES = 20
"""Of fewer outcomes no share is taken."""


class ErrorClass(StrEnum):
    """Whether the venue said no, or nothing usable was heard of it."""

    REFUSED = "REFUSED"
    UNANSWERED = "UNANSWERED"


def error_class(code: str) -> ErrorClass | None:
    """Return the class of a refusal's code, None for what is part of trading, or holds entries back by itself."""
    if code in _ORDINARY or code in ACCOUNT_CODES or code in SYMBOL_CODES or code in REDUCE_ONLY_CODES:
        return None
    return ErrorClass.UNANSWERED if code in _UNANSWERED else ErrorClass.REFUSED


def is_error(code: str) -> bool:
    """Whether a refusal is the venue's no to an order that should have been one."""
    return error_class(code) is ErrorClass.REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCounts:
    """Refusals in a row, and the outcomes of a window with how many of them failed."""

    in_row: int = 0
    failed: int = 0
    outcomes: int = 0

    @property
    def share(self) -> float:
        """The share of failures; 0 where there are too few outcomes to speak of one."""
        return self.failed / self.outcomes if self.outcomes >= LEAST_OUTCOMES else 0.0


@dataclass(slots=True)
class ExecutionErrors:
    """
    Counts the outcomes of orders as their events tell them; times are wall-clock seconds of any clock that only rises.

    An order has one outcome for each time it is sent: the first report of it, or its refusal. What was refused counts
    in a row; what was not answered counts in the window's share alone, since one outage leaves many orders unanswered.
    """

    window_seconds: float
    in_row: int = 0
    _sent: set[str] = field(default_factory=set)
    _outcomes: deque[tuple[float, bool]] = field(default_factory=deque)

    def note(self, event: Event, at: float) -> None:
        """Take in one event of execution."""
        match event:
            case OrderIntended(intent=intent):
                self._sent.add(intent.client_order_id)
            case OrderRefused(client_order_id=key, code=code):
                self._sent.discard(key)
                found = error_class(code)
                self.in_row += found is ErrorClass.REFUSED
                if found is not None:
                    self._outcomes.append((at, True))
            case OrderFoundAbsent(client_order_id=key):
                self._sent.discard(key)
                self._outcomes.append((at, True))
            case OrderReported(report=report) if report.client_order_id in self._sent:
                self._sent.discard(report.client_order_id)
                refused = report.status is OrderStatus.REFUSED
                self.in_row = self.in_row + 1 if refused else 0
                self._outcomes.append((at, refused))
            case _:
                pass

    def counts(self, now: float) -> ErrorCounts:
        """Return what was counted up to now."""
        while self._outcomes and now - self._outcomes[0][0] > self.window_seconds:
            self._outcomes.popleft()
        failed = sum(has_failed for _, has_failed in self._outcomes)
        return ErrorCounts(in_row=self.in_row, failed=failed, outcomes=len(self._outcomes))

    def forget(self) -> None:
        """Begin anew, as after a reset."""
        self.in_row = 0
        self._outcomes.clear()
