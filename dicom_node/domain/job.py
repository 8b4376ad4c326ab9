"""Jobs, attempts and what an attempt can return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any

from dicom_node.domain.finding import Tracked

if TYPE_CHECKING:
    from dicom_node.domain.delivery import ResultObject
    from dicom_node.domain.outdated import Outdated
    from dicom_node.errors import NodeError


class JobState(StrEnum):
    """States of a Unified Procedure Step (PS3.4 CC.1.1), plus `failed`."""

    SCHEDULED = "scheduled"
    IN_PROGRESS = "in progress"
    COMPLETED = "completed"
    CANCELED = "canceled"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens to the job by itself."""
        return self not in (JobState.SCHEDULED, JobState.IN_PROGRESS)


class Failure(StrEnum):
    """Whose fault it is that a job failed, as a reader of its report sees it."""

    NOT_ELIGIBLE = "not eligible"  # the images: they are no volume, or none that the model was made for; none ran
    FAILED = "failed"  # the node or the model; the images may be faultless


class ReportState(StrEnum):
    """Where the report of a failed job stands. There is none for a job that did not fail or has nobody to tell."""

    DUE = "due"
    MADE = "made"
    CANCELED = "canceled"
    FAILED = "failed"


class Priority(IntEnum):
    """Lower runs first. The names are those of Requested Procedure Priority (0040,1003)."""

    STAT = 1
    HIGH = 5
    ROUTINE = 10
    LOW = 20


@dataclass(frozen=True, slots=True)
class JobInstance:
    """One instance that a job works on: where its bytes are and what they must hash to."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    digest: str
    header: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobInput:
    """One of several series that a job works on.

    `role` is what the series is to the model: the name of the channel that it fills. `slices` says how many slices it
    had when the job was made; `instances` are those of them that are still stored, in order.
    """

    role: str
    series_id: str
    study_instance_uid: str
    series_instance_uid: str
    series_revision: int
    slices: int
    instances: tuple[JobInstance, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Document:
    """An object that somebody was sent, in the study of the job: its kind (`OutputKind`) and its UIDs."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True)
class Job:
    """One model on one complete revision of one series, as an attempt sees it.

    `instances` are the slices of the volume in the order that domain/study.py found: ascending along the normal.
    `attempt` counts from 1 and is the token without which nothing about the job can be written. `predecessors` are the
    reports of the job whose place this one takes, as far as anybody was sent them; `tracked` is
    what it and those before it detected. `inputs` are the series of a job
    that works on several; the first of them is the one that the job names, whose slices are `instances`, and that its
    results lie on. `note` is what their reader has to know of what they were made from: that it is not whole.
    """

    id: str
    series_id: str
    study_instance_uid: str
    series_instance_uid: str
    series_revision: int
    model: str
    model_version: str
    rule: str
    destinations: tuple[str, ...]
    priority: int
    attempt: int
    max_attempts: int
    created_at: datetime
    instances: tuple[JobInstance, ...] = field(repr=False)
    predecessors: tuple[Document, ...] = ()
    tracked: tuple[Tracked, ...] = ()
    inputs: tuple[JobInput, ...] = ()
    note: str = ""

    @property
    def may_retry(self) -> bool:
        """Whether another attempt is left after this one."""
        return self.attempt < self.max_attempts


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job that failed for good, as the one who reports it sees it.

    `job.destinations` are those that want to be told, `job.instances` everything that was received of the series, by
    instance number, as are those of each of `job.inputs`, and `job.attempt` how often a model was tried. `tried` counts
    the attempts at the report from 1; it is the token without which nothing about the report can be written.
    """

    job: Job
    failure: Failure
    reason: str
    tried: int


@dataclass(frozen=True, slots=True)
class Trace:
    """What an attempt leaves beside its outcome.

    Attributes
    ----------
    steps_s : mapping of str to float
        Seconds spent in each step, in order; those of a failed attempt as far as it came.
    memory_mib, gpu_memory_mib : int, optional
        The most that its model has held of main memory and of the GPU's.
    printed : str
        The last that its model printed.
    """

    steps_s: Mapping[str, float] = field(default_factory=dict)
    memory_mib: int | None = None
    gpu_memory_mib: int | None = None
    printed: str = ""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The attempt made result objects; their bytes are synced, their rows not yet written.

    `outdated` is what destinations held of earlier jobs when the objects were made.
    """

    results: tuple[ResultObject, ...]
    trace: Trace = field(default_factory=Trace)
    outdated: tuple[Outdated, ...] = ()


@dataclass(frozen=True, slots=True)
class RetryLater:
    """The attempt failed in a way that may pass."""

    error: NodeError
    trace: Trace = field(default_factory=Trace)


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed and another one would, too."""

    error: NodeError
    trace: Trace = field(default_factory=Trace)


@dataclass(frozen=True, slots=True)
class Canceled:
    """An operator or a newer revision took the job away while it ran."""


Outcome = Succeeded | RetryLater | Failed | Canceled


def retry_delay_s(attempt: int, *, first_s: float, longest_s: float) -> float:
    """Wait before the next try: doubling from `first_s`, never above `longest_s` (attempt counts from 1)."""
    return min(longest_s, first_s * 2.0 ** min(attempt - 1, 30))
