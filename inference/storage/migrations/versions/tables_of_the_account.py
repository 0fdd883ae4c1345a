"""Step 2: the account by time and by day, models, policies; all rows are made anew."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from inference.storage.columns import ExactDecimal, PlainText, UtcMoment, document

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, and empty those that are there."""
    # What entries of the past say of these tables was passed over: all is made anew from the journal.
    for table in ("fills", "positions", "orders", "trades", "signals", "events", "projection"):
        op.execute(sa.delete(sa.table(table)))
    op.create_table(
        "daily_performance",
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("trades_count", sa.Integer(), nullable=False),
        sa.Column("not_entered", sa.Integer(), nullable=False),
        sa.Column("wins", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("win_rate", ExactDecimal(), nullable=True),
        sa.Column("gross_pnl", ExactDecimal(), nullable=False),
        sa.Column("fees", ExactDecimal(), nullable=False),
        sa.Column("total_pnl", ExactDecimal(), nullable=False),
        sa.Column("funding", ExactDecimal(), nullable=False),
        sa.Column("net_pnl", ExactDecimal(), nullable=False),
        sa.Column("entry_notional", ExactDecimal(), nullable=False),
        sa.Column("roi", ExactDecimal(), nullable=True),
        sa.Column("avg_roi", ExactDecimal(), nullable=True),
        sa.Column("equity_first", ExactDecimal(), nullable=True),
        sa.Column("equity_last", ExactDecimal(), nullable=True),
        sa.Column("equity_low", ExactDecimal(), nullable=True),
        sa.Column("equity_high", ExactDecimal(), nullable=True),
        sa.Column("max_drawdown", ExactDecimal(), nullable=True),
        sa.Column("max_exposure", ExactDecimal(), nullable=True),
        sa.Column("mean_exposure", ExactDecimal(), nullable=True),
        sa.Column("candles_decided", sa.Integer(), nullable=False),
        sa.Column("approved", sa.Integer(), nullable=False),
        sa.Column("denied", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("date"),
    )
    op.create_table(
        "equity_curve",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("equity", ExactDecimal(), nullable=False),
        sa.Column("day_start_equity", ExactDecimal(), nullable=False),
        sa.Column("peak_equity", ExactDecimal(), nullable=False),
        sa.Column("week_start_equity", ExactDecimal(), nullable=False),
        sa.Column("drawdown", ExactDecimal(), nullable=False),
        sa.Column("marked_on", sa.Date(), nullable=False),
        sa.Column("marked_at", UtcMoment(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("idx_equity_curve_marked_at", "equity_curve", ["marked_at", "seq"])
    op.create_index("idx_equity_curve_marked_on", "equity_curve", ["marked_on"])
    op.create_table(
        "funding_payments",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("transaction_id", PlainText(), nullable=False),
        sa.Column("symbol", PlainText(), nullable=False),
        sa.Column("amount", ExactDecimal(), nullable=False),
        sa.Column("paid_on", sa.Date(), nullable=False),
        sa.Column("paid_at", UtcMoment(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("idx_funding_paid_at", "funding_payments", ["paid_at"])
    op.create_index("idx_funding_paid_on", "funding_payments", ["paid_on"])
    op.create_table(
        "models",
        sa.Column("version", PlainText(), nullable=False),
        sa.Column("digest", PlainText(), nullable=False),
        sa.Column("status", PlainText(), nullable=False),
        sa.Column("verdict", PlainText(), nullable=True),
        sa.Column("source", PlainText(), nullable=True),
        sa.Column("horizon", sa.Integer(), nullable=True),
        sa.Column("detail", document(), nullable=False),
        sa.Column("approved_by", PlainText(), nullable=True),
        sa.Column("first_seen_at", UtcMoment(), nullable=False),
        sa.Column("promoted_at", UtcMoment(), nullable=True),
        sa.Column("loaded_at", UtcMoment(), nullable=True),
        sa.Column("retired_at", UtcMoment(), nullable=True),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("version", "digest"),
    )
    op.create_table(
        "policy_versions",
        sa.Column("fingerprint", PlainText(), nullable=False),
        sa.Column("rules", document(), nullable=False),
        sa.Column("first_used_at", UtcMoment(), nullable=False),
        sa.Column("last_used_at", UtcMoment(), nullable=False),
        sa.Column("decisions", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint"),
    )
    op.create_table(
        "risk_state",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("trading_state", PlainText(), nullable=False),
        sa.Column("equity", ExactDecimal(), nullable=False),
        sa.Column("daily_pnl", ExactDecimal(), nullable=False),
        sa.Column("weekly_pnl", ExactDecimal(), nullable=False),
        sa.Column("drawdown", ExactDecimal(), nullable=False),
        sa.Column("max_drawdown", ExactDecimal(), nullable=False),
        sa.Column("open_positions", sa.Integer(), nullable=False),
        sa.Column("total_exposure", ExactDecimal(), nullable=False),
        sa.Column("in_flight", ExactDecimal(), nullable=False),
        sa.Column("heat", ExactDecimal(), nullable=False),
        sa.Column("approved", sa.Integer(), nullable=False),
        sa.Column("denied", sa.Integer(), nullable=False),
        sa.Column("candle_closed_at", UtcMoment(), nullable=False),
        sa.Column("decided_on", sa.Date(), nullable=False),
        sa.Column("decided_at", UtcMoment(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("idx_risk_state_decided_on", "risk_state", ["decided_on"])


def downgrade() -> None:
    """Take these tables away, and empty the others: the version before makes them anew from the journal."""
    made = ("risk_state", "policy_versions", "models", "funding_payments", "equity_curve", "daily_performance")
    for table in made:
        op.drop_table(table)
    for table in ("fills", "positions", "orders", "trades", "signals", "events", "projection"):
        op.execute(sa.delete(sa.table(table)))
