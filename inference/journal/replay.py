"""Running the journal again: the worker's state from its events, and every decision from its snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from inference.decision import decide, ranking_of
from inference.domain.decision import Approved, Decision
from inference.domain.events import CandlesDecided
from inference.domain.policy import Policy
from inference.execution.book import Book
from inference.journal.codec import Entry, event_data, event_of
from inference.journal.reader import read_entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A recorded decision that today's code does not make again."""

    seq: int
    recorded: bytes
    replayed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """
    One symbol that another policy answers differently, at the candle that closed at `candle_close_ms` (UTC).

    `before` and `after` are APPROVED or the code of a refusal. The numbers are what was compared, or what an approval
    is made of.
    """

    seq: int
    candle_close_ms: int
    symbol: str
    before: str
    after: str
    numbers_before: Mapping[str, str]
    numbers_after: Mapping[str, str]


def replay_decisions(entries: Iterable[Entry]) -> tuple[int, list[Deviation]]:
    """Decide every recorded snapshot again; return how many were, and where a single byte differs."""
    count, deviations = 0, []
    for entry, event in decided(entries):
        count += 1
        decisions = decide(event.snapshot, event.policy, event.now_ms)
        answers = CandlesDecided.of(event.snapshot, event.policy, event.now_ms, decisions)
        ranking = ranking_of(event.snapshot, event.policy)
        again = replace(event, approved=answers.approved, denied=answers.denied, ranking=ranking)
        recorded, replayed = bytes(entry.text), event_data(again)
        if recorded != replayed:
            deviations.append(Deviation(seq=entry.seq, recorded=recorded, replayed=replayed))
    return count, deviations


def replay_under(entries: Iterable[Entry], policy: Policy) -> Iterator[tuple[int, list[Difference]]]:
    """
    Decide every recorded snapshot under another policy; yield for each its number of answers and what differs.

    Each decision stands alone on the state that was recorded: what an entry that was not made then, or one less,
    would have changed later is not played out. A backtest does that.
    """
    for entry, event in decided(entries):
        recorded: tuple[Decision, ...] = (*event.approved, *event.denied)
        before = {one.symbol: one for one in recorded}
        after = {one.symbol: one for one in decide(event.snapshot, policy, event.now_ms)}
        yield (
            len(recorded),
            [
                Difference(
                    seq=entry.seq,
                    candle_close_ms=event.snapshot.candle_close_ms,
                    symbol=symbol,
                    before=outcome(before.get(symbol)),
                    after=outcome(after.get(symbol)),
                    numbers_before=numbers(before.get(symbol)),
                    numbers_after=numbers(after.get(symbol)),
                )
                for symbol in sorted({*before, *after})
                if before.get(symbol) != after.get(symbol)
            ],
        )


def decided(entries: Iterable[Entry]) -> Iterator[tuple[Entry, CandlesDecided]]:
    """Yield the entries that hold decisions."""
    for entry in entries:
        if entry.type == CandlesDecided.event_type:
            event = event_of(entry)
            if isinstance(event, CandlesDecided):
                yield entry, event


def outcome(decision: Decision | None) -> str:
    """Return APPROVED, the code of a refusal, or NOT_ASKED where a symbol was no candidate."""
    if decision is None:
        return "NOT_ASKED"
    return "APPROVED" if isinstance(decision, Approved) else decision.code.value


def numbers(decision: Decision | None) -> dict[str, str]:
    """Return what a refusal compared, or what an approval is made of, as text."""
    if decision is None:
        return {}
    if isinstance(decision, Approved):
        return {
            "direction": decision.direction.value,
            "quantity": f"{decision.quantity:f}",
            "stop_price": f"{decision.stop_price:f}",
            "target_price": f"{decision.target_price:f}",
            "risk": f"{decision.risk:f}",
        }
    return dict(decision.context)


def rebuild_book(path: Path) -> Book:
    """Return orders, trades, cooldowns and marks as a journal tells them."""
    return Book.rebuilt(event_of(entry) for entry in read_entries(path))
