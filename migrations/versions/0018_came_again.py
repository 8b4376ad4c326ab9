"""Series that came again, called by another of our AE titles."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add a table. The version before knows nothing of it: what comes again by it is not asked about again."""
    op.create_table(
        "came_again",
        sa.Column("series_id", sa.String(length=36), nullable=False),
        sa.Column("association_id", sa.String(length=36), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("asked_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_came_again_series_id")),
        sa.ForeignKeyConstraint(["association_id"], ["association.id"], name=op.f("fk_came_again_association_id")),
        sa.PrimaryKeyConstraint("series_id", "association_id", name=op.f("pk_came_again")),
    )
    unasked = sa.text("asked_at IS NULL")
    op.create_index("ix_came_again_unasked", "came_again", ["at"], sqlite_where=unasked, postgresql_where=unasked)


def downgrade() -> None:
    """Forget it."""
    op.drop_table("came_again")
