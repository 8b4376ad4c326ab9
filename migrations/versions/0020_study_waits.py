"""Rules may want several series of a study: which one fits which role, and which studies wait for one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add two tables. The version before refuses to start on such a rule, and knows nothing of them."""
    op.create_table(
        "series_role",
        sa.Column("series_id", sa.String(length=36), nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=64), nullable=False),
        sa.Column("series_revision", sa.Integer(), nullable=False),
        sa.Column("slices", sa.JSON(), nullable=False),
        sa.Column("slice_spacing_mm", sa.Float(), nullable=True),
        sa.Column("acquired_at", sa.String(length=32), server_default="", nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("refusal", sa.Text(), nullable=True),
        sa.Column("said", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_series_role_series_id")),
        sa.PrimaryKeyConstraint("series_id", "rule", "role", name=op.f("pk_series_role")),
    )
    op.create_table(
        "study_wait",
        sa.Column("study_id", sa.String(length=36), nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("until", _TIME, nullable=False),
        sa.Column("wait_s", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_study_wait_study_id")),
        sa.PrimaryKeyConstraint("study_id", "rule", name=op.f("pk_study_wait")),
    )
    op.create_index("ix_study_wait_until", "study_wait", ["until"])


def downgrade() -> None:
    """Forget who waits; a series that comes later makes its study wait anew."""
    op.drop_table("study_wait")
    op.drop_table("series_role")
