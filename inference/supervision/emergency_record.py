"""What a journal says of emergency stops: which stand, what they chose to close, which are done, and the last reset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from inference.domain.events import Noted
from inference.risk.emergency import ACTIONS, Action, Evaluator
from inference.supervision.emergency_latch import ResetOrder, StopOrder

STOPPED = "risk.emergency"
CHOSEN = "risk.emergency_action"
CONFIRMED = "risk.emergency_confirmed"
RESET = "risk.emergency_reset"
_KINDS = frozenset({STOPPED, CHOSEN, CONFIRMED, RESET})


@dataclass(slots=True)
class EmergencyRecord:
    """
    The stops that stand, by key, and what became of each; live and after a restart by the same rules.

    `chosen` are the trades that a stop closes, `confirmed` the stops whose every action is done. `reset_ms` is the
    venue's time of the last reset, `reset_equity` the equity then; None where there was none.
    """

    standing: dict[str, StopOrder] = field(default_factory=dict)
    chosen: dict[str, tuple[str, ...]] = field(default_factory=dict)
    confirmed: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    reset_ms: int | None = None
    reset_equity: Decimal | None = None

    def visit(self, event: Noted, at_ms: int) -> None:
        """Take in what was noted, in the journal's order."""
        kind, detail = event.event_type, event.detail
        if kind not in _KINDS:
            return
        key = detail.get("key", "")
        if kind == STOPPED:
            if key not in self.ended:
                self.standing.setdefault(key, _stop_of(detail))
        elif kind == CHOSEN:
            self.chosen[key] = tuple(detail.get("trades", "").split())
        elif kind == CONFIRMED:
            self.confirmed.add(key)
        else:
            for one in detail.get("stops", "").split():
                self._end(one)
            self.reset_ms, self.reset_equity = at_ms, _equity(detail.get("equity", ""))

    def _end(self, key: str) -> None:
        self.standing.pop(key, None)
        self.chosen.pop(key, None)
        self.confirmed.discard(key)
        self.ended.add(key)


def stopped(order: StopOrder) -> Noted:
    """Return the event that records a stop."""
    detail = {
        **{name: value[:200] for name, value in order.numbers.items()},
        "key": order.key,
        "evaluator": order.evaluator.value,
        "reason": order.reason,
        "actions": " ".join(order.actions),
        "at": order.at,
        "by": order.by,
    }
    return Noted(event_type=STOPPED, detail=detail)


def chosen(order: StopOrder, trades: Mapping[str, str]) -> Noted:
    """Return the event that records which trades a stop closes, by their id with why."""
    detail = {"key": order.key, "trades": " ".join(trades), "why": "; ".join(sorted(set(trades.values())))}
    return Noted(event_type=CHOSEN, detail=detail)


def confirmed(order: StopOrder, seconds: float) -> Noted:
    """Return the event that records that a stop's actions are done."""
    return Noted(event_type=CONFIRMED, detail={"key": order.key, "seconds": f"{seconds:.3f}"})


def reset(order: ResetOrder, equity: Decimal | None) -> Noted:
    """Return the event that records a reset, with the equity from which drawdown is measured then."""
    detail = {
        "key": order.key,
        "stops": " ".join(order.stops),
        "reason": order.reason,
        "at": order.at,
        "by": order.by,
        "equity": "" if equity is None else f"{equity:f}",
    }
    return Noted(event_type=RESET, detail=detail)


def _stop_of(detail: Mapping[str, str]) -> StopOrder:
    try:
        evaluator = Evaluator(detail.get("evaluator", ""))
    except ValueError:
        # Another version's word for somebody who stops: it stands until a person resets it.
        evaluator = Evaluator.MANUAL
    known = set(Action)
    actions = tuple(Action(one) for one in detail.get("actions", "").split() if one in known)
    return StopOrder(
        key=detail.get("key", ""),
        evaluator=evaluator,
        reason=detail.get("reason", ""),
        actions=actions or ACTIONS[evaluator],
        at=detail.get("at", ""),
        by=detail.get("by", ""),
    )


def _equity(text: str) -> Decimal | None:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None
