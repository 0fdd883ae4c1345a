"""What each entry of the journal changes in the tables: a fold over entries that touches nothing outside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from msgspec import UNSET

from inference.domain.errors import JournalError
from inference.domain.events import (
    AccountMarked,
    CandlesDecided,
    Event,
    FeaturesUsed,
    FillBooked,
    Noted,
    OrderIntended,
    OrderReported,
    TradePlanned,
)
from inference.domain.fallback import Fallback
from inference.domain.health import HealthLevel
from inference.domain.policy import Policy
from inference.domain.shadow import ShadowScored
from inference.execution.book import Book, Trade
from inference.execution.funding import FUNDING_PAID, FundingAccount, funding_payment
from inference.journal.codec import Entry, event_of, is_typed
from inference.storage.decisions import drawdown_of, signal_rows, standing_row
from inference.storage.in_force import (
    POLICY_NOTES,
    STARTED,
    SettingRecord,
    rules_in_force,
    version_in_force,
    worker_in_force,
)
from inference.storage.learning import DRIFT_CHECKED, RETRAINING_CHANGED, JobRecord, drift_rows, jobs_after
from inference.storage.models import ModelRecord, models_after
from inference.storage.records import (
    OrderMoments,
    Row,
    TradeRecord,
    day_of,
    fill_row,
    order_rows,
    plain,
    position_row,
    trade_row,
)
from inference.storage.supervised import audit_row

RULES = 3
"""The edition of these rules; rows that another one made are made anew from the journal."""

# 1970 began on a Thursday: its first Monday was four days later.
_WEEK_MS, _MONDAY_MS = 7 * 86_400_000, 4 * 86_400_000
# What somebody should look at; entries that were refused by a rule are no alarm.
_ALERTS = frozenset(
    {
        "audit.not_reproduced",
        "health.anchor_failed",
        "health.anchor_replaced",
        "health.bus_late",
        "health.circuit_opened",
        "health.clock_off",
        "health.halted",
        "health.lease_lost",
        "health.lease_not_renewed",
        "health.rate_paused",
        "model.absent",
        "model.bias_found",
        "model.fell_back",
        "model.not_set_aside",
        "model.quality_found_poor",
        "model.refused",
        "model.registry_unavailable",
        "model.rolled_back",
        "policy.store_failed",
        "policy.unfit_for_live",
        "risk.breaker_opened",
        "risk.corrected",
        "risk.emergency",
        "risk.emergency_action",
        "risk.emergency_confirmed",
        "risk.emergency_reset",
        "risk.entries_held",
        "risk.limit_exceeded",
        "risk.position_found_changed",
        "trade.order_refused",
    }
)
# These say by one of their words whether anybody should: what got better is no alarm.
_ALERTS_BY_WORD = {
    "health.level_changed": ("level", frozenset({HealthLevel.CRITICAL.value, HealthLevel.EMERGENCY.value})),
    "model.drift_checked": ("verdict", frozenset({"degraded", "drifted"})),
    "model.fallback": ("step", frozenset(one.value for one in Fallback if one is not Fallback.NONE)),
    "model.retraining_changed": ("status", frozenset({"failed"})),
}
# These are told by the rows that they make.
_TOLD_BY_ROWS = (TradePlanned, OrderIntended, OrderReported, FillBooked)


@dataclass(frozen=True, slots=True)
class Named:
    """The trades and orders that an event names, of which the rows have to be at hand."""

    trades: frozenset[str]
    orders: frozenset[str]


@dataclass(slots=True, kw_only=True)
class PolicyRecord:
    """A policy that decisions were made under; moments are UTC milliseconds."""

    rules: Mapping[str, Any]
    first_used_ms: int
    last_used_ms: int
    decisions: int
    seq: int
    last_seq: int


@dataclass(slots=True, kw_only=True)
class Known:
    """What the tables held before: trades that are open or named, and what the newest rows say."""

    trades: Mapping[str, TradeRecord] = field(default_factory=dict)
    policies: dict[str, PolicyRecord] = field(default_factory=dict)
    models: dict[tuple[str, str], ModelRecord] = field(default_factory=dict)
    funding: FundingAccount = field(default_factory=FundingAccount)
    # The newest mark of the account, with its moment and the first equity of its week.
    mark: tuple[AccountMarked, int, Decimal] | None = None
    # The deepest fall below the peak that any decision found, as a fraction.
    max_drawdown: Decimal = Decimal(0)
    settings: dict[tuple[str, str], SettingRecord] = field(default_factory=dict)
    jobs: dict[str, JobRecord] = field(default_factory=dict)


def read_event(entry: Entry) -> Event | None:
    """
    Return the event that an entry holds; None for one of a type that this version does not know and that is no note.

    Raises:
        JournalError: It is of a type that this version knows, and does not fit it.
    """
    try:
        return event_of(entry)
    except JournalError:
        if is_typed(entry.type):
            raise
        return None


def named_by(events: Iterable[Event | None]) -> Named:
    """Return the trades and orders that events name."""
    trades: set[str] = set()
    orders: set[str] = set()
    for event in events:
        trade_id, order_id = _subject(event)
        trades.update([trade_id] if trade_id else [])
        orders.update([order_id] if order_id else [])
    return Named(frozenset(trades), frozenset(orders))


def _subject(event: Event | None) -> tuple[str, str]:
    """Return the trade and the order that an event is about, empty where it is about none."""
    holders = [event, *(getattr(event, name, None) for name in ("plan", "intent", "report", "fill"))]
    found = {
        name: str(value)
        for holder in holders
        for name in ("trade_id", "client_order_id")
        if (value := getattr(holder, name, None)) is not None
    }
    return found.get("trade_id", ""), found.get("client_order_id", "")


def is_alert(event_type: str, detail: Mapping[str, Any]) -> bool:
    """Return whether somebody should look at an event."""
    if event_type not in _ALERTS_BY_WORD:
        return event_type in _ALERTS
    word, alarming = _ALERTS_BY_WORD[event_type]
    return detail.get(word) in alarming


class Projection:
    """
    Takes in entries in the journal's order; `rows` then holds what is new or changed in each table.

    However the entries are divided among projections that each begin from the rows of the one before, all tables are
    the same in the end.
    """

    def __init__(self, known: Known) -> None:
        self.days: set[date] = set()
        # Trades whose orders and executions are those of an earlier plan under the same id.
        self.planned_anew: set[str] = set()
        self._known = known
        self._records = dict(known.trades)
        self._book = Book(closed_kept=None)
        for record in sorted(self._records.values(), key=lambda one: one.seq):
            self._book.take_back(record.trade)
        self._changed: dict[str, None] = {}
        self._marked: dict[str, None] = {}
        self._models: set[tuple[str, str]] = set()
        self._policies: set[str] = set()
        self._settings: set[tuple[str, str]] = set()
        self._jobs: set[str] = set()
        self._new: defaultdict[str, list[Row]] = defaultdict(list)
        self._policy: tuple[Policy, str] | None = None
        self._leverage = _leverage_of(known.policies)
        self._followed = _newest_of(known.policies)

    def take(self, entry: Entry, event: Event | None) -> None:
        """Take in one entry, with the event that it holds."""
        match event:
            case CandlesDecided():
                self._decided(event, entry)
            case AccountMarked():
                self._account_marked(event, entry)
            case FeaturesUsed() | ShadowScored():
                # Opinions that are only compared have a journal of their own: `inference.storage.shadow_days`.
                pass
            case Noted(event_type=kind) if kind == FUNDING_PAID:
                self._funding_paid(event, entry)
            case Noted(event_type=kind, detail=detail):
                self._noted(kind, detail, entry)
                self._happened(entry, plain(dict(detail)))
            case None:
                self._happened(entry, _as_object(entry.data))
            case _:
                self._trade_changed(event, entry)

    def rows(self) -> dict[str, Sequence[Row]]:
        """Return the rows to write, by table, in an order in which none names one that comes after it."""
        changed = [self._records[key] for key in self._changed]
        positions = [self._records[key] for key in {**self._changed, **self._marked}]
        return {
            "trades": [trade_row(record) for record in changed],
            "orders": [row for record in changed for row in order_rows(record)],
            "fills": self._new["fills"],
            "positions": [row for record in positions if (row := position_row(record)) is not None],
            "signals": self._new["signals"],
            "models": [self._known.models[key].row(*key) for key in sorted(self._models)],
            "retraining_jobs": [self._known.jobs[key].row(key) for key in sorted(self._jobs)],
            "drift_metrics": self._new["drift_metrics"],
            "settings": [self._known.settings[key].row(*key) for key in sorted(self._settings)],
            "audit": self._new["audit"],
            "policy_versions": [_policy_row(key, self._known.policies[key]) for key in sorted(self._policies)],
            "equity_curve": self._new["equity_curve"],
            "risk_state": self._new["risk_state"],
            "funding_payments": self._new["funding_payments"],
            "events": self._new["events"],
        }

    def _noted(self, kind: str, detail: Mapping[str, str], entry: Entry) -> None:
        if kind.startswith("model."):
            self._models |= models_after(self._known.models, kind, detail, entry)
        if kind == RETRAINING_CHANGED:
            self._jobs |= jobs_after(self._known.jobs, detail, entry)
        elif kind == DRIFT_CHECKED:
            self._new["drift_metrics"].extend(drift_rows(detail, entry))
        elif kind == STARTED:
            self._settings |= worker_in_force(self._known.settings, detail, entry)
        elif kind in POLICY_NOTES:
            self._settings |= version_in_force(self._known.settings, detail, entry)

    def _trade_changed(self, event: Event, entry: Entry) -> None:
        key = self._trade_of(event)
        before = self._book.trades.get(key)
        self._book.apply(event)
        # An order names its trade only once it is known.
        trade = self._book.trades.get(key)
        is_new = trade is not None and trade is not before
        if not isinstance(event, _TOLD_BY_ROWS) or not is_new:
            self._happened(entry, entry.data)
        if trade is None or not is_new:
            return
        record = self._records.get(key)
        if record is None or isinstance(event, TradePlanned):
            if record is not None:
                self.planned_anew.add(key)
                self._touch_day(record.closed_on)
                self._new["fills"] = [row for row in self._new["fills"] if row["trade_id"] != key]
            record = TradeRecord(trade=trade, seq=entry.seq, updated_ms=entry.timestamp_ms, leverage=self._leverage)
            self._records[key] = record
        self._touch_day(record.closed_on)
        if trade.result is not None and (before is None or trade.result is not before.result):
            record.closed_seq = entry.seq
        self._note_moments(record, trade, before, entry)
        if isinstance(event, FillBooked):
            self._note_fill(event, before, trade, entry)
        record.trade, record.updated_ms, record.touched_ms = trade, entry.timestamp_ms, entry.timestamp_ms
        self._touch_day(record.closed_on)
        self._changed[key] = None

    def _trade_of(self, event: Event) -> str:
        trade_id, order_id = _subject(event)
        order = self._book.order(order_id)
        return trade_id or ("" if order is None else order.intent.trade_id)

    def _note_moments(self, record: TradeRecord, trade: Trade, before: Trade | None, entry: Entry) -> None:
        for key, order in trade.orders.items():
            known = record.moments.get(key)
            if known is None:
                record.moments[key] = OrderMoments(
                    seq=entry.seq, intended_ms=entry.timestamp_ms, updated_ms=entry.timestamp_ms
                )
            elif before is None or before.orders.get(key) is not order:
                known.updated_ms = entry.timestamp_ms

    def _note_fill(self, event: FillBooked, before: Trade | None, trade: Trade, entry: Entry) -> None:
        fill = event.fill
        earlier = None if before is None else before.orders.get(fill.client_order_id)
        if earlier is not None and fill.fill_id in earlier.fills:
            return
        row = fill_row(
            fill,
            trade_id=trade.plan.trade_id,
            seq=entry.seq,
            order_type=None if event.order_type is UNSET else str(event.order_type),
            slippage=event.slippage if isinstance(event.slippage, Decimal) else None,
        )
        self._new["fills"].append(row)

    def _decided(self, event: CandlesDecided, entry: Entry) -> None:
        fingerprint = self._policy_used(event.policy, event.now_ms, entry.seq)
        self._new["signals"].extend(signal_rows(event, seq=entry.seq, digest=entry.digest, policy=fingerprint))
        self._mark_positions(event)
        self._standing(event, entry)

    def _mark_positions(self, event: CandlesDecided) -> None:
        for trade in self._book.active():
            quote = event.snapshot.quotes.get(trade.symbol)
            record = self._records[trade.plan.trade_id]
            if quote is not None and trade.open_quantity > 0 and record.mark_price != quote.mid:
                record.mark_price, record.touched_ms = quote.mid, event.now_ms
                self._marked[trade.plan.trade_id] = None

    def _standing(self, event: CandlesDecided, entry: Entry) -> None:
        account = event.snapshot.account
        week_start = account.equity
        if isinstance(account.week_start_equity, Decimal):
            # What it was refused by, where it was: the week begins with the last equity before it.
            week_start = account.week_start_equity
        elif self._known.mark is not None and _week(self._known.mark[1]) == _week(event.now_ms):
            week_start = self._known.mark[2]
        drawdown = drawdown_of(account.equity, account.peak_equity)
        self._known.max_drawdown = max(self._known.max_drawdown, drawdown)
        self._touch_day(day_of(event.now_ms))
        row = standing_row(event, seq=entry.seq, week_start=week_start)
        self._new["risk_state"].append({**row, "max_drawdown": self._known.max_drawdown})

    def _policy_used(self, policy: Policy, now_ms: int, seq: int) -> str:
        if self._policy is None or self._policy[0] != policy:
            self._policy = policy, policy.fingerprint
        fingerprint = self._policy[1]
        known = self._known.policies.get(fingerprint)
        if known is None:
            known = PolicyRecord(
                rules=plain(policy), first_used_ms=now_ms, last_used_ms=now_ms, decisions=0, seq=seq, last_seq=seq
            )
            self._known.policies[fingerprint] = known
        known.last_used_ms, known.last_seq = now_ms, seq
        known.decisions += 1
        self._policies.add(fingerprint)
        self._leverage = _leverage_of({fingerprint: known})
        if fingerprint != self._followed:
            self._followed = fingerprint
            self._settings |= rules_in_force(
                self._known.settings,
                known.rules,
                fingerprint=fingerprint,
                now_ms=now_ms,
                seq=seq,
            )
        return fingerprint

    def _account_marked(self, event: AccountMarked, entry: Entry) -> None:
        before, now_ms = self._known.mark, entry.timestamp_ms
        same_week = before is not None and _week(before[1]) == _week(now_ms)
        week_start = before[2] if before is not None and same_week else event.equity
        if isinstance(event.week_start_equity, Decimal):
            week_start = event.week_start_equity
        self._known.mark = event, now_ms, week_start
        self._touch_day(day_of(now_ms))
        self._new["equity_curve"].append(
            {
                "seq": entry.seq,
                "equity": event.equity,
                "day_start_equity": event.day_start_equity,
                "peak_equity": event.peak_equity,
                "week_start_equity": week_start,
                "drawdown": drawdown_of(event.equity, event.peak_equity),
                "marked_on": day_of(now_ms),
                "marked_at": now_ms,
            }
        )

    def _funding_paid(self, event: Noted, entry: Entry) -> None:
        payment = funding_payment(event)
        if payment is None or not self._known.funding.count(payment):
            return
        self._touch_day(day_of(payment.event_time_ms))
        self._new["funding_payments"].append(
            {
                "seq": entry.seq,
                "transaction_id": payment.transaction_id,
                "symbol": payment.symbol,
                "amount": payment.amount,
                "paid_on": day_of(payment.event_time_ms),
                "paid_at": payment.event_time_ms,
            }
        )

    def _happened(self, entry: Entry, detail: Mapping[str, Any]) -> None:
        family = entry.type.partition(".")[0]
        self._new["events"].append(
            {
                "seq": entry.seq,
                "event_type": entry.type,
                "family": family,
                "is_alert": is_alert(entry.type, detail),
                "trace_id": entry.trace_id,
                "detail": detail,
                "happened_at": entry.timestamp_ms,
            }
        )
        audited = audit_row(entry, detail)
        if audited is not None:
            self._new["audit"].append(audited)

    def _touch_day(self, day: date | None) -> None:
        if day is not None:
            self.days.add(day)


def _policy_row(fingerprint: str, record: PolicyRecord) -> Row:
    return {
        "fingerprint": fingerprint,
        "rules": record.rules,
        "first_used_at": record.first_used_ms,
        "last_used_at": record.last_used_ms,
        "decisions": record.decisions,
        "seq": record.seq,
        "last_seq": record.last_seq,
    }


def _newest_of(policies: Mapping[str, PolicyRecord]) -> str | None:
    """Return the fingerprint of the policy that was used last, None where there is none."""
    return max(policies, key=lambda one: policies[one].last_seq, default=None)


def _leverage_of(policies: Mapping[str, PolicyRecord]) -> Decimal | None:
    """Return the leverage of the policy that was used last; None where there is none, or it does not say."""
    newest = max(policies.values(), key=lambda one: one.last_seq, default=None)
    found = None if newest is None else newest.rules.get("leverage")
    return None if found is None else Decimal(str(found))


def _week(time_ms: int) -> int:
    return (time_ms - _MONDAY_MS) // _WEEK_MS


def _as_object(data: Any) -> Mapping[str, Any]:
    return data if isinstance(data, dict) else {"data": data}
