"""What the journal answers: whether it is whole, what happened, what it came to, and why."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from inference.domain.errors import JournalError
from inference.domain.events import TradeClosed, TradePlanned
from inference.domain.exact import total
from inference.domain.trade import TradePlan
from inference.execution.funding import FUNDING_PAID, FundingAccount, funding_payment
from inference.journal.codec import Entry, event_of
from inference.journal.reader import read_entries
from inference.journal.verify import verify as verify_journal
from inference.telemetry.anchors import AnchorPlaces, anchors_of
from inference.telemetry.story import story_of


def verify(path: Path, *, as_json: bool, places: AnchorPlaces | None = None) -> int:
    """Say whether the journal is as it was written, and reaches every anchor; 1 where it is not, or does not."""
    require(path)
    kept = anchors_of(path, places or AnchorPlaces())
    found = verify_journal(path, path.with_suffix(".head"), anchors=kept.heads)
    if as_json:
        anchors = [{"where": where, "seq": head.seq} for where, head in kept.heads.items()]
        aside = [{"where": where, "seq": old and old.seq} for where, old in kept.set_aside.items()]
        told = {"anchors": anchors, "not_compared": list(kept.not_compared), "set_aside": aside}
        _print_json(msgspec.to_builtins(found) | told)
    elif found.finding is None:
        _print(f"Whole: {found.entries} entries, digest {found.digest}")
        if found.torn_bytes:
            _print(f"A crash left an unfinished last line of {found.torn_bytes} bytes; the next start cuts it off.")
        for where, head in kept.heads.items():
            _print(f"The anchor {where} vouches for entry {head.seq}, and agrees.")
        for why in kept.not_compared:
            _print(f"Not compared: {why}.")
    else:
        _print(f"Damaged at entry {found.finding.seq}: {found.finding.damage.value}, {found.finding.message}.")
    if not as_json:
        for where, old in kept.set_aside.items():
            vouched = "can no longer be read" if old is None else f"vouches for entry {old.seq}, digest {old.digest}"
            _print(
                f"Set aside: {where} {vouched}. The home was put back from a backup, or somebody made it look so:"
                " delete that file once you know that the restore was meant."
            )
    return 0 if found.finding is None else 1


def tail(path: Path, *, lines: int, as_json: bool) -> int:
    """Print the newest entries."""
    require(path)
    newest: deque[Entry] = deque(read_entries(path), maxlen=max(1, lines))
    if as_json:
        _print_json(list(newest))
        return 0
    for entry in newest:
        _print(f"{entry.seq:>7}  {_time(entry.timestamp_ms)}  {entry.type:<28}  {_short(entry)}")
    return 0


def trades(path: Path, *, as_json: bool) -> int:
    """Print every closed trade and the sum."""
    require(path)
    rows, funding = _closed(read_entries(path))
    pnl = total(closed.result.pnl for _, closed in rows)
    fees = total(closed.result.fees for _, closed in rows)
    if as_json:
        document = [
            {
                "trade_id": closed.trade_id,
                "model_version": plan.model_version if plan else None,
                "result": closed.result,
            }
            for plan, closed in rows
        ]
        _print_json({"trades": document, "count": len(rows), "pnl": pnl, "fees": fees, "funding": funding})
        return 0
    table = Table("closed", "symbol", "direction", "quantity", "entry", "exit", "reason", "pnl", "fees")
    for _, closed in rows:
        result = closed.result
        table.add_row(
            _time(result.closed_at_ms),
            result.symbol,
            result.direction.value,
            str(result.quantity),
            _price(result.entry_price),
            _price(result.exit_price),
            result.reason.value,
            f"{result.pnl:.4f}",
            f"{result.fees:.4f}",
        )
    Console().print(table)
    _print(f"{len(rows)} trades, profit and loss {pnl:.4f} after fees of {fees:.4f}")
    if funding:
        _print(f"Funding {funding:+.4f}, so {pnl + funding:.4f} in all")
    return 0


def why(path: Path, subject: str, *, as_json: bool) -> int:
    """Tell the story of a decision; what the journal knows nothing of is an error."""
    require(path)
    story = story_of(read_entries(path), subject)
    if story is None:
        raise JournalError(
            f"The journal {path} holds no decision on {subject!r}; name a symbol (BTC/USDT:USDT) or a trace id from"
            " `qtctl audit tail`"
        )
    if as_json:
        _print_json(story)
        return 0
    for line in story.lines:
        _print(line)
    return 0


def _closed(entries: Iterable[Entry]) -> tuple[list[tuple[TradePlan | None, TradeClosed]], Decimal]:
    plans: dict[str, TradePlan] = {}
    funding = FundingAccount()
    closings: dict[str, TradeClosed] = {}
    for entry in entries:
        if entry.type not in (TradePlanned.event_type, TradeClosed.event_type, FUNDING_PAID):
            continue
        event = event_of(entry)
        if isinstance(event, TradePlanned):
            plans[event.plan.trade_id] = event.plan
        elif isinstance(event, TradeClosed):
            # A late execution closes a trade again; what was counted then does not count any more.
            closings.pop(event.trade_id, None)
            closings[event.trade_id] = event
        elif payment := funding_payment(event):
            funding.count(payment)
    return [(plans.get(key), closed) for key, closed in closings.items()], funding.total


def require(path: Path) -> None:
    """
    Refuse a journal that is not there.

    Raises:
        JournalError: There is no such file.
    """
    if not path.exists():
        raise JournalError(f"There is no journal at {path}; name one with --journal, or its home with --home")


def _short(entry: Entry) -> str:
    text = msgspec.json.encode(entry.data).decode()
    return text if len(text) <= 160 else f"{text[:157]}…"


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _price(price: Decimal | None) -> str:
    return "none" if price is None else f"{price.normalize():f}"


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _print_json(document: object) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    sys.stdout.flush()
