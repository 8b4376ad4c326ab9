"""What a person may do: run a job again, cancel it, send its results again. Each leaves an audit event."""

from __future__ import annotations

from sqlalchemy import Connection

from dicom_node.catalog import Catalog
from dicom_node.db import deliveries, interventions
from dicom_node.engine import Enqueuer
from dicom_node.errors import ConfigurationError


def retry(
    tx: Connection, job: str, catalog: Catalog, max_attempts: int, enqueuer: Enqueuer, *, actor: str = "operator"
) -> str:
    """Run an ended job again, with the model as the node has it now.

    Parameters
    ----------
    job : str
        The job's id, or the first characters of it.
    max_attempts : int
        Of the new run.

    Returns
    -------
    str
        The id of the new job: a new run has results with UIDs of their own.

    Raises
    ------
    NotFoundError, ConflictError
        When there is no such job, or its state or its series forbids another run.
    ConfigurationError
        When the node no longer has the model.
    """
    row = interventions.find_job(tx, job)
    card = catalog.models.get(row.model)
    if card is None:
        known = ", ".join(sorted(catalog.models)) or "none"
        raise ConfigurationError(f"job {row.id} needs the model {row.model}, which this node no longer has ({known})")
    return interventions.run_again(tx, row, card.version, max_attempts, enqueuer, actor=actor)


def cancel(tx: Connection, job: str, *, actor: str = "operator") -> tuple[str, bool, int]:
    """Cancel a job that has not ended, and deliveries of it that wait.

    Returns
    -------
    (str, bool, int)
        The job's full id, whether it was canceled itself, and how many waiting deliveries were.

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
