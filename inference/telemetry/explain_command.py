"""`qtctl explain`: the whole story of one trade, from its candle to its close."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from inference.domain.decision import Approved
from inference.domain.errors import JournalError
from inference.domain.events import Event, OrderIntended, SignalExplained, TradePlanned
from inference.journal.codec import Entry, event_of
from inference.journal.reader import read_entries
from inference.telemetry.audit_commands import require
from inference.telemetry.guard_steps import Guard
from inference.telemetry.guards import guards_of
from inference.telemetry.printed import print_json
from inference.telemetry.story import Verdict, decision_lines, event_line, traced


def explain(path: Path, subject: str, *, as_json: bool) -> int:
    """
    Tell everything that the journal knows of a trade: candle, inputs, members, guards, orders, fills, exit.

    Raises:
        JournalError: The journal is missing, or knows nothing of the subject.
    """
    require(path)
    found = traced(read_entries(path), trace_of(read_entries(path), subject) or subject)
    if found is None:
        raise JournalError(
            f"The journal {path} knows no trade, order, trace or symbol {subject!r}; `qtctl audit trades` and"
            " `qtctl audit tail` show their names"
        )
    verdict, events = found
    guards, told = guards_of(verdict.decided, verdict.decision), explanation(event for _, event in events)
    if as_json:
        print_json(_document(verdict, guards, told, events))
        return 0
    console = Console(highlight=False, soft_wrap=True)
    for line in decision_lines(verdict):
        console.print(line, markup=False)
    console.print("  Guards, in their order:")
    for line in _guard_lines(guards):
        console.print(line, markup=False)
    if told is not None:
        console.print(_part_table(told))
    for time_ms, event in events:
        if not isinstance(event, SignalExplained):
            console.print(event_line(time_ms, event), markup=False)
    return 0


def trace_of(entries: Iterable[Entry], subject: str) -> str | None:
    """Return the trace that a trade's id, or that of one of its orders, belongs to; None where it names neither."""
    for entry in entries:
        if entry.type not in (TradePlanned.event_type, OrderIntended.event_type):
            continue
        event = event_of(entry)
        if isinstance(event, TradePlanned) and event.plan.trade_id == subject:
            return event.plan.trace_id
        if isinstance(event, OrderIntended) and subject in (event.intent.client_order_id, event.intent.trade_id):
            return entry.trace_id or None
    return None


def explanation(events: Iterable[Event]) -> SignalExplained | None:
    """Return what was told of an approval's inputs, if anything was."""
    return next((event for event in events if isinstance(event, SignalExplained)), None)


def _guard_lines(guards: tuple[Guard, ...]) -> list[str]:
    width = max((len(one.name) for one in guards), default=0)
    return [f"    {one.name:<{width}}  {one.found}; {one.asked}" for one in guards]


def _part_table(told: SignalExplained) -> Table:
    members = sorted(told.parts, key=lambda name: (name != "ensemble", name))
    names = _in_order(told.parts)
    title = "By how much an input moved the expected log return, the largest of each member"
    table = Table("input", "value", *members, title=title, title_justify="left")
    for name in names:
        value = told.inputs.get(name)
        parts = (told.parts[member].get(name) for member in members)
        cells = ("" if part is None else f"{part:+.6f}" for part in parts)
        table.add_row(name, "" if value is None else f"{value:.6g}", *cells)
    return table


def _in_order(parts: Mapping[str, Mapping[str, float]]) -> list[str]:
    ensemble = parts.get("ensemble", {})
    others = sorted({name for one in parts.values() for name in one} - set(ensemble))
    return [*sorted(ensemble, key=lambda name: -abs(ensemble[name])), *others]


def _document(
    verdict: Verdict, guards: tuple[Guard, ...], told: SignalExplained | None, events: list[tuple[int, Event]]
) -> dict[str, object]:
    decision = verdict.decision
    return {
        "symbol": decision.symbol,
        "outcome": "APPROVED" if isinstance(decision, Approved) else decision.code.value,
        "trace_id": decision.signal.trace_id if decision.signal else "",
        "candle_close_ms": verdict.decided.snapshot.candle_close_ms,
        "policy": verdict.decided.policy.fingerprint,
        "signal": decision.signal,
        "decision": decision,
        "guards": guards,
        "explained": told,
        "events": [{"type": event.event_type, "time_ms": time_ms, "event": event} for time_ms, event in events],
    }
