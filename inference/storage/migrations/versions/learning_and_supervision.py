"""Step 5: learning, settings and what is supervised; UUIDs beside our names; all rows are made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from alembic import op

from inference.storage.columns import ExactDecimal, PlainText, UtcMoment, UuidText, document

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parents[2] / "sql"
# Views by the file that makes them now, and the one that did before, where there was one.
VIEWS = {
    "source_trades": ("source_trades_uuid", "source_trades"),
    "source_positions": ("source_positions_uuid", "source_positions"),
    "source_signals": ("source_signals_uuid", "source_signals"),
    "source_models": ("source_models_uuid", "source_models"),
    "source_model_registry": ("source_model_registry_uuid", "source_model_registry_trained"),
    "source_risk_state": ("source_risk_state_emergency", "source_risk_state"),
    "source_retraining_jobs": ("source_retraining_jobs", None),
    "audit_log": ("audit_log", None),
}
# These stand on tables that change, and are made again as they were.
_KEPT_VIEWS = ("market_regimes",)
_NAMED = ("trades", "positions", "signals", "models")
# In an order in which none names one that comes after it.
_BEFORE = (
    "fills",
    "positions",
    "orders",
    "trades",
    "signals",
    "models",
    "policy_versions",
    "equity_curve",
    "risk_state",
    "funding_payments",
    "events",
    "daily_performance",
    "projection",
)
_MADE = ("settings", "audit", "retraining_jobs", "drift_metrics", "shadow_predictions", "shadow_days")


def upgrade() -> None:
    """Make the tables, columns and views, and empty what is there."""
    _empty()
    _drop_views([*VIEWS, *_KEPT_VIEWS])
    for table in _NAMED:
        with op.batch_alter_table(table, recreate=_recreate()) as change:
            change.add_column(sa.Column("uuid", UuidText(), nullable=False))
    with op.batch_alter_table("risk_state", recreate=_recreate()) as change:
        change.add_column(sa.Column("emergency", PlainText(), nullable=False))
    op.create_index("idx_trades_uuid", "trades", ["uuid"], unique=True)
    _make_settings_and_audit()
    _make_learning()
    _make_shadow()
    _make_views([new for new, _ in VIEWS.values()])
    _make_views(_KEPT_VIEWS)


def downgrade() -> None:
    """Take it all away again, and empty the rest: the version before makes it anew from the journal."""
    _empty()
    _drop_views([*VIEWS, *_KEPT_VIEWS])
    for table in _MADE:
        op.drop_table(table)
    op.drop_index("idx_trades_uuid", "trades")
    with op.batch_alter_table("risk_state", recreate=_recreate()) as change:
        change.drop_column("emergency")
    for table in _NAMED:
        with op.batch_alter_table(table, recreate=_recreate()) as change:
            change.drop_column("uuid")
    _make_views([before for _, before in VIEWS.values() if before is not None])
    _make_views(_KEPT_VIEWS)


def _make_settings_and_audit() -> None:
    op.create_table(
        "settings",
        sa.Column("scope", PlainText(), nullable=False),
        sa.Column("name", PlainText(), nullable=False),
        sa.Column("value", document(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("author", PlainText(), nullable=True),
        sa.Column("reason", PlainText(), nullable=True),
        sa.Column("changed_at", UtcMoment(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("scope", "name"),
    )
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("section", PlainText(), nullable=False),
        sa.Column("event_type", PlainText(), nullable=False),
        sa.Column("actor", PlainText(), nullable=True),
        sa.Column("subject", PlainText(), nullable=True),
        sa.Column("reason", PlainText(), nullable=True),
        sa.Column("digest", PlainText(), nullable=False),
        sa.Column("detail", document(), nullable=False),
        sa.Column("happened_at", UtcMoment(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("idx_audit_section", "audit", ["section", "seq"])


def _make_learning() -> None:
    op.create_table(
        "retraining_jobs",
        sa.Column("job_id", PlainText(), nullable=False),
        sa.Column("type", PlainText(), nullable=False),
        sa.Column("status", PlainText(), nullable=False),
        sa.Column("trigger", PlainText(), nullable=False),
        sa.Column("models", document(), nullable=False),
        sa.Column("kept", document(), nullable=False),
        sa.Column("metrics", document(), nullable=True),
        sa.Column("version", PlainText(), nullable=True),
        sa.Column("replaced", PlainText(), nullable=True),
        sa.Column("promoted", sa.Boolean(), nullable=True),
        sa.Column("reasons", PlainText(), nullable=True),
        sa.Column("error_message", PlainText(), nullable=True),
        sa.Column("resumes", sa.Integer(), nullable=False),
        sa.Column("queued_at", UtcMoment(), nullable=True),
        sa.Column("started_at", UtcMoment(), nullable=True),
        sa.Column("completed_at", UtcMoment(), nullable=True),
        sa.Column("told_at", UtcMoment(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index("idx_retraining_jobs_told", "retraining_jobs", ["told_at", "seq"])
    op.create_table(
        "drift_metrics",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", PlainText(), nullable=False),
        sa.Column("role", PlainText(), nullable=False),
        sa.Column("verdict", PlainText(), nullable=False),
        sa.Column("part", PlainText(), nullable=False),
        sa.Column("name", PlainText(), nullable=False),
        sa.Column("statistic", PlainText(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("alarm_at", sa.Double(), nullable=True),
        sa.Column("state", PlainText(), nullable=False),
        sa.Column("hours", sa.Integer(), nullable=True),
        sa.Column("window_ended_at", UtcMoment(), nullable=True),
        sa.Column("checked_at", UtcMoment(), nullable=False),
        sa.PrimaryKeyConstraint("seq", "ordinal"),
    )
    op.create_index("idx_drift_metrics_figure", "drift_metrics", ["name", "statistic", "seq", "ordinal"])


def _make_shadow() -> None:
    op.create_table(
        "shadow_predictions",
        sa.Column("scored_on", sa.Date(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("role", PlainText(), nullable=False),
        sa.Column("version", PlainText(), nullable=False),
        sa.Column("digest", PlainText(), nullable=False),
        sa.Column("symbol", PlainText(), nullable=False),
        sa.Column("horizon", sa.Integer(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("expected_return", sa.Double(), nullable=True),
        sa.Column("probability_up", sa.Double(), nullable=True),
        sa.Column("bid", ExactDecimal(), nullable=True),
        sa.Column("ask", ExactDecimal(), nullable=True),
        sa.Column("place", PlainText(), nullable=False),
        sa.Column("candle_closed_at", UtcMoment(), nullable=False),
        sa.Column("scored_at", UtcMoment(), nullable=False),
        sa.PrimaryKeyConstraint("scored_on", "seq", "ordinal"),
    )
    op.create_index("idx_shadow_predictions_closed", "shadow_predictions", ["candle_closed_at", "seq", "ordinal"])
    op.create_index(
        "idx_shadow_predictions_version", "shadow_predictions", ["version", "candle_closed_at", "seq", "ordinal"]
    )
    op.create_table(
        "shadow_days",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("rules", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", PlainText(), nullable=False),
        sa.Column("line_offset", sa.BigInteger(), nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day"),
    )


def _empty() -> None:
    for table in _BEFORE:
        op.execute(sa.delete(sa.table(table)))


def _drop_views(names: list[str]) -> None:
    for name in names:
        op.execute(f"DROP VIEW IF EXISTS {name}")


def _make_views(files: list[str] | tuple[str, ...]) -> None:
    for name in files:
        op.execute((_SQL / f"{name}.sql").read_text())


def _recreate() -> Literal["always", "never"]:
    # SQLite adds no column that must hold something, and takes none away that stands in an index.
    return "always" if op.get_bind().dialect.name == "sqlite" else "never"
