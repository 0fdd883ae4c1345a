"""Rows into tables, in the words of each database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

from inference.storage.records import Row

# Rows that are told once and never again; all other tables hold what may still change.
_TOLD_ONCE = frozenset(
    {
        "audit",
        "drift_metrics",
        "equity_curve",
        "events",
        "fills",
        "funding_payments",
        "risk_state",
        "shadow_predictions",
        "signals",
    }
)


def write_rows(connection: Connection, dialect: str, table: Table, rows: Sequence[Row]) -> None:
    """Write rows of a table: those of a table that may still change take the place of what was there."""
    if not rows:
        return
    insert: Any = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    if table.name not in _TOLD_ONCE:
        keys = [column.name for column in table.primary_key]
        changed = {name: insert.excluded[name] for name in rows[0] if name not in keys}
        insert = insert.on_conflict_do_update(index_elements=keys, set_=changed)
    connection.execute(insert, list(rows))
