"""The working process: one job at a time, one warm model in a child process that can be killed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from itertools import count
from threading import Event
from time import monotonic

from sqlalchemy import Connection, Engine

from ai.process import ModelProcess
from dicom_node.card import model_digest
from dicom_node.catalog import Catalog
from dicom_node.db.engine import commit, is_away, reading
from dicom_node.db.jobs import (
    JobQueue,
    attempt_is_current,
    claim_job,
    close_attempt,
    finish_completed,
    finish_failed,
    finish_interrupted,
    finish_retry,
)
from dicom_node.db.overview import usual_memory
from dicom_node.db.profiles import read_profile
from dicom_node.db.reports import claim_report, finish_reported, finish_unreported
from dicom_node.db.superseded import call_back, held_of_earlier
from dicom_node.domain.choice import REPORT_FORMS, Choice, choose, report_form
from dicom_node.domain.delivery import DimseDestination, ResultObject
from dicom_node.domain.job import (
    Canceled,
    Failed,
    FailedJob,
    Failure,
    Job,
    Outcome,
    RetryLater,
    Succeeded,
    retry_delay_s,
)
from dicom_node.domain.model import ModelCard, OutputKind
from dicom_node.domain.outdated import Outdated, grouped, why_left
from dicom_node.engine import DRAIN_S, JOBS, Executor
from dicom_node.errors import GeometryError, ModelFailed, NodeError, NotEligible
from dicom_node.results import equipment_of
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.work.attempt import WorkNode, run_attempt
from dicom_node.work.process import process_of
from dicom_node.work.report import write_report
from dicom_node.work.warm import WarmModels

_UNFIT = (NotEligible, GeometryError)  # the images are at fault, and no model ran

logger = logging.getLogger(__name__)


class Worker:
    """Claims jobs, runs attempts, records how they ended.

    Parameters
    ----------
    slot : int
        Which of the working processes of this machine it is.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        engine: Engine,
        enqueuer: JobQueue,
        spool: Spool,
        slot: int = 0,
    ) -> None:
        self._settings = settings
        self._cards = dict(catalog.models)
        self._destinations = dict(catalog.destinations)
        self._encodings = {name: destination.seg for name, destination in catalog.destinations.items()}
        self._engine = engine
        self._enqueuer = enqueuer
        self._spool = spool
        self._slot = slot
        self._stop = Event()
        self._models = WarmModels(
            lambda card: process_of(card, settings.work), settings.work.warm_mib, self._expected_mib
        )

    def run(self, stop: Event) -> None:
        """Serve the queue of jobs until `stop`. A job that takes longer than a short grace is then given back."""
        self._stop = stop
        executor = Executor(
            self._settings,
            self._engine,
            role="work",
            slot=self._slot,
            queues={JOBS: 1},
            on_job=self.work_on,
            on_report=self.report_on,
            before_exit=self.close,
        )
        try:
            executor.run(stop)
        finally:
            self.close()

    def work_on(self, job_id: str, executor_id: str) -> None:
        """Make one attempt at a job, if it can be claimed, and record how it ended."""
        job = self._claim(job_id, executor_id)
        if job is None:
            logger.info("job %s: nothing to do", job_id)
            return
        logger.info(
            "job %s: attempt %d of %d, series %s", job.id, job.attempt, job.max_attempts, job.series_instance_uid
        )
        choices = commit(self._engine, lambda tx: self._choices(tx, job))
        outcome = self._attempt(job, choices)
        if not commit(self._engine, lambda tx: self._record(tx, job, outcome, choices)):
            logger.warning("job %s: attempt %d was canceled or taken over; its outcome is dropped", job.id, job.attempt)
        elif isinstance(outcome, Succeeded):
            logger.info("job %s: completed, %d objects made", job.id, len(outcome.results))

    def report_on(self, job_id: str, executor_id: str) -> None:
        """Tell those who waited for a failed job that there is no result, and why. No model is needed for it."""
        failed = commit(self._engine, lambda tx: claim_report(tx, job_id))
        if failed is None:
            logger.info("job %s: nothing to report", job_id)
            return
        logger.info("job %s: reporting that it is %s, try %d", job_id, failed.failure.value, failed.tried)
        forms, spare = commit(self._engine, lambda tx: self._forms(tx, failed.job))
        made = self._report(failed, {*forms.values(), *spare})
        if not commit(self._engine, lambda tx: self._record_report(tx, failed, made, forms)):
            logger.warning("job %s: its report is no longer wanted, or another worker made it", job_id)

    def close(self) -> None:
        """Kill the processes of models, if there are any."""
        self._models.close()

    def _claim(self, job_id: str, executor_id: str) -> Job | None:
        calls = count()
        return commit(self._engine, lambda tx: self._claim_job(tx, job_id, executor_id, next(calls) > 0))

    def _claim_job(self, tx: Connection, job_id: str, executor_id: str, again: bool) -> Job | None:
        digests = {name: card.digest for name, card in self._cards.items()}
        return claim_job(tx, job_id, executor_id, digests, self._enqueuer, again=again)

    def _choices(self, tx: Connection, job: Job) -> dict[str, Choice]:
        """Choose what each destination gets, as its settings or its profile say."""
        card = self._cards.get(job.model)
        known = [self._destinations[name] for name in job.destinations if name in self._destinations]
        return {to.name: choose(to, card.outputs, read_profile(tx, to.name)) for to in known} if card else {}

    def _outdated(self, tx: Connection, job: Job) -> tuple[Outdated, ...]:
        """Call back what waits to be sent of earlier jobs; tell what destinations hold of them."""
        call_back(tx, job.id)
        held = {to: some for to, some in held_of_earlier(tx, job.id, job.destinations).items() if some}
        return grouped(held, {to: why_left(self._destinations.get(to), read_profile(tx, to)) for to in held})

    def _attempt(self, job: Job, choices: Mapping[str, Choice]) -> Outcome:
        wanted = _Wanted(self._engine, job, self._stop)
        node = WorkNode(
            self._cards,
            self._spool,
            equipment_of(self._settings.node),
            self._model_for,
            wanted.no_longer,
            self._encodings,
            frozenset(kind for choice in choices.values() for kind in choice.kinds),
            frozenset(choice.otherwise for choice in choices.values()),
            lambda: commit(self._engine, lambda tx: self._outdated(tx, job)),
        )
        try:
            outcome = run_attempt(job, node)
        except Exception as error:  # what nobody foresaw costs this attempt, never the worker
            logger.exception("job %s: attempt %d failed unexpectedly", job.id, job.attempt)
            unforeseen = NodeError(f"Unexpected {type(error).__name__}; the log has the details.")
            return RetryLater(unforeseen) if job.may_retry else Failed(unforeseen)
        self._learn(job, outcome)
        if isinstance(outcome, RetryLater | Failed):
            logger.warning("job %s: attempt %d failed: %s", job.id, job.attempt, outcome.error)
        return outcome

    def _learn(self, job: Job, outcome: Outcome) -> None:
        """Remember what the model has held."""
        card = self._cards.get(job.model)
        if card is None or isinstance(outcome, Canceled):
            return
        if memory_mib := outcome.trace.gpu_memory_mib or outcome.trace.memory_mib:
            self._models.held(card, memory_mib)

    def _expected_mib(self, card: ModelCard) -> int | None:
        usual = commit(self._engine, lambda tx: usual_memory(tx, card.name, card.digest))
        return (usual.gpu_mib or usual.main_mib) if usual is not None else None

    def _record(self, tx: Connection, job: Job, outcome: Outcome, choices: Mapping[str, Choice]) -> bool:
        match outcome:
            case Succeeded():
                return finish_completed(tx, job, outcome, self._enqueuer, choices, self._encodings)
            case RetryLater(error, trace):
                work = self._settings.work
                delay_s = retry_delay_s(job.attempt, first_s=work.retry_first_s, longest_s=work.retry_longest_s)
                return finish_retry(tx, job, str(error), delay_s, self._enqueuer, trace)
            case Failed(error, trace):
                failure = Failure.NOT_ELIGIBLE if isinstance(error, _UNFIT) else Failure.FAILED
                return finish_failed(tx, job, str(error), failure, self._enqueuer, trace)
            case Canceled():
                if attempt_is_current(tx, job):  # nobody took it away: it is we who stop
                    return finish_interrupted(tx, job, self._enqueuer)
                close_attempt(tx, job, "canceled")
                return True

    def _forms(self, tx: Connection, job: Job) -> tuple[dict[str, OutputKind], set[OutputKind]]:
        """Choose how each destination is told that there is no result; and the forms that may have to stand in."""
        known = [self._destinations[name] for name in job.destinations if name in self._destinations]
        profiles = {to.name: read_profile(tx, to.name) for to in known}
        unasked = any(isinstance(to, DimseDestination) and profiles[to.name] is None for to in known)
        forms = {to.name: report_form(to, profiles[to.name]) for to in known}
        return forms, set(REPORT_FORMS) if unasked else set()

    def _report(self, failed: FailedJob, forms: Collection[OutputKind]) -> tuple[ResultObject, ...] | NodeError:
        try:
            return write_report(failed, self._cards, equipment_of(self._settings.node), self._spool, forms)
        except NodeError as error:
            logger.warning("job %s: its failure cannot be reported: %s", failed.job.id, error)
            return error
        except Exception as error:  # what nobody foresaw costs this report, never the worker
            logger.exception("job %s: its failure cannot be reported", failed.job.id)
            unforeseen = NodeError(f"Unexpected {type(error).__name__}; the log has the details.")
            unforeseen.retry = True  # a full disk is among them
            return unforeseen

    def _record_report(
        self,
        tx: Connection,
        failed: FailedJob,
        made: tuple[ResultObject, ...] | NodeError,
        forms: Mapping[str, OutputKind],
    ) -> bool:
        if isinstance(made, NodeError):
            return finish_unreported(tx, failed, str(made), self._enqueuer, retry=made.retry)
        return finish_reported(tx, failed, made, self._enqueuer, forms)

    def _model_for(self, card: ModelCard) -> ModelProcess:
        """Give the warm model of a card; others make room for it first.

        Raises
        ------
        ModelFailed
            If the bundle on disk is no longer the one that the node checked when it started.
        """
        process = self._models.process_for(card)
        if process.pid is None:  # about to be read from disk
            _refuse_changed(card)
        return process


class _Wanted:
    """Whether anybody still wants the outcome of an attempt; asks the database at most once a second."""

    def __init__(self, engine: Engine, job: Job, stop: Event) -> None:
        self._engine, self._job, self._stop = engine, job, stop
        self._asked_at = monotonic()
        self._stopped_at: float | None = None

    def no_longer(self) -> bool:
        now = monotonic()
        if self._stop.is_set():
            self._stopped_at = self._stopped_at or now
            if now - self._stopped_at >= DRAIN_S:
                return True
        if now - self._asked_at < 1.0:
            return False
        self._asked_at = now
        try:
            with reading(self._engine) as tx:
                return not attempt_is_current(tx, self._job)
        except Exception as error:
            if not is_away(error):
                raise
            return False  # the database is away: go on, and let the ending find out


def _refuse_changed(card: ModelCard) -> None:
    try:
        digest = model_digest(card.bundle)
    except OSError as error:
        raise ModelFailed(f"The bundle of {card.name} cannot be read: {error.strerror}.") from error
    if digest != card.digest:
        reason = f"The bundle of {card.name} was changed on disk after the node had checked it; restart the node."
        raise ModelFailed(reason, retry=False)
