"""Accounts of an OpenID provider, and the sign-ins that are under way there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what a program of before does not see."""
    op.add_column("account", sa.Column("subject", sa.String(length=400), nullable=True))
    op.create_index("ix_account_subject", "account", ["subject"], unique=True)
    op.create_table(
        "login_attempt",
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("browser", sa.String(length=64), nullable=False),
        sa.Column("nonce", sa.String(length=64), nullable=False),
        sa.Column("verifier", sa.String(length=64), nullable=False),
        sa.Column("target", sa.String(length=2000), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("state", name=op.f("pk_login_attempt")),
    )
    op.create_index("ix_login_attempt_at", "login_attempt", ["at"])


def downgrade() -> None:
    """Take it away again."""
    op.drop_table("login_attempt")
    op.drop_index("ix_account_subject", "account")
    op.drop_column("account", "subject")
