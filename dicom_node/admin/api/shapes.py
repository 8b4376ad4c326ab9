"""What the API gives and takes, as its OpenAPI document describes it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from dicom_node.admin.trial import LONGEST_REPLAY, LONGEST_RULE
from dicom_node.domain.retrieval import MOST_ITEMS

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
    """An object that a job made; `deleted_at` says when retention took its file."""

    kind: str
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    size: int
    summary: dict[str, Any]
    deleted_at: datetime | None


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


class InputOfJob(_Shape):
    """One of the series of a job that works on several: what it is to the model."""

    role: str
    series_id: str
    series_instance_uid: str
    series_description: str
    series_revision: int


class Progress(_Shape):
    """How far a running job is, estimated; `share` and `left_s` are null where the model has no history."""

    ran_s: float
    share: float | None
    left_s: float | None


class Job(_Shape):
    """One model on one complete series; or on several of a study, the first of which is the one that it names."""

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
    inputs: list[InputOfJob]
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
    """The card of a model; `usual_s` is its usual time here, null without history, as what memory it has held."""

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
    usual_memory_mib: int | None
    usual_gpu_memory_mib: int | None


class RuleInput(BaseModel):
    """One of the series that a rule wants of a study: `conditions` beside those of the rule, and what is preferred."""

    role: str
    conditions: list[str]
    prefer: list[str]


class Rule(BaseModel):
    """A rule; `conditions` in words. What a shadow makes is kept and never sent.

    `inputs` are the series that it wants of a study, and `wait_s` how long it waits for them; empty and null of a rule
    that is asked about one series.
    """

    name: str
    enabled: bool
    shadow: bool
    model: str
    destinations: list[str]
    priority: str
    report_failures: bool
    conditions: list[str]
    inputs: list[RuleInput]
    wait_s: float | None


class RuleText(BaseModel):
    """A rule as its file has it (docs/rules.md), TOML."""

    model_config = ConfigDict(extra="forbid")

    rule: Annotated[str, StringConstraints(max_length=LONGEST_RULE)]


class AskedSeries(BaseModel):
    """Which series rules are asked about, by any name of it; and the rule, where it is not those of the node."""

    model_config = ConfigDict(extra="forbid")

    series: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    rule: Annotated[str, StringConstraints(max_length=LONGEST_RULE)] = ""


class ReplayRule(RuleText):
    """A changed rule, and over how many days it is replayed. The rule of the same name is what it is compared with."""

    days: Annotated[int, Field(ge=1, le=LONGEST_REPLAY)] = 7


class Reason(_Shape):
    """What one condition came to. `found` says what the series has, unless that may name a person."""

    condition: str
    held: bool
    found: str
    role: str = ""


class Match(_Shape):
    """What one rule said, with the reason of every condition. `roles`: those of a study's rule that the series fits."""

    rule: str
    matched: bool
    roles: list[str]
    reasons: list[Reason]


class Tested(BaseModel):
    """What rules say of a series, or of a file; nothing came of it. The first three are null for a file."""

    series_id: str | None = None
    series_instance_uid: str | None = None
    accession_number: str | None = None
    matches: list[Match]


class ReplayedSeries(BaseModel):
    """One series of a replay: whether the rule matches it as written, and as it is now."""

    series_id: str
    series_instance_uid: str
    accession_number: str
    closed_at: datetime
    matched: bool
    matched_before: bool
    reasons: list[Reason]


class Replay(BaseModel):
    """What a changed rule would have done with the series of the last days.

    `gained` and `lost` are against the rule of that name as it is. `new_jobs` of the `matched` have no job of the model
    yet; of a rule that wants several series, `studies` says how many studies fill all its roles, and `new_jobs` counts
    these (null of another rule). `model_s` is how long the model would have computed for all of them, by the median of
    its last `history` runs, and `model_s_per_day` that of one day; null without any. `truncated`: there were more
    series than were looked at. `series`: at most 50, those first about which the two disagree.
    """

    days: int
    looked_at: int
    matched: int
    studies: int | None
    gained: int
    lost: int
    new_jobs: int
    model_s: float | None
    model_s_per_day: float | None
    history: int
    truncated: bool
    series: list[ReplayedSeries]


class Echo(BaseModel):
    """What a destination answered when it was last asked: seconds, or an error."""

    at: datetime
    took_s: float | None
    error: str | None


class Probed(BaseModel):
    """What a destination said when it was probed: names of objects that it takes or not, and the most it can prove."""

    at: datetime
    where: str
    echo_ms: list[float]
    negotiated: bool
    takes: list[str]
    does_not_take: list[str]
    verify: str


class Destination(BaseModel):
    """Where results go. `probed` is null until ``dicom-node probe`` has asked it."""

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
    probed: Probed | None


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


class Routed(BaseModel):
    """The ids of the series that the rules are asked about again."""

    series: list[str]


class Resent(BaseModel):
    """The deliveries that go again."""

    job: str
    deliveries: list[str]


class Retrieval(_Shape):
    """A batch of studies that are asked back from an archive. `items`: how many are in each state, and instances."""

    id: str
    source: str
    how: Literal["move", "get", "wado"]
    called_ae: str
    hours: str
    per_minute: float | None
    state: Literal["running", "paused", "canceled", "done"]
    actor: str
    created_at: datetime
    finished_at: datetime | None
    items: dict[str, int]


class RetrievalItem(_Shape):
    """One study of it, by what it was asked for."""

    kind: str
    value: str
    state: Literal["waiting", "done", "failed", "canceled"]
    attempt: int
    studies: int
    instances: int
    reason: str
    updated_at: datetime


class RetrievalWithItems(Retrieval):
    """A batch, and what became of each item."""

    listed: list[RetrievalItem]


class NewRetrieval(BaseModel):
    """What to ask for, and how; what is left out is as usual."""

    model_config = ConfigDict(extra="forbid")

    source: Line
    accessions: Annotated[list[Line], Field(max_length=MOST_ITEMS)] = []
    studies: Annotated[list[Line], Field(max_length=MOST_ITEMS)] = []
    how: Literal["", "move", "get", "wado"] = ""
    called_ae: Line = ""
    hours: Line = ""
    per_minute: Annotated[float | None, Field(gt=0)] = None


class StartedRetrieval(BaseModel):
    """The id of a new batch, and why nothing may come of it as things are."""

    retrieval: str
    cautions: list[str]
