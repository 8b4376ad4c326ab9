"""A job may work on several series of a study: which one fills which role."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a table. The version before makes no such jobs, and takes those there are for jobs on their first series."""
    op.create_table(
        "job_input",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("role", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("series_id", sa.String(length=36), nullable=False),
        sa.Column("series_revision", sa.Integer(), nullable=False),
        sa.Column("slices", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_job_input_job_id")),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_job_input_series_id")),
        sa.PrimaryKeyConstraint("job_id", "role", name=op.f("pk_job_input")),
    )
    op.create_index("ix_job_input_series_id", "job_input", ["series_id"])


def downgrade() -> None:
    """Forget which series jobs worked on beside their first."""
    op.drop_table("job_input")
