"""What an attempt held of memory, and the last that its model printed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add three columns that the version before leaves empty."""
    op.add_column("job_attempt", sa.Column("memory_mib", sa.Integer(), nullable=True))
    op.add_column("job_attempt", sa.Column("gpu_memory_mib", sa.Integer(), nullable=True))
    op.add_column("job_attempt", sa.Column("printed", sa.Text(), nullable=True))


def downgrade() -> None:
    """Forget them."""
    with op.batch_alter_table("job_attempt") as table:
        table.drop_column("printed")
        table.drop_column("gpu_memory_mib")
        table.drop_column("memory_mib")
