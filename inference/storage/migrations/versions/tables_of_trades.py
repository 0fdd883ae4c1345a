"""Step 1: trades with their orders, executions and positions; decisions; events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from inference.storage.columns import ExactDecimal, PlainText, UtcMoment, document

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_type", PlainText(), nullable=False),
        sa.Column("family", PlainText(), nullable=False),
        sa.Column("is_alert", sa.Boolean(), nullable=False),
        sa.Column("trace_id", PlainText(), nullable=False),
        sa.Column("detail", document(), nullable=False),
        sa.Column("happened_at", UtcMoment(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("idx_events_alert", "events", ["is_alert", "seq"])
    op.create_index("idx_events_family", "events", ["family", "seq"])
    op.create_index("idx_events_type", "events", ["event_type", "seq"])
    op.create_table(
        "projection",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rules", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", PlainText(), nullable=False),
        sa.Column("line_offset", sa.BigInteger(), nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.Column("entry_at", UtcMoment(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "signals",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("symbol", PlainText(), nullable=False),
        sa.Column("outcome", PlainText(), nullable=False),
        sa.Column("code", PlainText(), nullable=True),
        sa.Column("context", document(), nullable=True),
        sa.Column("direction", PlainText(), nullable=True),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("expected_return", sa.Double(), nullable=True),
        sa.Column("price", sa.Double(), nullable=True),
        sa.Column("model_version", PlainText(), nullable=True),
        sa.Column("consensus", sa.Integer(), nullable=True),
        sa.Column("members", document(), nullable=True),
        sa.Column("inputs", document(), nullable=True),
        sa.Column("regime", PlainText(), nullable=True),
        sa.Column("trace_id", PlainText(), nullable=True),
        sa.Column("policy", PlainText(), nullable=False),
        sa.Column("candle_closed_at", UtcMoment(), nullable=False),
        sa.Column("decided_at", UtcMoment(), nullable=False),
        sa.PrimaryKeyConstraint("seq", "ordinal"),
    )
    op.create_index("idx_signals_code", "signals", ["code", "decided_at", "seq", "ordinal"])
    op.create_index("idx_signals_created", "signals", ["decided_at", "seq", "ordinal"])
    op.create_index("idx_signals_symbol", "signals", ["symbol", "decided_at", "seq", "ordinal"])
    op.create_index("idx_signals_trace", "signals", ["trace_id"])
    op.create_table(
        "trades",
        sa.Column("id", PlainText(), nullable=False),
        sa.Column("trace_id", PlainText(), nullable=False),
        sa.Column("symbol", PlainText(), nullable=False),
        sa.Column("direction", PlainText(), nullable=False),
        sa.Column("status", PlainText(), nullable=False),
        sa.Column("is_over", sa.Boolean(), nullable=False),
        sa.Column("quantity", ExactDecimal(), nullable=False),
        sa.Column("entered_quantity", ExactDecimal(), nullable=False),
        sa.Column("open_quantity", ExactDecimal(), nullable=False),
        sa.Column("closed_quantity", ExactDecimal(), nullable=True),
        sa.Column("leverage", ExactDecimal(), nullable=True),
        sa.Column("reference_price", ExactDecimal(), nullable=True),
        sa.Column("entry_price", ExactDecimal(), nullable=True),
        sa.Column("exit_price", ExactDecimal(), nullable=True),
        sa.Column("stop_price", ExactDecimal(), nullable=True),
        sa.Column("target_price", ExactDecimal(), nullable=True),
        sa.Column("risk", ExactDecimal(), nullable=True),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("model_version", PlainText(), nullable=True),
        sa.Column("pnl", ExactDecimal(), nullable=True),
        sa.Column("fees", ExactDecimal(), nullable=True),
        sa.Column("roi", ExactDecimal(), nullable=True),
        sa.Column("exit_requested", PlainText(), nullable=True),
        sa.Column("exit_reason", PlainText(), nullable=True),
        sa.Column("fills_complete", sa.Boolean(), nullable=True),
        sa.Column("external_quantity", ExactDecimal(), nullable=False),
        sa.Column("external_price", ExactDecimal(), nullable=True),
        sa.Column("external_fees", ExactDecimal(), nullable=False),
        sa.Column("planned_at", UtcMoment(), nullable=False),
        sa.Column("candle_closed_at", UtcMoment(), nullable=True),
        sa.Column("opened_at", UtcMoment(), nullable=True),
        sa.Column("closed_at", UtcMoment(), nullable=True),
        sa.Column("closed_on", sa.Date(), nullable=True),
        sa.Column("updated_at", UtcMoment(), nullable=False),
        sa.Column("plan", document(), nullable=True),
        sa.Column("result", document(), nullable=True),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("closed_seq", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("idx_trades_closed_on", "trades", ["closed_on"])
    op.create_index("idx_trades_created", "trades", ["planned_at", "seq"])
    op.create_index("idx_trades_is_over", "trades", ["is_over"])
    op.create_index("idx_trades_symbol_created", "trades", ["symbol", "planned_at", "seq"])
    op.create_index("idx_trades_trace", "trades", ["trace_id"])
    op.create_table(
        "orders",
        sa.Column("client_order_id", PlainText(), nullable=False),
        sa.Column("trade_id", PlainText(), nullable=False),
        sa.Column("symbol", PlainText(), nullable=False),
        sa.Column("side", PlainText(), nullable=False),
        sa.Column("order_type", PlainText(), nullable=False),
        sa.Column("purpose", PlainText(), nullable=False),
        sa.Column("quantity", ExactDecimal(), nullable=False),
        sa.Column("limit_price", ExactDecimal(), nullable=True),
        sa.Column("trigger_price", ExactDecimal(), nullable=True),
        sa.Column("arrival_price", ExactDecimal(), nullable=True),
        sa.Column("status", PlainText(), nullable=False),
        sa.Column("filled", ExactDecimal(), nullable=False),
        sa.Column("booked", ExactDecimal(), nullable=False),
        sa.Column("average_price", ExactDecimal(), nullable=True),
        sa.Column("venue_order_id", PlainText(), nullable=False),
        sa.Column("child_order_id", PlainText(), nullable=True),
        sa.Column("refusal", PlainText(), nullable=False),
        sa.Column("intended_at", UtcMoment(), nullable=False),
        sa.Column("updated_at", UtcMoment(), nullable=False),
        sa.Column("intent", document(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["trade_id"],
            ["trades.id"],
        ),
        sa.PrimaryKeyConstraint("client_order_id"),
    )
    op.create_index("idx_orders_trade", "orders", ["trade_id", "seq"])
    op.create_table(
        "positions",
        sa.Column("trade_id", PlainText(), nullable=False),
        sa.Column("symbol", PlainText(), nullable=False),
        sa.Column("direction", PlainText(), nullable=False),
        sa.Column("status", PlainText(), nullable=False),
        sa.Column("quantity", ExactDecimal(), nullable=False),
        sa.Column("entry_price", ExactDecimal(), nullable=False),
        sa.Column("stop_price", ExactDecimal(), nullable=False),
        sa.Column("target_price", ExactDecimal(), nullable=False),
        sa.Column("mark_price", ExactDecimal(), nullable=True),
        sa.Column("unrealized_pnl", ExactDecimal(), nullable=True),
        sa.Column("leverage", ExactDecimal(), nullable=True),
        sa.Column("margin", ExactDecimal(), nullable=True),
        sa.Column("opened_at", UtcMoment(), nullable=False),
        sa.Column("updated_at", UtcMoment(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["trade_id"],
            ["trades.id"],
        ),
        sa.PrimaryKeyConstraint("trade_id"),
    )
    op.create_index("idx_positions_status", "positions", ["status", "opened_at", "seq"])
    op.create_index("idx_positions_symbol_status", "positions", ["symbol", "status", "opened_at", "seq"])
    op.create_table(
        "fills",
        sa.Column("client_order_id", PlainText(), nullable=False),
        sa.Column("fill_id", PlainText(), nullable=False),
        sa.Column("trade_id", PlainText(), nullable=False),
        sa.Column("venue_order_id", PlainText(), nullable=False),
        sa.Column("symbol", PlainText(), nullable=False),
        sa.Column("side", PlainText(), nullable=False),
        sa.Column("quantity", ExactDecimal(), nullable=False),
        sa.Column("price", ExactDecimal(), nullable=False),
        sa.Column("fee", ExactDecimal(), nullable=False),
        sa.Column("is_maker", sa.Boolean(), nullable=False),
        sa.Column("order_type", PlainText(), nullable=True),
        sa.Column("slippage", ExactDecimal(), nullable=True),
        sa.Column("executed_at", UtcMoment(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["client_order_id"],
            ["orders.client_order_id"],
        ),
        sa.PrimaryKeyConstraint("client_order_id", "fill_id"),
    )
    op.create_index("idx_fills_trade", "fills", ["trade_id", "seq"])


def downgrade() -> None:
    """Take the tables away."""
    for table in ("fills", "positions", "orders", "trades", "signals", "projection", "events"):
        op.drop_table(table)
