"""One attempt at a job, top to bottom: the stored series, the model, what it found, the result objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from pydicom import Dataset

from ai.contract import BundleError, Images, ModelCancelled, ModelError, ModelInvalidOutput, Prediction
from ai.contract import Volume as Pixels
from ai.process import ModelProcess
from dicom_node.domain.delivery import ResultObject
from dicom_node.domain.eligibility import why_unfit
from dicom_node.domain.encoding import Encoding
from dicom_node.domain.finding import NotRun
from dicom_node.domain.header import texts
from dicom_node.domain.job import Canceled, Failed, Job, JobInstance, Outcome, RetryLater, Succeeded, Trace
from dicom_node.domain.model import ModelCard, OutputKind
from dicom_node.domain.outdated import Outdated
from dicom_node.domain.study import holds_single_images
from dicom_node.errors import ModelFailed, NodeError, NotEligible
from dicom_node.results import Equipment, build_rejections, build_results
from dicom_node.spool import Spool
from dicom_node.volume import Volume, load_volume
from dicom_node.work.findings import findings_from
from dicom_node.work.images import analyse_images
from dicom_node.work.maps import in_units
from dicom_node.work.registration import Start, refuse_other_roles
from dicom_node.work.scan import describe

# The names of the model's own steps, as a user reads them.
_MODEL_STEPS = {"load": "load model"}
_FINAL = (BundleError, ModelInvalidOutput)  # the same bytes would give the same answer


@dataclass(frozen=True, slots=True)
class WorkNode:
    """What an attempt needs of the node.

    `model_for` gives the warm model of a card, and raises a NodeError when its bundle is not what the node started
    with. `cancelled` says whether the answer is no longer wanted; it is asked while the model runs. `encodings` says
    how each destination wants segmentations, and `also` which kinds of objects they want beyond those of the card,
    `if_silent` which ones they want when nothing was found.
    `outdated` calls back what waits to be sent of earlier jobs, and tells what was sent; it is asked when the objects
    that take their place are there.
    """

    cards: dict[str, ModelCard]
    spool: Spool
    equipment: Equipment
    model_for: Callable[[ModelCard], ModelProcess]
    cancelled: Callable[[], bool]
    encodings: Mapping[str, Encoding] = field(default_factory=dict)
    also: frozenset[OutputKind] = frozenset()
    if_silent: frozenset[OutputKind] = frozenset({OutputKind.SR})
    outdated: Callable[[], tuple[Outdated, ...]] = tuple
    out: Spool | None = None


def run_attempt(job: Job, node: WorkNode) -> Outcome:
    """Run one attempt of `job`. The worker records the outcome; nothing here writes a row."""
    steps_s: dict[str, float] = {}
    prediction: Prediction | None = None
    try:
        card = _card(job, node)
        _refuse_other_modality(job, card)
        if holds_single_images(instance.header for instance in job.instances):
            results, header, prediction = analyse_images(job, card, node, steps_s)
            return _with_rejections(job, card, node, results, header, _trace(steps_s, prediction))
        started = monotonic()
        volume = load_volume(node.spool, job.instances, card.volume)
        steps_s["read"] = monotonic() - started
        unfit = _unfit_parts(volume, card)
        images, start = _images(job, card, volume, node)
        model = node.model_for(card)
        asked: dict[str, Any] = {"timeout_s": card.timeout_s, "without": tuple(unfit), "cancelled": node.cancelled}
        prediction = in_units(model.predict(images, **asked), card)
        steps_s |= _named(prediction.steps_s)
        started = monotonic()
        findings = findings_from(
            prediction, card, volume, job.id, series_id=job.series_id, not_run=unfit, tracked=job.tracked, start=start
        )
        prediction = start.taken_back(prediction) if start else prediction
        if job.note:
            findings = replace(findings, not_run=(NotRun("Series", job.note, "not whole"), *findings.not_run))
        steps_s["measure"] = monotonic() - started
        encodings = {node.encodings[name] for name in job.destinations if name in node.encodings}
        wanted = (encodings, node.also, node.if_silent)
        out = node.out or node.spool
        results = build_results(job, card, volume, findings, prediction, node.equipment, out, steps_s, *wanted)
        return _with_rejections(job, card, node, results, volume.datasets[0], _trace(steps_s, prediction))
    except ModelCancelled:
        return Canceled()
    except ModelError as error:
        failed = ModelFailed(str(error), retry=not isinstance(error, _FINAL))
        steps_s |= _named(error.steps_s)
        return _failed(job, failed, replace(_trace(steps_s, prediction), printed=error.printed))
    except NodeError as error:  # each class says whether a retry can help
        return _failed(job, error, _trace(steps_s, prediction))


def _with_rejections(
    job: Job,
    card: ModelCard,
    node: WorkNode,
    results: tuple[ResultObject, ...],
    header: Dataset,
    trace: Trace,
) -> Succeeded:
    """Add what rejects the results that these take the place of."""
    outdated = node.outdated()
    said = results[0].summary if results else {}
    results += build_rejections(job, card, header, node.equipment, outdated, node.out or node.spool, said)
    return Succeeded(results, trace, outdated)


def _card(job: Job, node: WorkNode) -> ModelCard:
    card = node.cards.get(job.model)
    if card is None:
        raise ModelFailed(f"This node has no model {job.model}.", retry=False)
    if card.version != job.model_version:
        reason = f"The job asks for {job.model} {job.model_version}; this node has version {card.version}."
        raise ModelFailed(reason, retry=False)
    return card


def _refuse_other_modality(job: Job, card: ModelCard) -> None:
    """Refuse what is not even of the right kind, before a voxel is read."""
    modality = str(job.instances[0].header.get("Modality", ""))
    if modality not in card.accepts.modality:
        wanted = " or ".join(card.accepts.modality)
        raise NotEligible(f"{card.name} is made for {wanted}; the series is {modality or 'of no modality'}.")


def _unfit_parts(volume: Volume, card: ModelCard) -> dict[str, str]:
    """Say which parts of the model are not to be run on this volume, and why.

    Raises
    ------
    NotEligible
        If that is all of them, or the whole model was not made for such a volume.
    """
    scan = describe(volume)
    if reason := why_unfit(card.accepts, scan):
        raise NotEligible(f"{card.name} was not run: {reason}.")
    reasons = {detection.output: why_unfit(detection.accepts, scan) for detection in card.detections}
    unfit = {output: reason for output, reason in reasons.items() if reason}
    if unfit and not card.segments and len(unfit) == len(card.detections):
        raise NotEligible(f"{card.name} was not run: {'; '.join(dict.fromkeys(unfit.values()))}.")
    return unfit


def _images(job: Job, card: ModelCard, volume: Volume, node: WorkNode) -> tuple[Images, Start | None]:
    """The volume of the job; or those of all its series, by what they are to the model, and how they were laid.

    Raises
    ------
    NotEligible
        If they are not of one patient, or not in one frame of reference: where one lies in the other is then not known,
        and a model that does not register them cannot find it.
    """
    refuse_other_roles(job, card)
    if not job.inputs:
        return _pixels(job.instances, volume), None
    if len({texts(one.instances[0].header, "PatientID") for one in job.inputs}) > 1:
        raise NotEligible("The series name different patients, although they are of one study.")
    images: dict[str, Pixels] = {job.inputs[0].role: _pixels(job.instances, volume)}
    start: Start | None = None
    for one in job.inputs[1:]:
        other = load_volume(node.spool, one.instances, card.volume)
        if card.registration is not None:
            start = Start.of(volume, other)
            images[one.role] = start.laid(_pixels(one.instances, other))
            continue
        if _frame(other) != _frame(volume):
            first = job.inputs[0].role
            raise NotEligible(f"{one.role} is not in the frame of reference of {first}: they cannot be laid together.")
        images[one.role] = _pixels(one.instances, other)
    return images, start


def _pixels(instances: Sequence[JobInstance], volume: Volume) -> Pixels:
    return Pixels(volume.array, volume.affine, str(instances[0].header["Modality"]))


def _frame(volume: Volume) -> str:
    return str(volume.datasets[0].get("FrameOfReferenceUID", ""))


def _named(steps_s: Mapping[str, float]) -> dict[str, float]:
    return {_MODEL_STEPS.get(step, step): seconds for step, seconds in steps_s.items()}


def _trace(steps_s: Mapping[str, float], prediction: Prediction | None) -> Trace:
    if prediction is None:
        return Trace(dict(steps_s))
    memory = prediction.memory_mib or None, prediction.gpu_memory_mib or None
    return Trace(dict(steps_s), *memory, prediction.printed)


def _failed(job: Job, error: NodeError, trace: Trace) -> Outcome:
    return RetryLater(error, trace) if error.retry and job.may_retry else Failed(error, trace)
