"""Whether a destination has what it took is asked and written down; so is what a probe of it found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0002"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add two tables. The version before knows nothing of them, and goes on as it did."""
    op.create_table(
        "proof",
        sa.Column("delivery_id", sa.String(length=36), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("due_at", _TIME, nullable=True),
        sa.Column("looks", sa.Integer(), server_default="0", nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=True),
        sa.Column("asked", sa.Integer(), server_default="0", nullable=False),
        sa.Column("asked_at", _TIME, nullable=True),
        sa.Column("failure_reason", sa.Integer(), nullable=True),
        sa.Column("committed_at", _TIME, nullable=True),
        sa.Column("seen_at", _TIME, nullable=True),
        sa.Column("resent", sa.Integer(), server_default="0", nullable=False),
        sa.Column("said", sa.Text(), nullable=True),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.CheckConstraint("state IN ('due', 'proven', 'failed', 'no answer')", name=op.f("ck_proof_state")),
        sa.ForeignKeyConstraint(["delivery_id"], ["delivery.id"], name=op.f("fk_proof_delivery_id")),
        sa.PrimaryKeyConstraint("delivery_id", name=op.f("pk_proof")),
    )
    op.create_index("ix_proof_due", "proof", ["destination", "state", "due_at"])
    op.create_index("ix_proof_transaction_uid", "proof", ["transaction_uid"])
    op.create_table(
        "destination_profile",
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("peer", sa.String(length=200), nullable=False),
        sa.Column("probed_at", _TIME, nullable=False),
        sa.Column("profile", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("destination", name=op.f("pk_destination_profile")),
    )


def downgrade() -> None:
    """Forget proofs and profiles."""
    op.drop_table("destination_profile")
    op.drop_table("proof")
