"""Who signed in to send instances by STOW-RS."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; a program of before does not see it."""
    op.add_column("association", sa.Column("account", sa.String(length=40), nullable=False, server_default=""))


def downgrade() -> None:
    """Take it away again."""
    op.drop_column("association", "account")
