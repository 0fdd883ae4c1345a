"""Step 3: views, some under the names of other systems."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

VIEWS = (
    "source_trades",
    "source_positions",
    "source_signals",
    "source_models",
    "source_model_registry",
    "source_risk_state",
    "source_daily_performance",
    "market_regimes",
    "alerts",
)
_SQL = Path(__file__).parents[2] / "sql"


def upgrade() -> None:
    """Make the views; a later step that changes one drops it first and names another file."""
    for name in VIEWS:
        op.execute((_SQL / f"{name}.sql").read_text())


def downgrade() -> None:
    """Take the views away."""
    for name in VIEWS:
        op.execute(f"DROP VIEW IF EXISTS {name}")
