"""Batches of studies that are asked back from an archive, and where each of their items stands."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add two tables."""
    op.create_table(
        "retrieval",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("how", sa.String(length=16), nullable=False),
        sa.Column("called_ae", sa.String(length=16), nullable=False),
        sa.Column("hours", sa.String(length=16), server_default="", nullable=False),
        sa.Column("per_minute", sa.Float(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('running', 'paused', 'canceled', 'done')", name=op.f("ck_retrieval_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retrieval")),
    )
    op.create_index("ix_retrieval_state", "retrieval", ["state", "created_at"])
    op.create_table(
        "retrieval_item",
        sa.Column("retrieval_id", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("value", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("studies", sa.Integer(), server_default="0", nullable=False),
        sa.Column("instances", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reason", sa.String(length=400), server_default="", nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('waiting', 'done', 'failed', 'canceled')", name=op.f("ck_retrieval_item_state")),
        sa.ForeignKeyConstraint(
            ["retrieval_id"], ["retrieval.id"], name=op.f("fk_retrieval_item_retrieval_id_retrieval")
        ),
        sa.PrimaryKeyConstraint("retrieval_id", "position", name=op.f("pk_retrieval_item")),
    )
    op.create_index("ix_retrieval_item_due", "retrieval_item", ["state", "due_at"])


def downgrade() -> None:
    """Take them away again."""
    op.drop_table("retrieval_item")
    op.drop_table("retrieval")
