"""Which instances were refused for want of room and should come again: until they do, their series is not whole."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "unstored",
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("series_instance_uid", "sop_instance_uid", name=op.f("pk_unstored")),
    )
    op.create_index(op.f("ix_unstored_at"), "unstored", ["at"])


def downgrade() -> None:
    """Forget them."""
    op.drop_table("unstored")
