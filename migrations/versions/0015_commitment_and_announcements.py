"""Requests for storage commitment that peers made of us, and what they announced to be available."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add two tables. The version before accepts neither, and knows nothing of them."""
    op.create_table(
        "commitment",
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("called_ae", sa.String(length=16), nullable=False),
        sa.Column("objects", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("asked_at", _TIME, nullable=False),
        sa.Column("due_at", _TIME, nullable=True),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('due', 'reported', 'failed')", name=op.f("ck_commitment_state")),
        sa.PrimaryKeyConstraint("calling_ae", "transaction_uid", name=op.f("pk_commitment")),
    )
    op.create_index("ix_commitment_due", "commitment", ["state", "due_at"])
    op.create_table(
        "announcement",
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("instances", sa.JSON(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("series_instance_uid", "calling_ae", name=op.f("pk_announcement")),
    )
    op.create_index("ix_announcement_at", "announcement", ["at"])


def downgrade() -> None:
    """Forget both."""
    op.drop_table("announcement")
    op.drop_table("commitment")
