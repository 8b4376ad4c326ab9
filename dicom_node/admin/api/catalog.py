"""Models, destinations, queues, and the node itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from fastapi import Request
from sqlalchemy import Connection

import dicom_node
from dicom_node.admin.api import shapes
from dicom_node.admin.api.version import version_router
from dicom_node.admin.desk import desk_of
from dicom_node.admin.pages.queue import DAY
from dicom_node.db import overview, story
from dicom_node.db.engine import utc_now
from dicom_node.db.pauses import echoes, paused
from dicom_node.db.profiles import read_profiles
from dicom_node.domain.delivery import Destination, DimseDestination
from dicom_node.domain.model import ModelCard
from dicom_node.domain.profile import Profile
from dicom_node.engine import JOBS, queue_of
from dicom_node.errors import NotFoundError

router = version_router()


@router.get("/models", tags=["models"])
def models(request: Request) -> list[shapes.Model]:
    """List the models."""
    desk = desk_of(request)
    with desk.reading() as tx:
        return [_model(tx, card) for card in desk.catalog.models.values()]


@router.get("/models/{name}", tags=["models"])
def model(request: Request, name: str) -> shapes.Model:
    """Read the card of one."""
    desk = desk_of(request)
    if name not in desk.catalog.models:
        raise NotFoundError("this node has no such model")
    with desk.reading() as tx:
        return _model(tx, desk.catalog.models[name])


@router.get("/destinations", tags=["destinations"])
def destinations(request: Request) -> list[shapes.Destination]:
    """List the destinations, with what waits for them."""
    desk = desk_of(request)
    with desk.reading() as tx:
        return _destinations(tx, desk.catalog.destinations.values())


@router.get("/destinations/{name}", tags=["destinations"])
def destination(request: Request, name: str) -> shapes.Destination:
    """Read one destination."""
    desk = desk_of(request)
    if name not in desk.catalog.destinations:
        raise NotFoundError("there is no such destination")
    with desk.reading() as tx:
        return _destinations(tx, [desk.catalog.destinations[name]])[0]


@router.get("/queues", tags=["queues"])
def queues(request: Request) -> list[shapes.Queue]:
    """List the queues."""
    desk = desk_of(request)
    with desk.reading() as tx:
        return [queue_as_it_is(tx, name) for name in (JOBS, *desk.catalog.destinations)]


@router.get("/system", tags=["system"])
def system(request: Request) -> shapes.System:
    """Say how the node is."""
    desk = desk_of(request)
    disk = shutil.disk_usage(desk.spool.root)
    with desk.reading() as tx:
        counts = overview.counts(tx, utc_now() - DAY)
        workers, deliverers = story.processes_alive(tx, "work"), story.processes_alive(tx, "deliver")
    return shapes.System(
        ae_title=str(desk.settings.node.ae_title),
        version=dicom_node.__version__,
        disk_free_bytes=disk.free,
        disk_total_bytes=disk.total,
        disk_reserve_bytes=desk.spool.reserve_mib * 1024 * 1024,
        series_receiving=counts.receiving,
        jobs_scheduled=counts.scheduled,
        jobs_running=counts.running,
        jobs_completed_24h=counts.completed,
        jobs_failed_24h=counts.failed,
        deliveries_unsent=counts.unsent,
        deliveries_failed=counts.undeliverable,
        oldest_scheduled_at=counts.oldest_scheduled,
        oldest_unsent_at=counts.oldest_unsent,
        workers_alive=workers,
        deliverers_alive=deliverers,
    )


def queue_as_it_is(tx: Connection, name: str) -> shapes.Queue:
    """Read how a queue stands."""
    row = paused(tx).get(name if name == JOBS else queue_of(name))
    if row is None:
        return shapes.Queue(name=name, paused=False)
    return shapes.Queue(name=name, paused=True, reason=row.reason, actor=row.actor, since=row.at)


def _destinations(tx: Connection, known: Iterable[Destination]) -> list[shapes.Destination]:
    held, answers, said, counted = paused(tx), echoes(tx), read_profiles(tx), overview.by_destination(tx, utc_now())
    found = []
    for one in known:
        echo, numbers, profile = answers.get(one.name), counted.get(one.name, {}), said.get(one.name)
        dimse = one if isinstance(one, DimseDestination) else None
        found.append(
            shapes.Destination(
                name=one.name,
                kind=one.kind,
                where=one.where,
                host=dimse and dimse.host,
                port=dimse and dimse.port,
                ae_title=dimse and str(dimse.ae_title),
                calling_ae=dimse and str(dimse.calling_ae),
                paused=queue_of(one.name) in held,
                waiting=numbers.get("waiting", 0) + numbers.get("sending", 0),
                failed=numbers.get("failed", 0),
                last_echo=shapes.Echo(at=echo.at, took_s=echo.took_s, error=echo.error) if echo else None,
                probed=_probed(profile) if profile else None,
            )
        )
    return found


def _probed(profile: Profile) -> shapes.Probed:
    return shapes.Probed(
        at=profile.probed_at,
        where=profile.where,
        echo_ms=list(profile.echo_ms),
        negotiated=profile.accepted is not None,
        takes=[offer.name for offer in profile.takes],
        does_not_take=[offer.name for offer in profile.leaves],
        verify=profile.verify,
    )


def _model(tx: Connection, card: ModelCard) -> shapes.Model:
    memory = overview.usual_memory(tx, card.name, card.digest)
    return shapes.Model(
        name=card.name,
        version=card.version,
        title=card.title,
        manufacturer=card.manufacturer,
        summary=card.summary,
        training=card.training,
        digest=card.digest,
        weights_digest=card.weights_digest,
        timeout_s=card.timeout_s,
        modality=list(card.accepts.modality),
        min_slices=card.accepts.min_slices,
        max_slice_spacing_mm=card.accepts.max_slice_spacing_mm,
        outputs=[kind.value for kind in card.outputs],
        structures=[
            shapes.Structure(
                output=segment.output,
                label=segment.label,
                type=segment.type.meaning,
                laterality=segment.laterality.meaning if segment.laterality else None,
                measurements=list(segment.measurements),
            )
            for segment in card.segments
        ],
        usual_s=overview.usual_s(tx, card.name),
        usual_memory_mib=memory.main_mib if memory else None,
        usual_gpu_memory_mib=memory.gpu_mib if memory else None,
    )
