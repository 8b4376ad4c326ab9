"""What a person may do: run a job again or with another model, cancel it, send its results again, ask studies back.

Each leaves an audit event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Connection, Row

from dicom_node.catalog import Catalog
from dicom_node.db import deliveries, interventions, pauses, retrievals, story
from dicom_node.db.inputs import read_inputs
from dicom_node.db.series import ClosedSeries, read_closed, reopen_series
from dicom_node.domain.model import ModelCard
from dicom_node.domain.night import Hours
from dicom_node.domain.retrieval import MOST_ITEMS, Kind, problem_of
from dicom_node.domain.study import Verdict, chosen
from dicom_node.engine import JOBS, Enqueuer, queue_of
from dicom_node.errors import ConfigurationError, ConflictError, NotFoundError, RequestError
from dicom_node.examination import examine_closed
from dicom_node.models.roles import roles_of
from dicom_node.settings import Settings
from dicom_node.spool import Spool

# How a destination of each kind can be asked for studies, the usual way first
WAYS = {"dimse": ("move", "get"), "stow": ("wado",)}


# By our id of a series: the series as it was examined, and what was found
Looked = Mapping[str, tuple[ClosedSeries, Verdict]]


def look(reading: Callable[[], AbstractContextManager[Connection]], job: str, spool: Spool) -> Looked:
    """Examine the series of a job anew, for `retry` and `rerun`.

    Files are read here, while no transaction is open: one that writes keeps every receiver of a SQLite from answering.

    Parameters
    ----------
    reading : callable
        Opens a transaction that only reads.
    job : str
        The job's id, or the first characters of it.

    Raises
    ------
    NotFoundError, ConflictError
        When there is no such job, or several.
    """
    with reading() as tx:
        there = [read_closed(tx, series_id) for series_id in interventions.series_of_job(tx, job)]
    return {series.id: (series, examine_closed(series, spool.path)) for series in there if series is not None}


def retry(
    tx: Connection,
    job: str,
    looked: Looked,
    catalog: Catalog,
    max_attempts: int,
    enqueuer: Enqueuer,
    *,
    actor: str = "operator",
) -> str:
    """Run an ended job again, with the model as the node has it now: its card chooses anew which volume it takes.

    Parameters
    ----------
    job : str
        The job's id, or the first characters of it.
    looked : Looked
        What `look` found just before.
    max_attempts : int
        Of the new run.

    Returns
    -------
    str
        The id of the new job: a new run has results with UIDs of their own.

    Raises
    ------
    NotFoundError, ConflictError
        When there is no such job, its state or its series forbids another run, or something came since `look`.
    ConfigurationError
        When the node no longer has the model.
    """
    row = interventions.find_job(tx, job)
    card = catalog.models.get(row.model)
    if card is None:
        known = ", ".join(sorted(catalog.models)) or "none"
        raise ConfigurationError(f"job {row.id} needs the model {row.model}, which this node no longer has ({known})")
    choose = _chooser(tx, card, looked)
    return interventions.run_again(tx, row, card.version, choose, max_attempts, enqueuer, actor=actor)


def route(tx: Connection, text: str, *, actor: str = "operator") -> list[str]:
    """Have the rules asked again about series without a job that could run, as they are when the assembler does it.

    Parameters
    ----------
    text : str
        Accession number, patient ID or UID, as `explain` takes them.

    Returns
    -------
    list of str
        The ids of the series.

    Raises
    ------
    NotFoundError, ConflictError
        When there is no such series, or none that is complete, here and without a job.
    """
    found = story.find_series(tx, text.strip()) if text.strip() else []
    if not found:
        raise NotFoundError(f"there is no series of {text!r} here")
    again = [series_id for series_id in found if reopen_series(tx, series_id, actor=actor)]
    if not again:
        raise ConflictError("every series of it has a job already (retry that), is still arriving, or is deleted")
    return again


def rerun(
    tx: Connection,
    job: str,
    model: str,
    looked: Looked,
    catalog: Catalog,
    max_attempts: int,
    enqueuer: Enqueuer,
    *,
    actor: str = "operator",
) -> str:
    """Run another model on the series of a job; the results go where those of the job go.

    Unlike `retry` it takes nothing back: what the job made, and what it still has to send, stays. Of several volumes in
    a series this model takes the one that its own card names.

    Returns
    -------
    str
        The id of the new job.

    Raises
    ------
    NotFoundError, ConflictError
        When there is no such job or model, the series forbids another run, the model takes other series, or something
        came since `look`.
    """
    row = interventions.find_job(tx, job)
    card = catalog.models.get(model)
    if card is None:
        known = ", ".join(sorted(catalog.models)) or "none"
        raise NotFoundError(f"this node has no model {model} ({known})")
    if model == row.model:
        raise ConflictError(f"job {row.id} is one of {model} already: retry it")
    _refuse_other_roles(tx, row, card)
    choose = _chooser(tx, card, looked)
    return interventions.run_other(tx, row, card.name, card.version, choose, max_attempts, enqueuer, actor=actor)


def _chooser(tx: Connection, card: ModelCard, looked: Looked) -> Callable[[str], Verdict]:
    """Give what says which slices of a series a model takes."""

    def choose(series_id: str) -> Verdict:
        series = read_closed(tx, series_id)
        if series is None:
            raise ConflictError(f"no image of series {series_id} is here any more")
        before, verdict = looked.get(series_id, (None, None))
        if before is None or verdict is None or not series.is_as(before):
            raise ConflictError(f"something of series {series_id} came while it was looked at; try again")
        return chosen(verdict, card.volume)

    return choose


def _refuse_other_roles(tx: Connection, job: Row[Any], card: ModelCard) -> None:
    """Refuse to give a model series that it has no place for, or fewer than it takes."""
    given, taken = [one.role for one in read_inputs(tx, job.id)], roles_of(card)
    if taken is None or {*given} == {*taken}:
        return
    works_on = f"works on several series ({', '.join(given)})" if given else "works on one series"
    takes = f"takes {', '.join(taken)}" if taken else "takes one"
    raise ConflictError(f"job {job.id} {works_on}, and {card.name} {takes}: a rule of its own has to choose them")


def cancel(tx: Connection, job: str, *, actor: str = "operator") -> tuple[str, bool, int]:
    """Cancel a job that has not ended, and deliveries of it that wait or have failed.

    Returns
    -------
    (str, bool, int)
        The job's full id, whether it was canceled itself, and how many deliveries were.

    Raises
    ------
    NotFoundError, ConflictError
        When there is no such job, or nothing of it to cancel.
    """
    row = interventions.find_job(tx, job)
    return row.id, *interventions.cancel_job(tx, row, actor=actor)


def resend(
    tx: Connection, job: str, enqueuer: Enqueuer, *, destination: str = "", actor: str = "operator"
) -> tuple[str, ...]:
    """Send the results of a job again, now, whatever became of them before.

    Returns
    -------
    tuple of str
        The ids of the deliveries that go.

    Raises
    ------
    NotFoundError, ConflictError
        When the job or a delivery of it does not exist, or all are being sent at this moment.
    """
    row = interventions.find_job(tx, job)
    wanted = interventions.delivery_ids(tx, row, destination)
    return deliveries.resend(tx, wanted, enqueuer, actor=actor)


def pause(tx: Connection, queue: str, catalog: Catalog, *, reason: str = "", actor: str = "operator") -> None:
    """Hold a queue: what runs goes on, and nothing more is handed out until `resume`, restarts included.

    Parameters
    ----------
    queue : str
        ``jobs``, or the name of a destination for what is sent to it.

    Raises
    ------
    NotFoundError, ConflictError
        When there is no such queue, or it is paused already.
    """
    pauses.pause(tx, queue_named(queue, catalog), reason, actor=actor)


def resume(tx: Connection, queue: str, catalog: Catalog, *, actor: str = "operator") -> None:
    """Let a queue go on.

    Raises
    ------
    NotFoundError, ConflictError
        When there is no such queue, or it is not paused.
    """
    pauses.resume(tx, queue_named(queue, catalog), actor=actor)


def queue_named(name: str, catalog: Catalog) -> str:
    """Find the engine's name of a queue that a person names.

    Raises
    ------
    NotFoundError
        When there is none.
    """
    if name == JOBS:
        return JOBS
    if name not in catalog.destinations:
        known = ", ".join((JOBS, *catalog.destinations))
        raise NotFoundError(f"there is no queue {name!r}; there is: {known}")
    return queue_of(name)


def retrieve(
    tx: Connection,
    settings: Settings,
    source: str,
    items: Sequence[tuple[Kind, str]],
    *,
    how: str = "",
    called: str = "",
    hours: str = "",
    per_minute: float | None = None,
    actor: str,
) -> tuple[str, list[str]]:
    """Have studies asked back from a destination that answers queries.

    Parameters
    ----------
    items : sequence of (Kind, str)
        Accession numbers or Study Instance UIDs; each counts once.
    how, called, hours : str
        By ``move``, ``get`` or ``wado``; to which of our AE titles; only at night, ``22:00-06:00``. Empty for what is
        usual.

    Returns
    -------
    (str, list of str)
        The id of the batch, and why nothing may come of it as things are.

    Raises
    ------
    NotFoundError
        When there is no such destination.
    RequestError
        When it cannot be asked like that, or a value is none.
    """
    section = settings.destinations.get(source)
    if section is None:
        known = ", ".join(settings.destinations) or "none"
        raise NotFoundError(f"{settings.file}: there is no [destinations.{source}]; there is: {known}")
    ways = WAYS.get(section.kind, ())
    if not ways or (how and how not in ways):
        raise RequestError(f"{source} is of kind {section.kind}: {' or '.join(ways) or 'it cannot be asked'}")
    titles = settings.receive.called_ae or (settings.node.ae_title,)
    if called and called not in titles:
        raise RequestError(f"{called} is no title of ours ({', '.join(titles)})")
    _check_items(items)
    try:
        hours = str(Hours.read(hours)) if hours else ""
    except ValueError as error:
        raise RequestError(str(error)) from None
    how = how or ways[0]
    batch = retrievals.add_batch(
        tx, source, how, items, called_ae=called or titles[0], hours=hours, per_minute=per_minute, actor=actor
    )
    return batch, _cautions(settings, source, how)


def _check_items(items: Sequence[tuple[Kind, str]]) -> None:
    problems = [problem for kind, value in items if (problem := problem_of(kind, value))]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise RequestError("; ".join(problems[:5]) + more)
    if not items:
        raise RequestError("name what to retrieve: accession numbers, or study UIDs")
    if len(items) > MOST_ITEMS:
        raise RequestError(f"{len(items)} studies are too many for one batch: at most {MOST_ITEMS}")


def _cautions(settings: Settings, source: str, how: str) -> list[str]:
    found = []
    ae_title = str(getattr(settings.destinations[source], "ae_title", ""))
    known = settings.receive.accept_any_peer or any(peer.ae_title == ae_title for peer in settings.receive.peers)
    if how == "move" and not known:
        found.append(f"{ae_title} is not in receive.peers: what it sends us is rejected")
    if not settings.retrieve.enabled:
        found.append("retrieve.enabled is false: `dicom-node fetch` has to run for it")
    return found
