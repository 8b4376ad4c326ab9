"""How long a series is waited for depends on who sends it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add two columns. What the version before receives meanwhile is waited for no longer than its quiet time."""
    op.add_column("series", sa.Column("source", sa.String(length=64), server_default="", nullable=False))
    op.add_column("series", sa.Column("patient_until", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Wait for all alike."""
    op.drop_column("series", "patient_until")
    op.drop_column("series", "source")
