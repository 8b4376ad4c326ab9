"""A job that failed is reported to those who waited for its results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what a report of a failure needs; jobs that are there already are reported to nobody."""
    op.add_column("job", sa.Column("report_to", sa.JSON(), server_default="[]", nullable=False))
    op.add_column("job", sa.Column("failure", sa.String(length=16), nullable=True))
    op.add_column("job", sa.Column("report", sa.String(length=16), nullable=True))
    op.add_column("job", sa.Column("report_attempt", sa.Integer(), server_default="0", nullable=False))
    op.create_index("ix_job_report", "job", ["report"])


def downgrade() -> None:
    """Take it away again."""
    op.drop_index("ix_job_report", "job")
    for column in ("report_attempt", "report", "failure", "report_to"):
        op.drop_column("job", column)
