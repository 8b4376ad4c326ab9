"""The tables, and the constraints that make duplicate work impossible.

The engine of the jobs (engine/) keeps tables of its own in the same database; nothing here refers to them.
A column that needs the database's own clock takes `clock()` as its value.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator


class UTCDateTime(TypeDecorator[datetime]):
    """A point in time, always aware and in UTC, on both databases."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; SQLite stores the UTC wall clock without an offset."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the time back aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class clock(FunctionElement[datetime]):
    """The database's own clock: the one on which heartbeats are compared."""

    type = UTCDateTime()
    inherit_cache = True
    name = "clock"


@compiles(clock)
def _clock(element: clock, compiler: SQLCompiler, **kw: Any) -> str:
    return "clock_timestamp()"


@compiles(clock, "sqlite")
def _clock_sqlite(element: clock, compiler: SQLCompiler, **kw: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _where(condition: str) -> dict[str, Any]:
    """Make an index partial on both databases."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


_ID = String(36)
_UID = String(64)
_AE = String(16)

# One peer's connection, or one STOW-RS request. Written with the first instance it stored, or when it ends without one.
# account: who signed in to send it; empty for a peer that has an AE title only.
association = Table(
    "association",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("calling_ae", _AE, nullable=False),
    Column("called_ae", _AE, nullable=False),
    Column("peer_address", String(64), nullable=False),
    Column("implementation", String(96), nullable=False, server_default=""),
    Column("account", String(40), nullable=False, server_default=""),
    Column("started_at", UTCDateTime, nullable=False),
    Column("ended_at", UTCDateTime),
    Column("end_reason", String(200)),
    Column("stored", Integer, nullable=False, server_default="0"),
    Column("refused", Integer, nullable=False, server_default="0"),
)

study = Table(
    "study",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("study_instance_uid", _UID, nullable=False, unique=True),
    Column("patient_id", String(64), nullable=False, server_default=""),
    Column("accession_number", String(64), nullable=False, server_default=""),
    Column("study_date", String(8), nullable=False, server_default=""),
    Column("first_received_at", UTCDateTime, nullable=False),
    # by these, what begins with a text is found as well: PostgreSQL does so by no other index
    Index("ix_study_patient_id", "patient_id", postgresql_ops={"patient_id": "text_pattern_ops"}),
    Index("ix_study_accession_number", "accession_number", postgresql_ops={"accession_number": "text_pattern_ops"}),
    Index("ix_study_first_received", "first_received_at", "id"),
    Index("ix_study_date", "study_date", "first_received_at", "id"),
)

# state: receiving -> complete (-> receiving when a late instance arrives; revision grows at each closing).
# source_ae: who opened the association that brought the first instance.
# scanner: Station Name (0008,1010) of the first instance, or its manufacturer and model where that is empty.
# source: the section of assemble.sources that its last sender fits; empty for none.
# settle_at: when it has been quiet for long enough; patient_until: when nobody waits any longer for what is missing.
# ask_at: when to ask next how many instances it has; null where nobody is asked. told_count: what was told last,
# told_at when it was so, and told who told what, or why not.
# verdict: what assembly found at the last closing: {"slices": n, "lacks_slices": ..., "set_aside": [...], ...}
# refusal: why the instances are no volume; null when they are one.
# no_job_reason: why there is no job although the series is complete; null when there is one.
# images_deleted_at: when retention took the instances, rows and files; null while they are here.
series = Table(
    "series",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("study_id", ForeignKey("study.id"), nullable=False, index=True),
    Column("series_instance_uid", _UID, nullable=False, index=True),
    Column("modality", String(16), nullable=False, server_default=""),
    Column("series_description", String(64), nullable=False, server_default=""),
    Column("source_ae", _AE, nullable=False, server_default=""),
    Column("scanner", String(96), nullable=False, server_default=""),
    Column("state", String(16), nullable=False),
    Column("revision", Integer, nullable=False, server_default="0"),
    Column("instance_count", Integer, nullable=False, server_default="0"),
    Column("expected_count", Integer),
    Column("first_received_at", UTCDateTime, nullable=False),
    Column("last_received_at", UTCDateTime, nullable=False),
    Column("settle_at", UTCDateTime, nullable=False),
    Column("patient_until", UTCDateTime),
    Column("source", String(64), nullable=False, server_default=""),
    Column("ask_at", UTCDateTime),
    Column("told_at", UTCDateTime),
    Column("told_count", Integer),
    Column("told", Text),
    Column("closed_at", UTCDateTime),
    Column("close_reason", String(200)),
    Column("verdict", JSON),
    Column("refusal", Text),
    Column("no_job_reason", Text),
    Column("images_deleted_at", UTCDateTime),
    UniqueConstraint("study_id", "series_instance_uid"),
    CheckConstraint("state IN ('receiving', 'complete')", name="state"),
    Index("ix_series_settle", "state", "settle_at"),
    Index("ix_series_first_received", "first_received_at", "id"),
    Index("ix_series_modality", "modality", "first_received_at", "id"),
    Index("ix_series_kept", "closed_at", **_where("images_deleted_at IS NULL")),
    Index("ix_series_images_deleted_at", "images_deleted_at", **_where("images_deleted_at IS NOT NULL")),
    Index("ix_series_without_job", "closed_at", **_where("no_job_reason IS NOT NULL")),
)

# revision: the series revision that took the instance in; null until the series closes.
# header: the attributes named in domain.study.HEADER, keyword -> string, number or list; read once, at receipt.
# digest: as dicom_node.digest writes it, or wrote it in earlier versions.
instance = Table(
    "instance",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("series_id", ForeignKey("series.id"), nullable=False),
    Column("association_id", ForeignKey("association.id")),
    Column("sop_instance_uid", _UID, nullable=False, unique=True),
    Column("sop_class_uid", _UID, nullable=False),
    Column("transfer_syntax_uid", _UID, nullable=False),
    Column("path", String(200), nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("received_at", UTCDateTime, nullable=False),
    Column("revision", Integer),
    Column("header", JSON, nullable=False),
    Index("ix_instance_series", "series_id", "revision"),
)

# The associations by which instances came that were here already, called by an AE title that their series did not
# come by. asked_at: when the rules were asked about the series because of it; null until they are.
came_again = Table(
    "came_again",
    metadata,
    Column("series_id", ForeignKey("series.id"), primary_key=True),
    Column("association_id", ForeignKey("association.id"), primary_key=True),
    Column("at", UTCDateTime, nullable=False),
    Column("asked_at", UTCDateTime),
    Index("ix_came_again_unasked", "at", **_where("asked_at IS NULL")),
)

_STATISTICS = ("model", "model_version", "source_ae", "scanner", "created_at", "started_at")

# id derives from (series, revision, model, version, run_no): domain.uids.job_id.
# attempt is the token: whoever ends an attempt says WHERE id = :job AND attempt = :attempt.
# slices: the sop_instance_uids of the volume in order, as assembly found them.
# source_ae, scanner: those of the series when the job was made, so that statistics need no other table.
# report_to: the destinations that are told when the job fails; they want its results, too.
# failure: of a failed job, whose fault it is (domain.job.Failure).
# report: of a failed job with somebody to tell, where the report stands (domain.job.ReportState).
# report_attempt: the token of the report, as attempt is of the job.
# note: what a reader of the result has to know of what it was made from; null for nothing.
job = Table(
    "job",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("series_id", ForeignKey("series.id"), nullable=False, index=True),
    Column("series_revision", Integer, nullable=False),
    Column("rule", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("model_version", String(32), nullable=False),
    Column("run_no", Integer, nullable=False, server_default="1"),
    Column("destinations", JSON, nullable=False),
    Column("slices", JSON, nullable=False),
    Column("source_ae", _AE, nullable=False, server_default=""),
    Column("scanner", String(96), nullable=False, server_default=""),
    Column("priority", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("max_attempts", Integer, nullable=False),
    Column("next_attempt_at", UTCDateTime),
    Column("created_at", UTCDateTime, nullable=False),
    Column("started_at", UTCDateTime),
    Column("finished_at", UTCDateTime),
    Column("error", Text),
    Column("supersedes", ForeignKey("job.id")),
    Column("report_to", JSON, nullable=False, server_default="[]"),
    Column("failure", String(16)),
    Column("report", String(16)),
    Column("report_attempt", Integer, nullable=False, server_default="0"),
    Column("note", Text),
    UniqueConstraint("series_id", "series_revision", "model", "model_version", "run_no"),
    CheckConstraint("state IN ('scheduled', 'in progress', 'completed', 'canceled', 'failed')", name="state"),
    Index("ix_job_state_created", "state", "created_at"),
    Index("ix_job_created", "created_at"),
    Index("ix_job_model", "model", "state", "created_at"),
    Index("ix_job_report", "report"),
    Index("ix_job_supersedes", "supersedes", **_where("supersedes IS NOT NULL")),
    # holds all that statistics ask for: beside it, each job would cost a page of its own
    Index("ix_job_statistics", "state", "finished_at", *_STATISTICS),
)

job_attempt = Table(
    "job_attempt",
    metadata,
    Column("job_id", ForeignKey("job.id"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("executor_id", String(100), nullable=False, index=True),
    Column("model_digest", String(64), nullable=False, server_default=""),
    Column("started_at", UTCDateTime, nullable=False),
    Column("ended_at", UTCDateTime),
    Column("outcome", String(16)),
    Column("error", Text),
    Column("steps_s", JSON),
    Column("memory_mib", Integer),  # the most that the model has held, of main memory and of the GPU's
    Column("gpu_memory_mib", Integer),
    Column("printed", Text),  # the last that the model printed
)

# The series of a job that works on several, each in a role of its model. position 0 is the job's own series: its
# results lie on that one. slices: as in job.
job_input = Table(
    "job_input",
    metadata,
    Column("job_id", ForeignKey("job.id"), primary_key=True),
    Column("role", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("series_id", ForeignKey("series.id"), nullable=False, index=True),
    Column("series_revision", Integer, nullable=False),
    Column("slices", JSON, nullable=False),
)

# Which roles of which rules (by name) a series fitted when it was last closed, with what one is chosen by; rules that
# want several series of a study, alone. slices: as in job; empty with a refusal. acquired_at: date and
# time as DICOM writes them. priority, note: as a job takes them over. said: what became of it, while no job uses it.
series_role = Table(
    "series_role",
    metadata,
    Column("series_id", ForeignKey("series.id"), primary_key=True),
    Column("rule", String(64), primary_key=True),
    Column("role", String(64), primary_key=True),
    Column("series_revision", Integer, nullable=False),
    Column("slices", JSON, nullable=False),
    Column("slice_spacing_mm", Float),
    Column("acquired_at", String(32), nullable=False, server_default=""),
    Column("priority", Integer, nullable=False),
    Column("note", Text),
    Column("refusal", Text),
    Column("said", Text),
)

# A study that waits for series: one fills a role of the rule, and a job is not made yet. until: when nobody waits any
# longer. No row: nobody waits. wait_s: how long, from the last series of the study that was closed.
study_wait = Table(
    "study_wait",
    metadata,
    Column("study_id", ForeignKey("study.id"), primary_key=True),
    Column("rule", String(64), primary_key=True),
    Column("since", UTCDateTime, nullable=False),
    Column("until", UTCDateTime, nullable=False, index=True),
    Column("wait_s", Float, nullable=False),
)

# model: that of the job, so that a list of one model's results needs no other table.
# deleted_at: when retention took the file; the row stays.
result = Table(
    "result",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("job_id", ForeignKey("job.id"), nullable=False),
    Column("model", String(64), nullable=False, server_default=""),
    Column("kind", String(16), nullable=False),
    Column("sop_class_uid", _UID, nullable=False),
    Column("sop_instance_uid", _UID, nullable=False, unique=True),
    Column("series_instance_uid", _UID, nullable=False, index=True),
    Column("transfer_syntax_uid", _UID, nullable=False),
    Column("path", String(200), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("summary", JSON, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("deleted_at", UTCDateTime),
    UniqueConstraint("job_id", "kind"),
    Index("ix_result_created", "created_at", "id"),
    Index("ix_result_kind", "kind", "created_at", "id"),
    Index("ix_result_model", "model", "created_at", "id"),
    Index("ix_result_kept", "created_at", **_where("deleted_at IS NULL")),
)

# position: the order within one job and destination: the SEG goes before the SR that points at it.
# attempt is the token, as in job.
# next_attempt_at: when a waiting delivery is due; null while it waits for an earlier position to end, since nothing is
# enqueued for it until then.
# asked_at: when it was created or an operator last asked for it again; giving up counts from here.
delivery = Table(
    "delivery",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("result_id", ForeignKey("result.id"), nullable=False),
    Column("job_id", ForeignKey("job.id"), nullable=False, index=True),
    Column("destination", String(64), nullable=False),
    Column("position", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", UTCDateTime),
    Column("created_at", UTCDateTime, nullable=False),
    Column("asked_at", UTCDateTime, nullable=False),
    Column("finished_at", UTCDateTime),
    Column("last_status", Integer),
    Column("last_error", Text),
    UniqueConstraint("result_id", "destination"),
    CheckConstraint("state IN ('waiting', 'sending', 'delivered', 'failed', 'canceled')", name="state"),
    # holds what destinations are counted by: beside it, each delivery would cost a page of its own
    Index("ix_delivery_state", "state", "created_at", "destination", "finished_at"),
    Index("ix_delivery_created", "created_at", "id"),
    Index("ix_delivery_destination", "destination", "created_at", "id"),
)

delivery_attempt = Table(
    "delivery_attempt",
    metadata,
    Column("delivery_id", ForeignKey("delivery.id"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("executor_id", String(100), nullable=False, index=True),
    Column("started_at", UTCDateTime, nullable=False),
    Column("ended_at", UTCDateTime),
    Column("outcome", String(16)),
    Column("status", Integer),
    Column("error", Text),
)

# The proof of a delivery, where its destination has to give one; written when the destination takes the object.
# attempt is that of the delivery, and the token: what was asked about an older attempt is not written down any more.
# due_at: when to look next; null while the object is sent again, and once the proof has ended.
# transaction_uid: of the last request for storage commitment, asked_at when it was made, asked how many there were.
# failure_reason: why the destination does not commit itself (0008,1197); null while it has not refused.
# said: the last thing that stood in the way.
proof = Table(
    "proof",
    metadata,
    Column("delivery_id", ForeignKey("delivery.id"), primary_key=True),
    Column("destination", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("since", UTCDateTime, nullable=False),
    Column("due_at", UTCDateTime),
    Column("looks", Integer, nullable=False, server_default="0"),
    Column("transaction_uid", _UID, index=True),
    Column("asked", Integer, nullable=False, server_default="0"),
    Column("asked_at", UTCDateTime),
    Column("failure_reason", Integer),
    Column("committed_at", UTCDateTime),
    Column("seen_at", UTCDateTime),
    Column("resent", Integer, nullable=False, server_default="0"),
    Column("said", Text),
    Column("ended_at", UTCDateTime),
    CheckConstraint("state IN ('due', 'proven', 'failed', 'no answer')", name="state"),
    Index("ix_proof_due", "destination", "state", "due_at"),
    Index("ix_proof_open", "state", **_where("state <> 'proven'")),
)

# What a destination said when it was probed: which objects it takes in which transfer syntaxes, and how it proves.
destination_profile = Table(
    "destination_profile",
    metadata,
    Column("destination", String(64), primary_key=True),
    Column("peer", String(200), nullable=False),
    Column("probed_at", UTCDateTime, nullable=False),
    Column("profile", JSON, nullable=False),
)

# One row per process start of a role that claims work. beat_at is written with clock().
node = Table(
    "node",
    metadata,
    Column("executor_id", String(100), primary_key=True),
    Column("host", String(100), nullable=False),
    Column("slot", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("started_at", UTCDateTime, nullable=False),
    Column("beat_at", UTCDateTime, nullable=False),
    CheckConstraint("state IN ('alive', 'stopped', 'dead')", name="state"),
    Index("ix_node_state", "state", "beat_at"),
)

# chain_no, chain_hash: the place in the hash chain (db/chain.py), given a few seconds after the event was written.
audit_event = Table(
    "audit_event",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", UTCDateTime, nullable=False, index=True),
    Column("event", String(64), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("association_id", _ID, index=True),
    Column("series_id", _ID, index=True),
    Column("job_id", _ID, index=True),
    Column("delivery_id", _ID, index=True),
    Column("detail", JSON, nullable=False),
    Column("chain_no", BigInteger),
    Column("chain_hash", String(64)),
    Index("ix_audit_event_event_at", "event", "at"),
    Index("ix_audit_event_actor", "actor", "at", **_where("actor <> 'node'")),
    Index("ix_audit_event_chain_no", "chain_no", unique=True),
    Index("ix_audit_event_unchained", "id", **_where("chain_no IS NULL")),
)

# Instances that a sender was told to send again, by the series they belong to; until they are stored, it is not whole:
# db/unstored.py.
unstored = Table(
    "unstored",
    metadata,
    Column("series_instance_uid", _UID, primary_key=True),
    Column("sop_instance_uid", _UID, primary_key=True),
    Column("reason", String(200), nullable=False),
    Column("at", UTCDateTime, nullable=False, index=True),
)

# A batch of studies that are asked back from an archive. hours: "22:00-06:00" on the local clock; empty for any.
# per_minute: at most so many items; null for no limit. called_ae: the title that the studies come to.
retrieval = Table(
    "retrieval",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("source", String(64), nullable=False),
    Column("how", String(16), nullable=False),
    Column("called_ae", _AE, nullable=False),
    Column("hours", String(16), nullable=False, server_default=""),
    Column("per_minute", Float),
    Column("state", String(16), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("finished_at", UTCDateTime),
    CheckConstraint("state IN ('running', 'paused', 'canceled', 'done')", name="state"),
    Index("ix_retrieval_state", "state", "created_at"),
)

# instances: how many the archive sent; reason: why it failed, or is tried again.
retrieval_item = Table(
    "retrieval_item",
    metadata,
    Column("retrieval_id", ForeignKey("retrieval.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("value", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("due_at", UTCDateTime, nullable=False),
    Column("studies", Integer, nullable=False, server_default="0"),
    Column("instances", Integer, nullable=False, server_default="0"),
    Column("reason", String(400), nullable=False, server_default=""),
    Column("updated_at", UTCDateTime, nullable=False),
    CheckConstraint("state IN ('waiting', 'done', 'failed', 'canceled')", name="state"),
    Index("ix_retrieval_item_due", "state", "due_at"),
)

# What peers ask us to commit ourselves to (db/commitments.py). attempt is the token; due_at: when to report, next.
commitment = Table(
    "commitment",
    metadata,
    Column("calling_ae", _AE, primary_key=True),
    Column("transaction_uid", _UID, primary_key=True),
    Column("called_ae", _AE, nullable=False),
    Column("objects", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("asked_at", UTCDateTime, nullable=False),
    Column("due_at", UTCDateTime),
    Column("ended_at", UTCDateTime),
    Column("last_error", Text),
    CheckConstraint("state IN ('due', 'reported', 'failed')", name="state"),
    Index("ix_commitment_due", "state", "due_at"),
)

# Which instances of a series are available, as a peer announced it last (db/announcements.py).
announcement = Table(
    "announcement",
    metadata,
    Column("series_instance_uid", _UID, primary_key=True),
    Column("calling_ae", _AE, primary_key=True),
    Column("instances", JSON, nullable=False),
    Column("at", UTCDateTime, nullable=False, index=True),
)

# What one process at a time does for all of them, and how far it has come: db/sweeps.py.
# position: of what is taken one after the other, the last one done; held_until is on the database's clock.
sweep = Table(
    "sweep",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("position", BigInteger, nullable=False, server_default="0"),
    Column("holder", String(100)),
    Column("held_until", UTCDateTime),
    Column("ended_at", UTCDateTime),
    Column("told", JSON),
)

# What is to be told to people and machines outside: written by the sweep that finds it, sent by the same process.
# key: says it once; body: what the channel sends, see notify/outbox.py.
notification = Table(
    "notification",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("key", String(200), nullable=False, unique=True),
    Column("rule", String(64), nullable=False),
    Column("channel", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", JSON, nullable=False),
    Column("series_id", _ID),
    Column("job_id", _ID),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("created_at", UTCDateTime, nullable=False),
    Column("next_attempt_at", UTCDateTime),
    Column("finished_at", UTCDateTime),
    Column("last_error", Text),
    CheckConstraint("state IN ('waiting', 'sent', 'failed')", name="state"),
    Index("ix_notification_state", "state", "next_attempt_at"),
)

# People who may sign in to the web pages, and what they hold. A secret is kept as its SHA-256 (or argon2id) only.
# subject: issuer and sub of who signs in at the OpenID provider; null for an account of our own. Such have no password.
account = Table(
    "account",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", String(40), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("password_hash", String(200), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("password_at", UTCDateTime, nullable=False),
    Column("signed_in_at", UTCDateTime),
    Column("subject", String(400)),
    CheckConstraint("role IN ('viewer', 'operator', 'admin')", name="role"),
    CheckConstraint("state IN ('active', 'disabled')", name="state"),
)

Index("ix_account_subject", account.c.subject, unique=True)

# A sign-in at the OpenID provider; state and browser are SHA-256 of what the address and the cookie hold.
login_attempt = Table(
    "login_attempt",
    metadata,
    Column("state", String(64), primary_key=True),
    Column("browser", String(64), nullable=False),
    Column("nonce", String(64), nullable=False),
    Column("verifier", String(64), nullable=False),
    Column("target", String(2000), nullable=False),
    Column("at", UTCDateTime, nullable=False, index=True),
)

# id: SHA-256 of what the cookie holds.
web_session = Table(
    "web_session",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False, index=True),
    Column("csrf", String(64), nullable=False),
    Column("address", String(64), nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("seen_at", UTCDateTime, nullable=False),
)

api_token = Table(
    "api_token",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False, index=True),
    Column("name", String(40), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("rights", JSON, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("expires_at", UTCDateTime),
    Column("used_at", UTCDateTime),
    Column("revoked_at", UTCDateTime),
)

# name: SHA-256 of what was typed, for people type passwords there.
login_failure = Table(
    "login_failure",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", UTCDateTime, nullable=False, index=True),
    Column("name", String(64), nullable=False),
    Column("address", String(64), nullable=False),
)

# What was answered to a request with an Idempotency-Key; written in the transaction of what the request did.
idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column("account_id", ForeignKey("account.id"), primary_key=True),
    Column("key", String(100), primary_key=True),
    Column("request", String(64), nullable=False),
    Column("answer", JSON),
    Column("at", UTCDateTime, nullable=False, index=True),
)

# A queue whose row is here hands out nothing: "jobs", or "deliver/" and a destination.
paused_queue = Table(
    "paused_queue",
    metadata,
    Column("queue", String(80), primary_key=True),
    Column("actor", String(64), nullable=False),
    Column("reason", String(200), nullable=False),
    Column("at", UTCDateTime, nullable=False),
)

# The last time that somebody asked a destination for an answer (C-ECHO). error: null when it answered.
destination_echo = Table(
    "destination_echo",
    metadata,
    Column("destination", String(64), primary_key=True),
    Column("at", UTCDateTime, nullable=False),
    Column("took_s", Float),
    Column("error", Text),
)
