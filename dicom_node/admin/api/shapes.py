"""What the API gives and takes, as its OpenAPI document describes it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints

T = TypeVar("T")

Line = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f]*$")]
JobStateName = Literal["scheduled", "in progress", "completed", "canceled", "failed"]
DeliveryStateName = Literal["waiting", "sending", "delivered", "failed", "canceled"]


class _Shape(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    errors: list[dict[str, Any]] = []


class Page(BaseModel, Generic[T]):
    """A part of a list, newest first. `next` is the cursor of the part that follows, null in the last one."""

    items: list[T]
    next: str | None = None


class ResultOfJob(_Shape):
    """An object that a job made."""

    kind: str
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    size: int
    summary: dict[str, Any]


class DeliveryOfJob(_Shape):
    """An object on its way to a destination."""

    id: str
    destination: str
    kind: str
    sop_instance_uid: str
    state: DeliveryStateName
    attempt: int
    last_status: int | None
    last_error: str | None
    next_attempt_at: datetime | None
    finished_at: datetime | None
    proof: str | None = None
    committed_at: datetime | None = None
    seen_at: datetime | None = None


class Progress(_Shape):
    """How far a running job is, estimated; `share` and `left_s` are null where the model has no history."""

    ran_s: float
    share: float | None
    left_s: float | None


class Job(_Shape):
    """One model on one complete series."""

    id: str
    state: JobStateName
    rule: str
    model: str
    model_version: str
    run_no: int
    series_id: str
    series_revision: int
    priority: int
    attempt: int
    max_attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    next_attempt_at: datetime | None
    error: str | None
    failure: str | None
    report: str | None
    supersedes: str | None
    patient_id: str
    accession_number: str
    study_instance_uid: str
    series_instance_uid: str
    series_description: str
    steps_s: dict[str, float]
    results: list[ResultOfJob]
    deliveries: list[DeliveryOfJob]
    progress: Progress | None = None


class Series(_Shape):
    """A series that was received."""

    id: str
    series_instance_uid: str
    study_instance_uid: str
    patient_id: str
    accession_number: str
    study_date: str
    modality: str
    series_description: str
    state: Literal["receiving", "complete"]
    revision: int
    instance_count: int
    expected_count: int | None
    first_received_at: datetime
    last_received_at: datetime
    closed_at: datetime | None
    close_reason: str | None
    refusal: str | None
    no_job_reason: str | None


class Result(ResultOfJob):
    """An object that a job made, with where it comes from."""

    id: str
    job_id: str
    model: str
    model_version: str
    study_instance_uid: str
    source_series_uid: str
    patient_id: str
    accession_number: str
    transfer_syntax_uid: str
    sha256: str
    created_at: datetime


class Delivery(DeliveryOfJob):
    """A delivery, with its job."""

    job_id: str
    created_at: datetime
    asked_at: datetime


class Event(_Shape):
    """One event of the audit trail."""

    id: int
    at: datetime
    event: str
    actor: str
    association_id: str | None
    series_id: str | None
    job_id: str | None
    delivery_id: str | None
    detail: dict[str, Any]


class StoryLine(_Shape):
    """One thing that happened to a series."""

    at: datetime
    text: str


class Story(_Shape):
    """What `dicom-node explain` says of a series. `answer`: where the result is, or why there is none."""

    series_id: str
    title: str
    answer: str
    lines: list[StoryLine]


class Structure(_Shape):
    """One thing that a model marks."""

    output: str
    label: str
    type: str
    laterality: str | None
    measurements: list[str]


class Model(BaseModel):
    """The card of a model; `usual_s` is its usual time here, null without history."""

    name: str
    version: str
    title: str
    manufacturer: str
    summary: str
    training: str
    digest: str
    weights_digest: str
    timeout_s: float
    modality: list[str]
    min_slices: int
    max_slice_spacing_mm: float | None
    outputs: list[str]
    structures: list[Structure]
    usual_s: float | None


class Rule(BaseModel):
    """A rule; `conditions` in words."""

    name: str
    enabled: bool
    model: str
    destinations: list[str]
    priority: str
    report_failures: bool
    conditions: list[str]


class Echo(BaseModel):
    """What a destination answered when it was last asked: seconds, or an error."""

    at: datetime
    took_s: float | None
    error: str | None


class Destination(BaseModel):
    """Where results go."""

    name: str
    kind: str
    where: str
    host: str | None
    port: int | None
    ae_title: str | None
    calling_ae: str | None
    paused: bool
    waiting: int
    failed: int
    last_echo: Echo | None


class Queue(BaseModel):
    """A queue: ``jobs``, or a destination. The last three are null while it is not paused."""

    name: str
    paused: bool
    reason: str | None = None
    actor: str | None = None
    since: datetime | None = None


class System(BaseModel):
    """How the node is."""

    ae_title: str
    version: str
    disk_free_bytes: int
    disk_total_bytes: int
    disk_reserve_bytes: int
    series_receiving: int
    jobs_scheduled: int
    jobs_running: int
    jobs_completed_24h: int
    jobs_failed_24h: int
    deliveries_unsent: int
    deliveries_failed: int
    oldest_scheduled_at: datetime | None
    oldest_unsent_at: datetime | None
    workers_alive: int
    deliverers_alive: int


class Rerun(BaseModel):
    """Which model to run."""

    model_config = ConfigDict(extra="forbid")

    model: Line


class Resend(BaseModel):
    """To which destination; empty means all."""

    model_config = ConfigDict(extra="forbid")

    destination: Line = ""


class Pause(BaseModel):
    """Why a queue is paused."""

    model_config = ConfigDict(extra="forbid")

    reason: Line = ""


class Scheduled(BaseModel):
    """The id of a new job."""

    job: str


class Canceled(BaseModel):
    """What was canceled: the job itself, and how many waiting deliveries of it."""

    job: str
    canceled: bool
    deliveries: int


class Resent(BaseModel):
    """The deliveries that go again."""

    job: str
    deliveries: list[str]
