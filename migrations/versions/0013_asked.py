"""A PACS may be asked how many instances a series has; a job on an incomplete series says so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns. The version before asks nobody, and closes what waits for an answer when it is quiet."""
    op.add_column("series", sa.Column("ask_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("series", sa.Column("told_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("series", sa.Column("told_count", sa.Integer(), nullable=True))
    op.add_column("series", sa.Column("told", sa.Text(), nullable=True))
    op.add_column("job", sa.Column("note", sa.Text(), nullable=True))


def downgrade() -> None:
    """Ask nobody."""
    op.drop_column("job", "note")
    for name in ("told", "told_count", "told_at", "ask_at"):
        op.drop_column("series", name)
