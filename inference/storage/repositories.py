"""Questions to the tables: filtered, a page at a time, answered with typed values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, Table, func, literal, select, tuple_

from feature_store.errors import BadInputError
from inference.domain.exact import total
from inference.storage import schema
from inference.storage.models import ACTIVE
from inference.storage.records import OPEN
from inference.storage.results import (
    ActFound,
    DayFound,
    DriftFound,
    EquityFound,
    EventFound,
    FillFound,
    JobFound,
    ModelFound,
    OrderFound,
    Page,
    PositionFound,
    SettingFound,
    ShadowFound,
    SignalFound,
    Sums,
    TradeFound,
    TradeStory,
    found,
)

LONGEST_PAGE = 1000
_Item = TypeVar("_Item")


class Trades:
    """Trades, the newest plan first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def page(
        self,
        *,
        symbol: str | None = None,
        status: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[TradeFound]:
        """
        Return trades that were planned in `[since_ms, until_ms)`.

        Raises:
            BadInputError: The limit is not from 1 to 1000, or `after` is no page's `next`.
        """
        table = schema.trades
        where = [
            *_equal(table, {"symbol": symbol, "status": status}),
            *_between(table.c.planned_at, since_ms, until_ms),
        ]
        return _page(self._connection, TradeFound, table, where, ("planned_at", "seq"), limit, after)

    def story(self, trade_id: str) -> TradeStory | None:
        """Return a trade with all that was ordered and executed for it; None where there is none of that id."""
        row = self._connection.execute(select(schema.trades).where(schema.trades.c.id == trade_id)).mappings().first()
        if row is None:
            return None
        return TradeStory(
            trade=found(TradeFound, row),
            orders=tuple(found(OrderFound, one) for one in self._of(schema.orders, trade_id)),
            fills=tuple(found(FillFound, one) for one in self._of(schema.fills, trade_id)),
        )

    def of_trace(self, trace_id: str) -> TradeFound | None:
        """Return the trade that came of a signal."""
        chosen = select(schema.trades).where(schema.trades.c.trace_id == trace_id)
        row = self._connection.execute(chosen).mappings().first()
        return None if row is None else found(TradeFound, row)

    def of_uuid(self, uuid: str) -> TradeFound | None:
        """Return the trade that other systems keep under a UUID; None where there is none, or it is no UUID."""
        try:
            name = str(UUID(uuid))
        except ValueError:
            return None
        row = self._connection.execute(select(schema.trades).where(schema.trades.c.uuid == name)).mappings().first()
        return None if row is None else found(TradeFound, row)

    def _of(self, table: Table, trade_id: str) -> Sequence[Mapping[str, Any]]:
        chosen = select(table).where(table.c.trade_id == trade_id).order_by(table.c.seq)
        return [dict(row) for row in self._connection.execute(chosen).mappings()]


class Positions:
    """Positions, the youngest first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def page(
        self, *, symbol: str | None = None, status: str | None = OPEN, limit: int = 100, after: str | None = None
    ) -> Page[PositionFound]:
        """Return positions of a status; None asks for those of every status. Raises as `Trades.page`."""
        where = _equal(schema.positions, {"symbol": symbol, "status": status})
        return _page(self._connection, PositionFound, schema.positions, where, ("opened_at", "seq"), limit, after)


class Signals:
    """Decisions on symbols, refusals among them, the newest first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def page(
        self,
        *,
        symbol: str | None = None,
        outcome: str | None = None,
        code: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[SignalFound]:
        """Return what was decided in `[since_ms, until_ms)`. Raises as `Trades.page`."""
        table = schema.signals
        where = [
            *_equal(table, {"symbol": symbol, "outcome": outcome, "code": code}),
            *_between(table.c.decided_at, since_ms, until_ms),
        ]
        return _page(self._connection, SignalFound, table, where, ("decided_at", "seq", "ordinal"), limit, after)

    def of_trace(self, trace_id: str) -> SignalFound | None:
        """Return the newest decision under a trace id."""
        table = schema.signals
        chosen = select(table).where(table.c.trace_id == trace_id).order_by(table.c.seq.desc()).limit(1)
        row = self._connection.execute(chosen).mappings().first()
        return None if row is None else found(SignalFound, row)

    def refusals(self, *, since_ms: int = 0) -> Mapping[str, int]:
        """Return how often each code refused since a moment, the most frequent first."""
        table = schema.signals
        count = func.count().label("count")
        chosen = select(table.c.code, count).where(table.c.code.is_not(None), table.c.decided_at >= since_ms)
        rows = self._connection.execute(chosen.group_by(table.c.code).order_by(count.desc(), table.c.code))
        return {row.code: row[1] for row in rows}


class Models:
    """Versions of models; there are few, so all of them are one answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> tuple[ModelFound, ...]:
        """Return every version that the journal names, the newest first."""
        chosen = select(schema.models).order_by(schema.models.c.seq.desc(), schema.models.c.version)
        return tuple(found(ModelFound, row) for row in self._connection.execute(chosen).mappings())

    def active(self) -> ModelFound | None:
        """Return the version that trades."""
        return next((one for one in self.all() if one.status == ACTIVE), None)


class Performance:
    """Days, and what they came to together."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def days(self, *, since: date = date.min, until: date = date.max) -> tuple[DayFound, ...]:
        """Return the days from `since` to `until`, both included, in order."""
        table = schema.daily_performance
        chosen = select(table).where(table.c.date >= since, table.c.date <= until).order_by(table.c.date)
        return tuple(found(DayFound, row) for row in self._connection.execute(chosen).mappings())

    def sums(self, *, since: date = date.min, until: date = date.max) -> Sums:
        """Return what those days came to, to the last digit: over all of them, what `qtctl audit trades` says."""
        days = self.days(since=since, until=until)
        return Sums(
            trades=sum(one.trades_count + one.not_entered for one in days),
            pnl=total(one.total_pnl for one in days),
            fees=total(one.fees for one in days),
            funding=total(one.funding for one in days),
        )

    def equity(
        self,
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit: int = LONGEST_PAGE,
        after: str | None = None,
    ) -> Page[EquityFound]:
        """Return the account's marks in `[since_ms, until_ms)`, the newest first. Raises as `Trades.page`."""
        where = _between(schema.equity_curve.c.marked_at, since_ms, until_ms)
        return _page(self._connection, EquityFound, schema.equity_curve, where, ("marked_at", "seq"), limit, after)


class Events:
    """What happened, the newest first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def page(
        self,
        *,
        event_type: str | None = None,
        family: str | None = None,
        alerts: bool = False,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[EventFound]:
        """Return events of a type, of a family (what stands before the point), or those to look at. Raises as there."""
        where = _equal(
            schema.events, {"event_type": event_type, "family": family, "is_alert": True if alerts else None}
        )
        return _page(self._connection, EventFound, schema.events, where, ("seq",), limit, after)


class Settings:
    """What is in force."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> tuple[SettingFound, ...]:
        """Return every rule and setting by its name."""
        table = schema.settings
        rows = self._connection.execute(select(table).order_by(table.c.scope, table.c.name)).mappings()
        return tuple(found(SettingFound, row) for row in rows)


class Audit:
    """Acts that whoever supervises asks for, the newest first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def page(self, *, section: str | None = None, limit: int = 100, after: str | None = None) -> Page[ActFound]:
        """Return acts, or those of a section of `inference.domain.supervised`. Raises as `Trades.page`."""
        where = _equal(schema.audit, {"section": section})
        return _page(self._connection, ActFound, schema.audit, where, ("seq",), limit, after)


class RetrainingJobs:
    """Retraining jobs, of which something was told last first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def page(self, *, limit: int = 100, after: str | None = None) -> Page[JobFound]:
        """Return jobs. Raises as `Trades.page`."""
        return _page(self._connection, JobFound, schema.retraining_jobs, (), ("told_at", "seq"), limit, after)


class Drift:
    """Figures of drift checks, the newest first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def page(
        self, *, name: str | None = None, statistic: str | None = None, limit: int = 100, after: str | None = None
    ) -> Page[DriftFound]:
        """Return figures: of one column, or by one statistic such as psi or kl. Raises as `Trades.page`."""
        where = _equal(schema.drift_metrics, {"name": name, "statistic": statistic})
        return _page(self._connection, DriftFound, schema.drift_metrics, where, ("seq", "ordinal"), limit, after)


class ShadowPredictions:
    """Opinions on live candles that were only compared, the newest candle first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def page(
        self,
        *,
        version: str | None = None,
        symbol: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[ShadowFound]:
        """Return opinions on candles that closed in `[since_ms, until_ms)`. Raises as `Trades.page`."""
        table = schema.shadow_predictions
        where = [
            *_equal(table, {"version": version, "symbol": symbol}),
            *_between(table.c.candle_closed_at, since_ms, until_ms),
        ]
        return _page(self._connection, ShadowFound, table, where, ("candle_closed_at", "seq", "ordinal"), limit, after)


def _equal(table: Table, wanted: Mapping[str, object]) -> list[ColumnElement[bool]]:
    return [table.c[name] == value for name, value in wanted.items() if value is not None]


def _between(column: ColumnElement[Any], since_ms: int | None, until_ms: int | None) -> list[ColumnElement[bool]]:
    bounds = [] if since_ms is None else [column >= since_ms]
    return bounds if until_ms is None else [*bounds, column < until_ms]


def _page(
    connection: Connection,
    kind: type[_Item],
    table: Table,
    where: Sequence[ColumnElement[bool]],
    order: tuple[str, ...],
    limit: int,
    after: str | None,
) -> Page[_Item]:
    """Return a page that new rows do not shift: it begins behind a row, not at a number."""
    if not 1 <= limit <= LONGEST_PAGE:
        raise BadInputError(f"A page holds 1 to {LONGEST_PAGE} rows, was asked for {limit}")
    columns = [table.c[name] for name in order]
    chosen: Select[Any] = select(table).where(*where)
    if after is not None:
        place = [literal(value, column.type) for value, column in zip(_place(after, order), columns, strict=True)]
        chosen = chosen.where(tuple_(*columns) < tuple_(*place))
    rows = connection.execute(chosen.order_by(*(one.desc() for one in columns)).limit(limit + 1)).mappings().all()
    items = tuple(found(kind, row) for row in rows[:limit])
    more = ".".join(str(rows[limit - 1][name]) for name in order) if len(rows) > limit else None
    return Page(items, more)


def _place(after: str, order: tuple[str, ...]) -> list[int]:
    parts = after.split(".")
    if len(parts) != len(order) or not all(one.isdecimal() and len(one) < 19 for one in parts):
        raise BadInputError(f"A page goes on behind what the page before said under next, was {after!r}")
    return [int(one) for one in parts]
