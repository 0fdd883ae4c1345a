"""Step 4: the view of a registry says when and how a model was trained, since the journal does."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parents[2] / "sql" / "source_model_registry_trained.sql"


def upgrade() -> None:
    """Make the view anew; rows of models that were loaded before the journal said so leave both empty."""
    op.execute("DROP VIEW IF EXISTS source_model_registry")
    op.execute(_SQL.read_text())


def downgrade() -> None:
    """Make the view as it was before."""
    op.execute("DROP VIEW IF EXISTS source_model_registry")
    op.execute(_SQL.with_name("source_model_registry.sql").read_text())
