"""The tables: what the journal says, in rows. Which queries each index serves stands beside it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
)

from inference.storage.columns import ExactDecimal, PlainText, UtcMoment, UuidText, document

metadata = MetaData()


def _text(name: str, *, optional: bool = False, key: bool = False) -> Column[Any]:
    return Column(name, PlainText, primary_key=key, nullable=optional)


def _of(name: str, target: str, *, key: bool = False) -> Column[Any]:
    """Return a column that names a row of another table."""
    return Column(name, PlainText, ForeignKey(target), primary_key=key, nullable=False)


def _money(name: str, *, optional: bool = False) -> Column[Any]:
    return Column(name, ExactDecimal, nullable=optional)


def _moment(name: str, *, optional: bool = False) -> Column[Any]:
    return Column(name, UtcMoment, nullable=optional)


def _float(name: str, *, optional: bool = True) -> Column[Any]:
    return Column(name, Double, nullable=optional)


def _uuid() -> Column[Any]:
    """Return a column for the name under which other systems may keep the row."""
    return Column("uuid", UuidText, nullable=False)


def _seq(name: str = "seq", *, key: bool = False, optional: bool = False) -> Column[Any]:
    """Return a column for the number of a journal entry."""
    return Column(name, BigInteger, primary_key=key, autoincrement=False, nullable=optional)


# Which journal the tables tell, and how far: one row, written with the rows themselves.
projection = Table(
    "projection",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("rules", Integer, nullable=False),
    _seq(),
    _text("digest"),
    Column("line_offset", BigInteger, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    _moment("entry_at", optional=True),
)

# `plan` and `result` hold all that the journal says of them; the other columns are what people ask by.
trades = Table(
    "trades",
    metadata,
    _text("id", key=True),
    _text("trace_id"),
    _text("symbol"),
    _text("direction"),
    _text("status"),
    Column("is_over", Boolean, nullable=False),
    _money("quantity"),
    _money("entered_quantity"),
    _money("open_quantity"),
    _money("closed_quantity", optional=True),
    _money("leverage", optional=True),
    _money("reference_price", optional=True),
    _money("entry_price", optional=True),
    _money("exit_price", optional=True),
    _money("stop_price", optional=True),
    _money("target_price", optional=True),
    _money("risk", optional=True),
    _float("confidence"),
    _text("model_version", optional=True),
    _money("pnl", optional=True),
    _money("fees", optional=True),
    _money("roi", optional=True),
    _text("exit_requested", optional=True),
    _text("exit_reason", optional=True),
    Column("fills_complete", Boolean, nullable=True),
    _money("external_quantity"),
    _money("external_price", optional=True),
    _money("external_fees"),
    _moment("planned_at"),
    _moment("candle_closed_at", optional=True),
    _moment("opened_at", optional=True),
    _moment("closed_at", optional=True),
    Column("closed_on", Date, nullable=True),
    _moment("updated_at"),
    Column("plan", document(), nullable=True),
    Column("result", document(), nullable=True),
    _seq(),
    _seq("closed_seq", optional=True),
    _uuid(),
    # Trades of a symbol, the newest first; and all of them, the newest first.
    Index("idx_trades_symbol_created", "symbol", "planned_at", "seq"),
    Index("idx_trades_created", "planned_at", "seq"),
    # What is open, at each batch of the projection; and a day's closed trades, for that day's performance.
    Index("idx_trades_is_over", "is_over"),
    Index("idx_trades_closed_on", "closed_on"),
    # From a signal to the trade that came of it.
    Index("idx_trades_trace", "trace_id"),
    # From the name that another system keeps.
    Index("idx_trades_uuid", "uuid", unique=True),
)

orders = Table(
    "orders",
    metadata,
    _text("client_order_id", key=True),
    _of("trade_id", "trades.id"),
    _text("symbol"),
    _text("side"),
    _text("order_type"),
    _text("purpose"),
    _money("quantity"),
    _money("limit_price", optional=True),
    _money("trigger_price", optional=True),
    _money("arrival_price", optional=True),
    _text("status"),
    _money("filled"),
    _money("booked"),
    _money("average_price", optional=True),
    _text("venue_order_id"),
    _text("child_order_id", optional=True),
    _text("refusal"),
    _moment("intended_at"),
    _moment("updated_at"),
    Column("intent", document(), nullable=False),
    _seq(),
    # A trade's orders, in their order.
    Index("idx_orders_trade", "trade_id", "seq"),
)

fills = Table(
    "fills",
    metadata,
    _of("client_order_id", "orders.client_order_id", key=True),
    _text("fill_id", key=True),
    _text("trade_id"),
    _text("venue_order_id"),
    _text("symbol"),
    _text("side"),
    _money("quantity"),
    _money("price"),
    _money("fee"),
    Column("is_maker", Boolean, nullable=False),
    _text("order_type", optional=True),
    _money("slippage", optional=True),
    _moment("executed_at"),
    _seq(),
    # A trade's executions, in their order.
    Index("idx_fills_trade", "trade_id", "seq"),
)

# One for each trade that was ever in the market.
positions = Table(
    "positions",
    metadata,
    _of("trade_id", "trades.id", key=True),
    _text("symbol"),
    _text("direction"),
    _text("status"),
    _money("quantity"),
    _money("entry_price"),
    _money("stop_price"),
    _money("target_price"),
    _money("mark_price", optional=True),
    _money("unrealized_pnl", optional=True),
    _money("leverage", optional=True),
    _money("margin", optional=True),
    _moment("opened_at"),
    _moment("updated_at"),
    _seq(),
    _uuid(),
    # What is open in a symbol, and what is open at all.
    Index("idx_positions_symbol_status", "symbol", "status", "opened_at", "seq"),
    Index("idx_positions_status", "status", "opened_at", "seq"),
)

# Every decision, refusals with their code and the numbers that were compared.
signals = Table(
    "signals",
    metadata,
    _seq(key=True),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    _text("symbol"),
    _text("outcome"),
    _text("code", optional=True),
    Column("context", document(), nullable=True),
    _text("direction", optional=True),
    _float("confidence"),
    _float("expected_return"),
    _float("price"),
    _text("model_version", optional=True),
    Column("consensus", Integer, nullable=True),
    Column("members", document(), nullable=True),
    Column("inputs", document(), nullable=True),
    _text("regime", optional=True),
    _text("trace_id", optional=True),
    _text("policy"),
    _moment("candle_closed_at"),
    _moment("decided_at"),
    _uuid(),
    # Decisions of a symbol, and all of them, the newest first; refusals of one code; from a trade to its decision.
    Index("idx_signals_symbol", "symbol", "decided_at", "seq", "ordinal"),
    Index("idx_signals_created", "decided_at", "seq", "ordinal"),
    Index("idx_signals_code", "code", "decided_at", "seq", "ordinal"),
    Index("idx_signals_trace", "trace_id"),
)

models = Table(
    "models",
    metadata,
    _text("version", key=True),
    _text("digest", key=True),
    _text("status"),
    _text("verdict", optional=True),
    _text("source", optional=True),
    Column("horizon", Integer, nullable=True),
    Column("detail", document(), nullable=False),
    _text("approved_by", optional=True),
    _moment("first_seen_at"),
    _moment("promoted_at", optional=True),
    _moment("loaded_at", optional=True),
    _moment("retired_at", optional=True),
    _seq(),
    _uuid(),
)

policy_versions = Table(
    "policy_versions",
    metadata,
    _text("fingerprint", key=True),
    Column("rules", document(), nullable=False),
    _moment("first_used_at"),
    _moment("last_used_at"),
    Column("decisions", BigInteger, nullable=False),
    _seq(),
    _seq("last_seq"),
)

equity_curve = Table(
    "equity_curve",
    metadata,
    _seq(key=True),
    _money("equity"),
    _money("day_start_equity"),
    _money("peak_equity"),
    _money("week_start_equity"),
    _money("drawdown"),
    Column("marked_on", Date, nullable=False),
    _moment("marked_at"),
    # A day's marks, for its performance, and a stretch of the curve.
    Index("idx_equity_curve_marked_on", "marked_on"),
    Index("idx_equity_curve_marked_at", "marked_at", "seq"),
)

# One for each candle that was decided on.
risk_state = Table(
    "risk_state",
    metadata,
    _seq(key=True),
    _text("trading_state"),
    _money("equity"),
    _money("daily_pnl"),
    _money("weekly_pnl"),
    _money("drawdown"),
    _money("max_drawdown"),
    Column("open_positions", Integer, nullable=False),
    _money("total_exposure"),
    _money("in_flight"),
    _money("heat"),
    Column("approved", Integer, nullable=False),
    Column("denied", Integer, nullable=False),
    _moment("candle_closed_at"),
    Column("decided_on", Date, nullable=False),
    _moment("decided_at"),
    # Why the emergency stop let nothing in; empty where it stood by.
    _text("emergency"),
    Index("idx_risk_state_decided_on", "decided_on"),
)

funding_payments = Table(
    "funding_payments",
    metadata,
    _seq(key=True),
    _text("transaction_id"),
    _text("symbol"),
    _money("amount"),
    Column("paid_on", Date, nullable=False),
    _moment("paid_at"),
    # A day's payments, and the newest ones, among which a repeated number is looked for.
    Index("idx_funding_paid_on", "paid_on"),
    Index("idx_funding_paid_at", "paid_at"),
)

# What happened that has no table of its own, in the journal's words.
events = Table(
    "events",
    metadata,
    _seq(key=True),
    _text("event_type"),
    _text("family"),
    Column("is_alert", Boolean, nullable=False),
    _text("trace_id"),
    Column("detail", document(), nullable=False),
    _moment("happened_at"),
    # Events of a type or family, and what somebody should look at, the newest first.
    Index("idx_events_type", "event_type", "seq"),
    Index("idx_events_family", "family", "seq"),
    Index("idx_events_alert", "is_alert", "seq"),
)

# What the newest decision and the newest start ran by: rules of the policy, and settings of the worker.
settings = Table(
    "settings",
    metadata,
    _text("scope", key=True),
    _text("name", key=True),
    Column("value", document(), nullable=True),
    Column("version", Integer, nullable=True),
    _text("author", optional=True),
    _text("reason", optional=True),
    _moment("changed_at"),
    _seq(),
)

# What whoever supervises asks for; `digest` is that of the journal's entry, by which a copy is told from a forgery.
audit = Table(
    "audit",
    metadata,
    _seq(key=True),
    _text("section"),
    _text("event_type"),
    _text("actor", optional=True),
    _text("subject", optional=True),
    _text("reason", optional=True),
    _text("digest"),
    Column("detail", document(), nullable=False),
    _moment("happened_at"),
    # Acts of one kind, the newest first.
    Index("idx_audit_section", "section", "seq"),
)

# As flows told the journal; their own table, with every step, is jobs/jobs.db.
retraining_jobs = Table(
    "retraining_jobs",
    metadata,
    _text("job_id", key=True),
    _text("type"),
    _text("status"),
    _text("trigger"),
    Column("models", document(), nullable=False),
    Column("kept", document(), nullable=False),
    Column("metrics", document(), nullable=True),
    _text("version", optional=True),
    _text("replaced", optional=True),
    Column("promoted", Boolean, nullable=True),
    _text("reasons", optional=True),
    _text("error_message", optional=True),
    Column("resumes", Integer, nullable=False),
    _moment("queued_at", optional=True),
    _moment("started_at", optional=True),
    _moment("completed_at", optional=True),
    _moment("told_at"),
    _seq(),
    _seq("last_seq"),
    # The newest first.
    Index("idx_retraining_jobs_told", "told_at", "seq"),
)

# Every figure of every check that the journal was told of.
drift_metrics = Table(
    "drift_metrics",
    metadata,
    _seq(key=True),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    _text("version"),
    _text("role"),
    _text("verdict"),
    _text("part"),
    _text("name"),
    _text("statistic"),
    _float("value"),
    _float("alarm_at"),
    _text("state"),
    Column("hours", Integer, nullable=True),
    _moment("window_ended_at", optional=True),
    _moment("checked_at"),
    # How one figure went from check to check.
    Index("idx_drift_metrics_figure", "name", "statistic", "seq", "ordinal"),
)

# What models said of live candles where one of them was only compared: from the shadow's own journal, a chain a day.
shadow_predictions = Table(
    "shadow_predictions",
    metadata,
    Column("scored_on", Date, primary_key=True),
    _seq(key=True),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    _text("role"),
    _text("version"),
    _text("digest"),
    _text("symbol"),
    Column("horizon", Integer, nullable=False),
    _float("threshold", optional=False),
    _float("expected_return"),
    _float("probability_up"),
    _money("bid", optional=True),
    _money("ask", optional=True),
    _text("place"),
    _moment("candle_closed_at"),
    _moment("scored_at"),
    # The newest first, and those of one version.
    Index("idx_shadow_predictions_closed", "candle_closed_at", "seq", "ordinal"),
    Index("idx_shadow_predictions_version", "version", "candle_closed_at", "seq", "ordinal"),
)

# How far each day of that journal is told, as `projection` says it of the account's.
shadow_days = Table(
    "shadow_days",
    metadata,
    Column("day", Date, primary_key=True),
    Column("rules", Integer, nullable=False),
    _seq(),
    _text("digest"),
    Column("line_offset", BigInteger, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
)

# Made anew for each day that was touched, from that day's rows: what a materialised view would be, exact in SQLite too.
daily_performance = Table(
    "daily_performance",
    metadata,
    Column("date", Date, primary_key=True),
    Column("trades_count", Integer, nullable=False),
    Column("not_entered", Integer, nullable=False),
    Column("wins", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    _money("win_rate", optional=True),
    _money("gross_pnl"),
    _money("fees"),
    _money("total_pnl"),
    _money("funding"),
    _money("net_pnl"),
    _money("entry_notional"),
    _money("roi", optional=True),
    _money("avg_roi", optional=True),
    _money("equity_first", optional=True),
    _money("equity_last", optional=True),
    _money("equity_low", optional=True),
    _money("equity_high", optional=True),
    _money("max_drawdown", optional=True),
    _money("max_exposure", optional=True),
    _money("mean_exposure", optional=True),
    Column("candles_decided", Integer, nullable=False),
    Column("approved", Integer, nullable=False),
    Column("denied", Integer, nullable=False),
)
