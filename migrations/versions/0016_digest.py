"""The digest of an instance, under a name that does not say of which kind it is."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Rename the column. Receivers of the version before refuse what comes until they are restarted."""
    op.alter_column("instance", "sha256", new_column_name="digest")


def downgrade() -> None:
    """Give it its old name."""
    op.alter_column("instance", "digest", new_column_name="sha256")
