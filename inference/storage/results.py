"""What the tables answer: frozen values with money as Decimal and moments in UTC milliseconds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Any, Generic, TypeVar, cast

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some answers, the newest first; `next` asks for those behind them, None where there are no more."""

    items: tuple[Item, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeFound:
    """
    A trade. `status` is OPEN, CLOSED, or CANCELLED where it was never entered; `pnl` is net of `fees`.

    `uuid` is the name under which other systems may keep it.
    """

    id: str
    uuid: str
    trace_id: str
    symbol: str
    direction: str
    status: str
    quantity: Decimal
    entered_quantity: Decimal
    open_quantity: Decimal
    leverage: Decimal | None
    entry_price: Decimal | None
    exit_price: Decimal | None
    stop_price: Decimal | None
    target_price: Decimal | None
    risk: Decimal | None
    confidence: float | None
    model_version: str | None
    pnl: Decimal | None
    fees: Decimal | None
    roi: Decimal | None
    exit_reason: str | None
    fills_complete: bool | None
    planned_at_ms: int
    opened_at_ms: int | None
    closed_at_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFound:
    """An order of a trade; `filled` is what reports say, `booked` what executions add up to."""

    client_order_id: str
    venue_order_id: str
    side: str
    order_type: str
    purpose: str
    status: str
    quantity: Decimal
    filled: Decimal
    booked: Decimal
    average_price: Decimal | None
    limit_price: Decimal | None
    trigger_price: Decimal | None
    refusal: str
    intended_at_ms: int
    updated_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FillFound:
    """An execution; `slippage` is what its price was worse than the one its order was decided at, as a fraction."""

    fill_id: str
    client_order_id: str
    side: str
    quantity: Decimal
    price: Decimal
    fee: Decimal
    is_maker: bool
    slippage: Decimal | None
    executed_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeStory:
    """A trade with its orders and executions, in the journal's order."""

    trade: TradeFound
    orders: tuple[OrderFound, ...]
    fills: tuple[FillFound, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionFound:
    """A position; `mark_price` is halfway between bid and ask as the newest decision saw them."""

    trade_id: str
    symbol: str
    direction: str
    status: str
    quantity: Decimal
    entry_price: Decimal
    stop_price: Decimal
    target_price: Decimal
    mark_price: Decimal | None
    unrealized_pnl: Decimal | None
    leverage: Decimal | None
    margin: Decimal | None
    opened_at_ms: int
    updated_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalFound:
    """A decision on a symbol. `code` says why it was denied, `context` holds the numbers that were compared."""

    seq: int
    symbol: str
    outcome: str
    code: str | None
    context: Mapping[str, Any] | None
    direction: str | None
    confidence: float | None
    expected_return: float | None
    price: float | None
    model_version: str | None
    consensus: int | None
    members: list[Mapping[str, Any]] | None
    regime: str | None
    trace_id: str | None
    policy: str
    candle_closed_at_ms: int
    decided_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFound:
    """A version of a model: ACTIVE trades, SHADOW waits or is compared, RETIRED traded before."""

    version: str
    digest: str
    status: str
    verdict: str | None
    source: str | None
    horizon: int | None
    approved_by: str | None
    detail: Mapping[str, Any]
    first_seen_at_ms: int
    promoted_at_ms: int | None
    loaded_at_ms: int | None
    retired_at_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DayFound:
    """What a day came to; see `inference.storage.performance.day_row`."""

    date: date
    trades_count: int
    not_entered: int
    wins: int
    losses: int
    win_rate: Decimal | None
    gross_pnl: Decimal
    fees: Decimal
    total_pnl: Decimal
    funding: Decimal
    net_pnl: Decimal
    entry_notional: Decimal
    roi: Decimal | None
    avg_roi: Decimal | None
    equity_first: Decimal | None
    equity_last: Decimal | None
    equity_low: Decimal | None
    equity_high: Decimal | None
    max_drawdown: Decimal | None
    max_exposure: Decimal | None
    mean_exposure: Decimal | None
    candles_decided: int
    approved: int
    denied: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What a stretch of days came to, exactly; `trades` counts those that were never entered too."""

    trades: int
    pnl: Decimal
    fees: Decimal
    funding: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class EquityFound:
    """Equity at a moment, and how far below its peak, as a fraction."""

    seq: int
    equity: Decimal
    peak_equity: Decimal
    drawdown: Decimal
    marked_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFound:
    """What happened, in the journal's words."""

    seq: int
    event_type: str
    is_alert: bool
    trace_id: str
    detail: Mapping[str, Any]
    happened_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingFound:
    """
    A rule of the policy, or a setting of the worker, that is in force; `scope` is policy, store or worker.

    `version`, `author` and `reason` are of the version of the policy that made it so, as far as the journal says.
    """

    scope: str
    name: str
    value: Any
    version: int | None
    author: str | None
    reason: str | None
    changed_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActFound:
    """An act that whoever supervises asks for; `digest` is that of its entry in the journal."""

    seq: int
    section: str
    event_type: str
    actor: str | None
    subject: str | None
    reason: str | None
    digest: str
    detail: Mapping[str, Any]
    happened_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFound:
    """A retraining job as flows told the journal last; `status` as in `inference.storage.learning.JobRecord`."""

    job_id: str
    type: str
    status: str
    trigger: str
    models: list[str]
    kept: list[str]
    metrics: Mapping[str, float] | None
    version: str | None
    promoted: bool | None
    reasons: str | None
    error_message: str | None
    resumes: int
    queued_at_ms: int | None
    started_at_ms: int | None
    completed_at_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftFound:
    """One figure of a drift check; from `alarm_at` on it is drift by itself, None where nothing is held against it."""

    version: str
    role: str
    verdict: str
    part: str
    name: str
    statistic: str
    value: float | None
    alarm_at: float | None
    state: str
    hours: int | None
    window_ended_at_ms: int | None
    checked_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowFound:
    """What a model said of a symbol beside another one; both figures are None where it abstained."""

    role: str
    version: str
    symbol: str
    horizon: int
    threshold: float
    expected_return: float | None
    probability_up: float | None
    bid: Decimal | None
    ask: Decimal | None
    candle_closed_at_ms: int
    scored_at_ms: int


@cache
def _columns(kind: Hashable) -> tuple[tuple[str, str], ...]:
    # A moment's column says its unit by its type, a field has to by its name.
    names = [one.name for one in fields(cast("Any", kind))]
    return tuple((name, name.removesuffix("_ms")) for name in names)


def found(kind: type[Item], row: Mapping[Any, Any]) -> Item:
    """Return a row as a value of its kind."""
    return kind(**{name: row[column] for name, column in _columns(cast("Hashable", kind))})
