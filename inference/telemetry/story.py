"""The chain of events behind one decision, in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from msgspec import UnsetType

from inference.domain.decision import Approved, Denied
from inference.domain.events import (
    CandlesDecided,
    Event,
    ExitObserved,
    ExitRequested,
    FillBooked,
    Noted,
    OrderFoundAbsent,
    OrderIntended,
    OrderRefused,
    OrderReported,
    PositionFoundChanged,
    SignalExplained,
    TradeClosed,
    TradePlanned,
)
from inference.domain.exit_state import CandleClosed, EmergencyCalled, Priced, Seen
from inference.domain.order import OrderIntent
from inference.domain.signal import SignalScore
from inference.domain.trade import TradePlan
from inference.journal.codec import Entry, event_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What led to a decision and what came of it, one line for each event."""

    trace_id: str
    symbol: str
    outcome: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision with everything it was made from."""

    decided: CandlesDecided
    decision: Approved | Denied


def story_of(entries: Iterable[Entry], subject: str) -> Story | None:
    """Return the story of a trace id, or of the newest decision on a symbol; None where there is none."""
    found = traced(entries, subject)
    if found is None:
        return None
    verdict, events = found
    decision = verdict.decision
    return Story(
        trace_id=decision.signal.trace_id if decision.signal else "",
        symbol=decision.symbol,
        outcome="APPROVED" if isinstance(decision, Approved) else decision.code.value,
        lines=(*decision_lines(verdict), *(event_line(time_ms, event) for time_ms, event in events)),
    )


def traced(entries: Iterable[Entry], subject: str) -> tuple[Verdict, list[tuple[int, Event]]] | None:
    """Return the decision on a trace id, or the newest on a symbol, and what followed it, each with its time."""
    verdict: Verdict | None = None
    followed: dict[str, list[tuple[int, Event]]] = {}
    for entry in entries:
        if entry.type == CandlesDecided.event_type:
            # Most decisions are of no interest here, and reading one is costly: look at the raw names first.
            if _mentions(entry, subject):
                found = _verdict_on(event_of(entry), subject)
                verdict = found or verdict
        elif entry.trace_id:
            followed.setdefault(entry.trace_id, []).append((entry.timestamp_ms, event_of(entry)))
    if verdict is None:
        return None
    decision = verdict.decision
    trace_id = decision.signal.trace_id if decision.signal else ""
    return verdict, followed.get(trace_id, [])


def _mentions(entry: Entry, subject: str) -> bool:
    for row in (*entry.data.get("approved", ()), *entry.data.get("denied", ())):
        signal = row.get("signal") or {}
        if subject in (row.get("symbol"), signal.get("trace_id")):
            return True
    return False


def _verdict_on(event: Event, subject: str) -> Verdict | None:
    if not isinstance(event, CandlesDecided):
        return None
    decisions: tuple[Approved | Denied, ...] = (*event.approved, *event.denied)
    for decision in decisions:
        trace_id = decision.signal.trace_id if decision.signal else None
        if subject in (decision.symbol, trace_id):
            return Verdict(event, decision)
    return None


def decision_lines(verdict: Verdict) -> list[str]:
    """Return what was decided, and on what, in words."""
    decided, decision = verdict.decided, verdict.decision
    closed = _time(decided.snapshot.candle_close_ms)
    lines = [f"{_time(decided.now_ms)}  The candle that closed at {closed} was decided on for {decision.symbol}."]
    if decision.signal is not None:
        lines.append(_signal_line(decision.signal))
    if isinstance(decision, Denied):
        numbers = ", ".join(f"{name} {value}" for name, value in decision.context.items())
        lines.append(f"  Denied: {decision.code.value} ({numbers}).")
    else:
        lines.append(
            f"  Approved: {decision.direction.value} {_number(decision.quantity)} at about "
            f"{_number(decision.reference_price)}, stop {_number(decision.stop_price)}, target "
            f"{_number(decision.target_price)}, {_number(decision.risk)} at risk."
        )
    return lines


def _signal_line(signal: SignalScore) -> str:
    members = ", ".join(f"{one.name} {one.expected_return:+.5f}" for one in signal.members)
    market = "" if signal.regime == "unknown" else f" in a {signal.regime.replace('_', ', ')} market"
    return (
        f"  Model {signal.model_version} said {signal.direction.value}{market} "
        f"with confidence {signal.confidence:.4f}, expected return {signal.expected_return:+.5f}; "
        f"{signal.consensus} of {len(signal.members)} members agree ({members})."
    )


def event_line(time_ms: int, event: Event) -> str:
    """Return an event in words, with its time (UTC)."""
    return f"{_time(time_ms)}  {_words(event)}"


def _words(event: Event) -> str:
    match event:
        case TradePlanned(plan=plan):
            return (
                f"A trade was planned: {plan.trade_id}, {plan.direction.value} {_number(plan.quantity)}"
                f"{_exits_of(plan)}."
            )
        case OrderIntended(intent=intent):
            trigger = "" if intent.trigger_price is None else f" at {_number(intent.trigger_price)}"
            return (
                f"Order {intent.client_order_id} was intended: {intent.purpose.value} {intent.side.value} "
                f"{_number(intent.quantity)}{trigger}{_why(intent)}."
            )
        case OrderReported(report=report):
            price = "" if report.average_price is None else f" at {_number(report.average_price)}"
            filled = _number(report.filled)
            return f"The venue said {report.status.value} of {report.client_order_id}, filled {filled}{price}."
        case _:
            return _words_of_the_rest(event)


def _words_of_the_rest(event: Event) -> str:
    match event:
        case OrderRefused(client_order_id=key, code=code, message=message):
            return f"The venue refused {key} with {code}: {message}"
        case OrderFoundAbsent(client_order_id=key):
            return f"The venue has no order {key}."
        case ExitObserved(seen=seen):
            return f"What was seen changed its exits: {_seen_words(seen)}."
        case FillBooked(fill=fill):
            return (
                f"An execution was booked: {fill.side.value} {_number(fill.quantity)} at {_number(fill.price)}, fee "
                f"{_number(fill.fee)}."
            )
        case _:
            return _words_of_the_end(event)


def _words_of_the_end(event: Event) -> str:
    match event:
        case ExitRequested(reason=reason, detail=detail):
            return f"The trade was to end: {reason.value}{f', {detail}' if detail else ''}."
        case PositionFoundChanged(open_quantity=quantity):
            return f"The venue held {_number(quantity)}, which our executions do not explain; the venue is right."
        case SignalExplained(parts=parts):
            moved = (f"{name} {value:+.5f}" for name, value in parts.get("ensemble", {}).items())
            return f"What moved the ensemble's answer most: {', '.join(moved) or 'nothing that can be told apart'}."
        case TradeClosed(result=result):
            return (
                f"The trade closed: {result.reason.value}, profit and loss {_number(result.pnl)} after fees of "
                f"{_number(result.fees)}."
            )
        case Noted(event_type="risk.entry_denied", detail=detail):
            return f"The entry was held back: {detail.get('code')}, {detail.get('reason')}."
        case _:
            return f"{event.event_type}."


def _exits_of(plan: TradePlan) -> str:
    if isinstance(plan.exits, UnsetType):
        return ""
    profile = plan.exits.profile
    parts = ", ".join(f"{target.share:%}" for target in profile.targets)
    return f", to end by exit profile {profile.name}, whose targets take {parts}"


def _why(intent: OrderIntent) -> str:
    if isinstance(intent.target, int):
        return f", target {intent.target}"
    return "" if isinstance(intent.because, UnsetType) else f", {intent.because.value}"


def _seen_words(seen: Seen) -> str:
    match seen:
        case CandleClosed(close=close):
            return "the time of a candle passed" if close is None else f"a candle closed at {_number(close)}"
        case Priced(price=price):
            return f"a price of {_number(price)}"
        case EmergencyCalled():
            return "an emergency was called"


def _number(value: Decimal) -> str:
    return f"{round(value, 8).normalize():f}"


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
