"""All rows of a table, one after the other, with what each of its columns holds: for whoever writes them elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Connection, Date, Double, Integer, select

from inference.storage import schema
from inference.storage.columns import ExactDecimal, PlainText, UtcMoment, UuidText

TABLES = tuple(sorted(name for name in schema.metadata.tables if name not in ("projection", "shadow_days")))
"""The tables that tell the journal."""

_AT_ONCE = 2000


class ColumnKind(Enum):
    """What a column holds: money and ratios as Decimal, moments in UTC milliseconds, documents as plain values."""

    TEXT = auto()
    MONEY = auto()
    MOMENT = auto()
    DAY = auto()
    NUMBER = auto()
    COUNT = auto()
    FLAG = auto()
    DOCUMENT = auto()


_KINDS = (
    (PlainText, ColumnKind.TEXT),
    (UuidText, ColumnKind.TEXT),
    (ExactDecimal, ColumnKind.MONEY),
    (UtcMoment, ColumnKind.MOMENT),
    (Date, ColumnKind.DAY),
    (Double, ColumnKind.NUMBER),
    (BigInteger, ColumnKind.COUNT),
    (Integer, ColumnKind.COUNT),
    (Boolean, ColumnKind.FLAG),
    (JSON, ColumnKind.DOCUMENT),
)


def columns_of(table: str) -> Mapping[str, ColumnKind]:
    """Return the columns of a table with what they hold, in their order."""
    return {
        column.name: next(kind for known, kind in _KINDS if isinstance(column.type, known))
        for column in schema.metadata.tables[table].columns
    }


def rows_of(connection: Connection, table: str) -> Iterator[Mapping[str, Any]]:
    """Yield every row in the order of its key, in memory that does not grow with their number."""
    chosen = schema.metadata.tables[table]
    rows = connection.execution_options(yield_per=_AT_ONCE).execute(
        select(chosen).order_by(*chosen.primary_key.columns)
    )
    for row in rows.mappings():
        yield dict(row)
