"""Indexes in the order of every list that pages and API give, filtered or not; the model of a result in its row."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_INDEXES = (
    ("ix_study_first_received", "study", ("first_received_at", "id")),
    ("ix_study_date", "study", ("study_date", "first_received_at", "id")),
    ("ix_series_first_received", "series", ("first_received_at", "id")),
    ("ix_series_modality", "series", ("modality", "first_received_at", "id")),
    ("ix_job_model", "job", ("model", "state", "created_at")),
    ("ix_result_created", "result", ("created_at", "id")),
    ("ix_result_kind", "result", ("kind", "created_at", "id")),
    ("ix_result_model", "result", ("model", "created_at", "id")),
    ("ix_delivery_state", "delivery", ("state", "created_at", "destination", "finished_at")),
    ("ix_delivery_created", "delivery", ("created_at", "id")),
    ("ix_delivery_destination", "delivery", ("destination", "created_at", "id")),
)
_BY_PEOPLE = "actor <> 'node'"


def upgrade() -> None:
    """Tell each result its model, and add the indexes."""
    op.add_column("result", sa.Column("model", sa.String(length=64), server_default="", nullable=False))
    op.execute("UPDATE result SET model = (SELECT j.model FROM job j WHERE j.id = result.job_id)")
    op.drop_index("ix_delivery_state", "delivery")
    if op.get_bind().dialect.name == "postgresql":
        _index_names("text_pattern_ops")
    for name, table, columns in _INDEXES:
        op.create_index(name, table, list(columns))
    where: dict[str, Any] = {"sqlite_where": sa.text(_BY_PEOPLE), "postgresql_where": sa.text(_BY_PEOPLE)}
    op.create_index("ix_audit_event_actor", "audit_event", ["actor", "at"], **where)
    if op.get_bind().dialect.name == "sqlite":  # else it takes each new index for the best until it has counted
        op.execute("PRAGMA analysis_limit = 1000")
        op.execute("ANALYZE")


def downgrade() -> None:
    """Take them away again."""
    if op.get_bind().dialect.name == "postgresql":
        _index_names("text_ops")
    op.drop_index("ix_audit_event_actor", "audit_event")
    for name, table, _ in reversed(_INDEXES):
        op.drop_index(name, table)
    op.create_index("ix_delivery_state", "delivery", ["state", "destination"])
    op.drop_column("result", "model")


def _index_names(operators: str) -> None:
    for column in ("patient_id", "accession_number"):
        op.drop_index(f"ix_study_{column}", "study")
        op.create_index(f"ix_study_{column}", "study", [column], postgresql_ops={column: operators})
