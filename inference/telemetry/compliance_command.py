"""What the journal says to whoever supervises the trading: who allowed what, by which rules, what was refused."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from inference.bus.envelope import EventError, milliseconds
from inference.domain.decision import DenyCode
from inference.domain.supervised import SECTION_OF, SECTIONS
from inference.journal.codec import Entry
from inference.journal.reader import read_entries
from inference.journal.verify import verify
from inference.telemetry.printed import print_json

LISTS = frozenset({DenyCode.SYMBOL_NOT_ALLOWED, DenyCode.OUTSIDE_TRADING_WINDOW, DenyCode.COMMITTEE_VETO})
"""Refusals by a list, a window or a veto."""
_OF_THE_SIGNAL = frozenset(
    {
        DenyCode.STALE_DATA,
        DenyCode.FEATURES_INCOMPLETE,
        DenyCode.NO_QUOTE,
        DenyCode.CONFIDENCE_BELOW_THRESHOLD,
        DenyCode.EDGE_BELOW_COSTS,
        DenyCode.SIGNALS_BIASED,
        DenyCode.POSITION_OPEN,
        DenyCode.NO_EDGE_TO_BET,
    }
)
"""Refusals that say something of the signal and nothing of a rule of whoever supervises."""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the journal, with its words."""

    seq: int
    at: str
    type: str
    detail: dict[str, Any]


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """How often one code refused, of how many symbols, and when first and last (UTC)."""

    code: str
    by: str
    count: int
    symbols: int
    first: str
    last: str


class ComplianceReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    Everything of a stretch of the journal; `parts` is by the names of `SECTIONS`, oldest first.

    `is_whole` is of the journal in all, not of the stretch; `head` is the digest that an anchor of its newest entry
    holds. Times are UTC.
    """

    since: str
    until: str
    entries: int
    is_whole: bool
    damage: str
    head: str
    decisions: int
    approved: int
    refusals: tuple[Refused, ...]
    parts: dict[str, tuple[Listed, ...]]


class _Denial(msgspec.Struct, frozen=True):
    symbol: str
    code: str


class _Decided(msgspec.Struct, frozen=True):
    approved: tuple[msgspec.Raw, ...] = ()
    denied: tuple[_Denial, ...] = ()


def report_of(entries: Iterable[Entry], *, since_ms: int = 0, damage: str = "", head: str = "") -> ComplianceReport:
    """
    Return the report of the entries at or after a moment.

    Args:
        entries: The journal's, oldest first.
        since_ms: UTC milliseconds.
        damage: What is wrong with the journal, empty where it is whole.
        head: The digest of its newest entry.

    Raises:
        msgspec.DecodeError: An entry of a type that is listed is none of this journal's.
    """
    counted, decisions, approved = 0, 0, 0
    span: list[int] = []
    found: dict[str, list[Listed]] = {part: [] for part in SECTIONS}
    refused: dict[str, tuple[list[int], set[str]]] = {}
    for entry in entries:
        if entry.timestamp_ms < since_ms:
            continue
        counted += 1
        span = [span[0] if span else entry.timestamp_ms, entry.timestamp_ms]
        if entry.type == "signal.decided":
            decided = msgspec.json.decode(entry.text, type=_Decided)
            decisions += 1
            approved += len(decided.approved)
            for denial in decided.denied:
                if denial.code not in _OF_THE_SIGNAL:
                    _count(refused, denial.code, denial.symbol, entry.timestamp_ms)
        elif entry.type == "risk.entry_denied":
            detail = entry.data
            _count(refused, str(detail.get("code", "")), str(detail.get("symbol", "")), entry.timestamp_ms)
        elif (part := SECTION_OF.get(entry.type)) is not None:
            one = Listed(seq=entry.seq, at=_time(entry.timestamp_ms), type=entry.type, detail=dict(entry.data))
            found[part].append(one)
    return ComplianceReport(
        since=_time(span[0]) if span else "",
        until=_time(span[1]) if span else "",
        entries=counted,
        is_whole=not damage,
        damage=damage,
        head=head,
        decisions=decisions,
        approved=approved,
        refusals=tuple(
            Refused(
                code=code,
                by="list" if code in LISTS else "limit",
                count=len(times),
                symbols=len(symbols),
                first=_time(min(times)),
                last=_time(max(times)),
            )
            for code, (times, symbols) in sorted(refused.items())
        ),
        parts={part: tuple(listed) for part, listed in found.items()},
    )


def compliance(path: Path, *, since: str | None, as_json: bool) -> int:
    """Print the report of a journal; 1 where the journal is damaged, which the report says as well."""
    try:
        since_ms = 0 if since is None else milliseconds(since)
    except EventError:
        sys.stderr.write(f"Expected a moment as 2026-03-01T12:00 (UTC), found {since!r}\n")
        return 2
    checked = verify(path, path.with_suffix(".head"))
    damage = "" if checked.finding is None else f"entry {checked.finding.seq}: {checked.finding.message}"
    report = report_of(read_entries(path), since_ms=since_ms, damage=damage, head=checked.digest)
    if as_json:
        print_json(report)
    else:
        _show(report)
    return 1 if damage else 0


def _show(report: ComplianceReport) -> None:
    console = Console(highlight=False, soft_wrap=True)
    whole = "whole" if report.is_whole else f"DAMAGED at {report.damage}"
    console.print(
        f"{report.entries} entries from {report.since or '-'} to {report.until or '-'}; the journal is {whole}"
    )
    console.print(
        f"Head {report.head}; {report.decisions} candles decided, {report.approved} entries approved", markup=False
    )
    table = Table("code", "by", "refused", "symbols", "first", "last", title="Refusals by list and limit")
    for row in report.refusals:
        table.add_row(row.code, row.by, str(row.count), str(row.symbols), row.first, row.last)
    console.print(table)
    for part, listed in report.parts.items():
        console.print(f"\n{part}: {len(listed) or 'none'}", markup=False)
        for one in listed:
            words = ", ".join(f"{name}={value}" for name, value in one.detail.items() if value != "")
            console.print(f"{one.seq:>7}  {one.at}  {one.type}  {words[:300]}", markup=False)


def _count(refused: dict[str, tuple[list[int], set[str]]], code: str, symbol: str, at_ms: int) -> None:
    times, symbols = refused.setdefault(code, ([], set()))
    times.append(at_ms)
    symbols.add(symbol)


def _time(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")
