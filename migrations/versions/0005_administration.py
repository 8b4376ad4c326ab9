"""What administrators ask: where a job came from, and indexes that answer at a million jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_SERIES_SOURCE = """
UPDATE series SET source_ae = COALESCE((
    SELECT a.calling_ae FROM instance i JOIN association a ON a.id = i.association_id
    WHERE i.series_id = series.id ORDER BY i.id LIMIT 1
), '')
"""
_JOB_SOURCE = "UPDATE job SET source_ae = (SELECT s.source_ae FROM series s WHERE s.id = job.series_id)"
_STATISTICS = ("model", "model_version", "source_ae", "scanner", "created_at", "started_at")
_INDEXES = (
    ("ix_series_kept", "series", ("closed_at",), "images_deleted_at IS NULL"),
    ("ix_series_images_deleted_at", "series", ("images_deleted_at",), "images_deleted_at IS NOT NULL"),
    ("ix_result_kept", "result", ("created_at",), "deleted_at IS NULL"),
    ("ix_series_without_job", "series", ("closed_at",), "no_job_reason IS NOT NULL"),
    ("ix_job_statistics", "job", ("state", "finished_at", *_STATISTICS), None),
    ("ix_proof_open", "proof", ("state",), "state <> 'proven'"),
    ("ix_job_supersedes", "job", ("supersedes",), "supersedes IS NOT NULL"),
    ("ix_result_series_instance_uid", "result", ("series_instance_uid",), None),
    ("ix_audit_event_event_at", "audit_event", ("event", "at"), None),
    ("ix_audit_event_unchained", "audit_event", ("id",), "chain_no IS NULL"),
)
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the columns, fill them for what is there, add the indexes."""
    for table in ("series", "job"):
        op.add_column(table, sa.Column("source_ae", sa.String(length=16), server_default="", nullable=False))
        op.add_column(table, sa.Column("scanner", sa.String(length=96), server_default="", nullable=False))
    op.add_column("series", sa.Column("images_deleted_at", _TIME, nullable=True))
    op.add_column("result", sa.Column("deleted_at", _TIME, nullable=True))
    op.add_column("audit_event", sa.Column("chain_no", sa.BigInteger(), nullable=True))
    op.add_column("audit_event", sa.Column("chain_hash", sa.String(length=64), nullable=True))
    op.create_index("ix_audit_event_chain_no", "audit_event", ["chain_no"], unique=True)
    op.create_table(
        "sweep",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("position", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("holder", sa.String(length=100), nullable=True),
        sa.Column("held_until", _TIME, nullable=True),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.Column("told", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_sweep")),
    )
    op.create_table(
        "notification",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("series_id", sa.String(length=36), nullable=True),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("next_attempt_at", _TIME, nullable=True),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'sent', 'failed')", name=op.f("ck_notification_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification")),
        sa.UniqueConstraint("key", name=op.f("uq_notification_key")),
    )
    op.create_index("ix_notification_state", "notification", ["state", "next_attempt_at"])
    op.execute(_SERIES_SOURCE)
    op.execute(_JOB_SOURCE)
    for name, table, columns, where in _INDEXES:
        only = sa.text(where) if where else None
        op.create_index(name, table, list(columns), sqlite_where=only, postgresql_where=only)


def downgrade() -> None:
    """Take it away again."""
    for name, table, _, _ in reversed(_INDEXES):
        op.drop_index(name, table)
    op.drop_table("notification")
    op.drop_table("sweep")
    op.drop_index("ix_audit_event_chain_no", "audit_event")
    op.drop_column("audit_event", "chain_hash")
    op.drop_column("audit_event", "chain_no")
    op.drop_column("result", "deleted_at")
    op.drop_column("series", "images_deleted_at")
    for table in ("job", "series"):
        op.drop_column(table, "scanner")
        op.drop_column(table, "source_ae")
