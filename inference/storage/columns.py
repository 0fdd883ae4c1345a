"""How money, moments and documents are kept: exact in both databases, and readable without this program."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import JSON, DateTime, Dialect, Numeric, String
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.types import TypeDecorator, TypeEngine

from inference.storage.errors import StorageError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
LAST_MS = 253_402_300_799_999
"""The end of year 9999, where calendars of both databases end."""
_MOST_DIGITS = 100
_POSTGRES = "postgresql"


class ExactDecimal(TypeDecorator[Decimal]):
    """
    A decimal number, to the last digit: NUMERIC in PostgreSQL, and text in SQLite, which would make a float of it.

    SQLite's own SUM over such a column is a float too: sums that have to be exact are made by `inference.storage.exact`
    or stand in a column.
    """

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """See SQLAlchemy."""
        return dialect.type_descriptor(Numeric(asdecimal=True) if dialect.name == _POSTGRES else String())

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        """Return what is stored; a number that is none, or that nobody trades by, is refused."""
        if value is None:
            return None
        if not value.is_finite() or abs(value.adjusted()) > _MOST_DIGITS:
            raise StorageError(f"A table cannot hold the number {value!s:.60}: its journal is of no market that trades")
        return value if dialect.name == _POSTGRES else f"{value:f}"

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        """Return the number that was stored."""
        del dialect
        return None if value is None else Decimal(value)


class PlainText(TypeDecorator[str]):
    """Text of any length. A character that PostgreSQL cannot hold (NUL) is kept as the mark of one that is unknown."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return what is stored."""
        del dialect
        return None if value is None else value.replace("\0", "\ufffd")


class UuidText(TypeDecorator[str]):
    """A UUID in lower case with its hyphens: UUID in PostgreSQL, and text in SQLite."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """See SQLAlchemy."""
        return dialect.type_descriptor(UUID(as_uuid=False) if dialect.name == _POSTGRES else String())


class UtcMoment(TypeDecorator[int]):
    """A moment in UTC milliseconds: TIMESTAMP WITH TIME ZONE in PostgreSQL, ISO 8601 text that ends in Z in SQLite."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """See SQLAlchemy."""
        return dialect.type_descriptor(DateTime(timezone=True) if dialect.name == _POSTGRES else String())

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        """Return what is stored; a moment outside of the calendar is refused."""
        if value is None:
            return None
        if not 0 <= value <= LAST_MS:
            raise StorageError(f"A table cannot hold the time {value} ms: it lies outside of the years 1970 to 9999")
        moment = _EPOCH + value * _MILLISECOND
        return moment if dialect.name == _POSTGRES else f"{moment:%Y-%m-%dT%H:%M:%S}.{value % 1000:03d}Z"

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        """Return milliseconds since 1970."""
        del dialect
        if value is None:
            return None
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return (moment - _EPOCH) // _MILLISECOND


def json_text(value: object) -> str:
    """Return a document's text; see `PlainText`."""
    return msgspec.json.encode(value).decode().replace("\\u0000", "\\ufffd")


def document() -> TypeEngine[Any]:
    """Return the type of a column of JSON: text in SQLite, JSONB in PostgreSQL."""
    return JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), _POSTGRES)
