"""What executions cost against the price that was known as their order was sent, by purpose and type of order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from inference.domain.events import FillBooked
from inference.execution.client_order_id import order_key
from inference.journal.codec import Entry, event_of
from inference.journal.reader import read_entries
from inference.telemetry.printed import print_json

_BASIS_POINTS = Decimal(10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlippageRow:
    """
    Executions of one purpose and type of order; slippage in basis points, above zero it cost.

    `mean_bp` weighs by quote currency traded, and covers the `known` of the `fills` whose arrival price is known.
    """

    purpose: str
    order_type: str
    fills: int
    known: int
    maker_share: float
    notional: Decimal
    mean_bp: float | None
    worst_bp: float | None


def slippage(path: Path, *, as_json: bool) -> int:
    """Print what executions cost, by purpose and type of order."""
    rows = slippage_rows(read_entries(path))
    if as_json:
        print_json({"rows": rows, "fills": sum(one.fills for one in rows)})
        return 0
    table = Table("purpose", "type", "fills", "maker", "notional", "mean bp", "worst bp", "price not known")
    for row in rows:
        table.add_row(
            row.purpose,
            row.order_type,
            str(row.fills),
            f"{row.maker_share:.0%}",
            f"{row.notional:.2f}",
            _shown(row.mean_bp),
            _shown(row.worst_bp),
            str(row.fills - row.known),
        )
    Console().print(table)
    return 0


def slippage_rows(entries: Iterable[Entry]) -> list[SlippageRow]:
    """Return a row for each purpose and type of order that was executed, in the order of their names."""
    groups: dict[tuple[str, str], dict[str, FillBooked]] = {}
    for entry in entries:
        if entry.type != FillBooked.event_type:
            continue
        event = event_of(entry)
        if isinstance(event, FillBooked):
            key = order_key(event.fill.client_order_id)
            kind = "not noted" if event.order_type is msgspec.UNSET else str(event.order_type)
            group = groups.setdefault((key.purpose.value if key else "unknown", kind), {})
            # One execution is one, however often a journal tells of it.
            group[f"{event.fill.symbol}|{event.fill.fill_id}"] = event
    return [_row(purpose, kind, list(group.values())) for (purpose, kind), group in sorted(groups.items())]


def _row(purpose: str, kind: str, events: list[FillBooked]) -> SlippageRow:
    known = [
        (event.fill.quantity * event.fill.price, event.slippage)
        for event in events
        if isinstance(event.slippage, Decimal)
    ]
    weight = sum((notional for notional, _ in known), Decimal(0))
    mean = sum((notional * paid for notional, paid in known), Decimal(0)) / weight if weight else None
    worst = max((paid for _, paid in known), default=None)
    return SlippageRow(
        purpose=purpose,
        order_type=kind,
        fills=len(events),
        known=len(known),
        maker_share=sum(event.fill.is_maker for event in events) / len(events),
        notional=sum((event.fill.quantity * event.fill.price for event in events), Decimal(0)),
        mean_bp=None if mean is None else float(mean * _BASIS_POINTS),
        worst_bp=None if worst is None else float(worst * _BASIS_POINTS),
    )


def _shown(basis_points: float | None) -> str:
    return "unknown" if basis_points is None else f"{basis_points:+.2f}"
