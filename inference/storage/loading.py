"""What a stretch of the journal has to know of the tables, read in a few queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, func, or_, select

from inference.domain.events import AccountMarked
from inference.execution.funding import OVERLAP_MS, FundingAccount, FundingPayment
from inference.storage import models as model_records
from inference.storage import schema
from inference.storage.in_force import setting_of
from inference.storage.learning import job_of
from inference.storage.projection import Known, Named, PolicyRecord
from inference.storage.records import Row, TradeRecord, record_of

# Far below what a statement may bind in either database.
_AT_ONCE = 500


def load(connection: Connection, named: Named) -> Known:
    """Return the open trades and those that are named, and what the newest rows say."""
    return Known(
        trades=_trades(connection, named),
        policies={row["fingerprint"]: _policy(row) for row in _rows(connection, schema.policy_versions)},
        models={
            (row["version"], row["digest"]): model_records.record_of(row) for row in _rows(connection, schema.models)
        },
        funding=_funding(connection),
        mark=_mark(connection),
        max_drawdown=_max_drawdown(connection),
        settings={(row["scope"], row["name"]): setting_of(row) for row in _rows(connection, schema.settings)},
        jobs={row["job_id"]: job_of(row) for row in _rows(connection, schema.retraining_jobs)},
    )


def _trades(connection: Connection, named: Named) -> Mapping[str, TradeRecord]:
    keys = set(named.trades)
    for part in _parts(named.orders):
        owners = select(schema.orders.c.trade_id).where(schema.orders.c.client_order_id.in_(part))
        keys.update(connection.scalars(owners))
    trades = {row["id"]: row for row in _rows(connection, schema.trades, schema.trades.c.is_over.is_(False))}
    for part in _parts(keys - trades.keys()):
        trades.update({row["id"]: row for row in _rows(connection, schema.trades, schema.trades.c.id.in_(part))})
    orders = _by_trade(connection, schema.orders, trades)
    fills = _by_trade(connection, schema.fills, trades)
    positions = _by_trade(connection, schema.positions, trades)
    return {
        key: record_of(row, orders[key], fills[key], positions[key][0] if positions[key] else None)
        for key, row in trades.items()
    }


def _by_trade(connection: Connection, table: Table, keys: Collection[str]) -> defaultdict[str, list[Row]]:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for part in _parts(keys):
        for row in _rows(connection, table, table.c.trade_id.in_(part)):
            found[row["trade_id"]].append(row)
    return found


def _rows(connection: Connection, table: Table, *where: ColumnElement[bool]) -> list[Row]:
    chosen = select(table).where(or_(*where)) if where else select(table)
    return [dict(row) for row in connection.execute(chosen.order_by(table.c.seq)).mappings()]


def _parts(keys: Collection[str]) -> Iterator[list[str]]:
    given = sorted(keys)
    for begin in range(0, len(given), _AT_ONCE):
        yield given[begin : begin + _AT_ONCE]


def _newest(connection: Connection, table: Table) -> Mapping[str, Any] | None:
    found = connection.execute(select(table).order_by(table.c.seq.desc()).limit(1)).mappings().first()
    return None if found is None else dict(found)


def _policy(row: Row) -> PolicyRecord:
    return PolicyRecord(
        rules=row["rules"],
        first_used_ms=row["first_used_at"],
        last_used_ms=row["last_used_at"],
        decisions=row["decisions"],
        seq=row["seq"],
        last_seq=row["last_seq"],
    )


def _mark(connection: Connection) -> tuple[AccountMarked, int, Decimal] | None:
    row = _newest(connection, schema.equity_curve)
    if row is None:
        return None
    mark = AccountMarked(equity=row["equity"], day_start_equity=row["day_start_equity"], peak_equity=row["peak_equity"])
    return mark, row["marked_at"], row["week_start_equity"]


def _max_drawdown(connection: Connection) -> Decimal:
    row = _newest(connection, schema.risk_state)
    deepest: Decimal = Decimal(0) if row is None else row["max_drawdown"]
    return deepest


def _funding(connection: Connection) -> FundingAccount:
    """Return an account that knows the payments by which a repeated one is told: those near the newest."""
    account = FundingAccount()
    payments = schema.funding_payments
    newest = connection.scalar(select(func.max(payments.c.paid_at)))
    if newest is None:
        return account
    recent = select(payments).where(payments.c.paid_at >= newest - 2 * OVERLAP_MS).order_by(payments.c.seq)
    for row in connection.execute(recent).mappings():
        payment = FundingPayment(
            transaction_id=row["transaction_id"],
            symbol=row["symbol"],
            amount=row["amount"],
            event_time_ms=row["paid_at"],
        )
        account.count(payment)
    return account
