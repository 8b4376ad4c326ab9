"""The only wiring: settings become objects, objects become running roles."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

from sqlalchemy import Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.catalog import Catalog, load_catalog
from dicom_node.db import migrate
from dicom_node.db.engine import open_engine
from dicom_node.domain.delivery import Destination
from dicom_node.errors import ConfigurationError
from dicom_node.settings import Settings
from dicom_node.spool import Spool

DATABASE_RETRY_S = 2.0
_log = logging.getLogger(__name__)


def serve(settings: Settings, stop: threading.Event) -> None:
    """Migrate, check the catalog, then run every role under one supervisor until `stop`.

    Raises
    ------
    ConfigurationError
        Before anything starts, with every problem found in settings, rules, models and destinations.
    """
    from dicom_node.supervise import Supervisor

    load_catalog(settings)
    spool = open_spool(settings)
    spool.prepare()
    upgrade_database(settings)
    Supervisor(settings).run(stop)


def run_role(settings: Settings, role: str, slot: int, stop: threading.Event, shared: Sequence[int] = ()) -> None:
    """Run one role until `stop`.

    Parameters
    ----------
    role : str
        One of ``receive``, ``watch``, ``assemble``, ``work``, ``deliver``, ``fetch``, ``maintain``, ``web``.
    slot : int
        Which of several processes of this role on this machine; a restarted process keeps its slot.
    shared : sequence of int
        Descriptors of what receivers share (`receive.shared.Shared`); empty for one that is on its own.
    """
    run = partial(_receive, shared=shared) if role == "receive" else _ROLES[role]
    engine = open_engine(settings.database.url)
    spool = open_spool(settings)
    spool.prepare()
    _await_database(engine, settings, stop, wait=role != "receive")
    try:
        if not stop.is_set():
            _log.info("%s runs", role)
            run(settings, engine, spool, slot, stop)
    finally:
        engine.dispose()
        _log.info("%s stopped", role)


def open_spool(settings: Settings) -> Spool:
    """Open the spool of these settings."""
    return Spool(settings.spool.path, settings.spool.reserve_mib)


def check_catalog(settings: Settings) -> tuple[Catalog | None, list[str]]:
    """Load the catalog, or say everything that is wrong with it."""
    try:
        return load_catalog(settings), []
    except ConfigurationError as error:
        return None, list(error.problems)


def check_traces(settings: Settings) -> None:
    """Refuse settings that want traces where the packages for them are not installed.

    Raises
    ------
    ConfigurationError
        With what to install.
    """
    if not settings.trace.endpoint:
        return
    try:
        is_there = find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # of a package above it
        is_there = False
    if not is_there:
        told = "it needs packages that are not installed: pip install -e '.[otel]' in its folder"
        raise ConfigurationError(f"{settings.file}: trace.endpoint: {told}")


def database_state(settings: Settings) -> str:
    """Say in a few words how the database stands; nothing is created.

    Raises
    ------
    ConfigurationError
        When its tables are those of another version.
    sqlalchemy.exc.SQLAlchemyError
        When it does not answer.
    """
    url = make_url(settings.database.url)
    shown = url.render_as_string(hide_password=True)
    fresh = f"{shown}, new: `serve` or `db upgrade` makes the tables"
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
        return fresh
    engine = open_engine(settings.database.url, pool_size=1)
    try:
        if migrate.current(engine) is None:
            return fresh
        migrate.check_database(engine, settings)
        return f"{shown}, version {migrate.head()}"
    finally:
        engine.dispose()


def upgrade_database(settings: Settings) -> None:
    """Bring our tables and those of the job engine to this program's version."""
    from dicom_node import engine

    migrate.upgrade(settings.database.url)
    engine.migrate(settings.database.url)


def stop_on_signals(*, supervised: bool = False) -> threading.Event:
    """Return an event that SIGTERM and SIGINT set; a second one ends the process at once.

    Parameters
    ----------
    supervised : bool
        Leave SIGINT to the supervisor: Ctrl-C in a terminal reaches all processes at once, and that SIGTERM which the
        supervisor then sends would be a second signal.
    """
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, (lambda *_: None) if supervised else handle)
    return stop


def _receive(
    settings: Settings, engine: Engine, spool: Spool, slot: int, stop: threading.Event, shared: Sequence[int] = ()
) -> None:
    from dicom_node.receive.scp import Receiver
    from dicom_node.receive.shared import Shared

    Receiver(settings, spool, engine, Shared.inherited(shared) if shared else None, slot).run(stop)


def _watch(settings: Settings, engine: Engine, spool: Spool, slot: int, stop: threading.Event) -> None:
    from dicom_node.watch import Watcher

    Watcher(settings, engine, spool).run(stop)


def _assemble(settings: Settings, engine: Engine, spool: Spool, slot: int, stop: threading.Event) -> None:
    from dicom_node.assemble import Assembler
    from dicom_node.engine import Enqueuer

    enqueuer = Enqueuer(engine)
    try:
        catalog = load_catalog(settings)
        Assembler(settings, catalog, engine, enqueuer, spool, counts=_counts(catalog)).run(stop)
    finally:
        enqueuer.close()


def _counts(catalog: Catalog) -> dict[str, Callable[[str, str], int]]:
    """Who can be asked how many instances a series has."""
    from dicom_node.deliver import SENDERS

    each = {name: (SENDERS[one.kind].count, one) for name, one in catalog.destinations.items()}
    return {name: partial(count, one) for name, (count, one) in each.items() if count is not None}


def _work(settings: Settings, engine: Engine, spool: Spool, slot: int, stop: threading.Event) -> None:
    from dicom_node.engine import Enqueuer
    from dicom_node.work.worker import Worker

    enqueuer = Enqueuer(engine)
    try:
        Worker(settings, load_catalog(settings), engine, enqueuer, spool, slot).run(stop)
    finally:
        enqueuer.close()


def _deliver(settings: Settings, engine: Engine, spool: Spool, slot: int, stop: threading.Event) -> None:
    from dicom_node.deliver.sender import Deliverer
    from dicom_node.engine import Enqueuer

    enqueuer = Enqueuer(engine)
    try:
        Deliverer(settings, load_catalog(settings), engine, enqueuer, spool, slot).run(stop)
    finally:
        enqueuer.close()


def _fetch(settings: Settings, engine: Engine, spool: Spool, slot: int, stop: threading.Event) -> None:
    from dicom_node.fetch.fetcher import Fetcher

    Fetcher(settings, engine, spool, slot).run(stop)


def _maintain(settings: Settings, engine: Engine, spool: Spool, slot: int, stop: threading.Event) -> None:
    from dicom_node.engine import Enqueuer
    from dicom_node.maintain import Maintainer

    check_traces(settings)
    enqueuer = Enqueuer(engine)
    try:
        Maintainer(settings, engine, enqueuer, spool, slot).run(stop)
    finally:
        enqueuer.close()


def _web(settings: Settings, engine: Engine, spool: Spool, slot: int, stop: threading.Event) -> None:
    from dicom_node.admin.desk import Desk
    from dicom_node.admin.server import serve_site
    from dicom_node.deliver import SENDERS
    from dicom_node.engine import Enqueuer
    from dicom_node.rulebook import Rulebook

    def ask(destination: Destination) -> float:
        return SENDERS[destination.kind].echo(destination)

    enqueuer = Enqueuer(engine)
    try:
        serve_site(Desk(settings, Rulebook(settings, load_catalog(settings)), engine, enqueuer, spool, ask), stop)
    finally:
        enqueuer.close()


_ROLES: dict[str, Callable[[Settings, Engine, Spool, int, threading.Event], None]] = {
    "receive": _receive,
    "watch": _watch,
    "assemble": _assemble,
    "work": _work,
    "deliver": _deliver,
    "fetch": _fetch,
    "maintain": _maintain,
    "web": _web,
}


def _await_database(engine: Engine, settings: Settings, stop: threading.Event, *, wait: bool) -> None:
    """Go on once the database answers and has our tables; a receiver goes on at once and answers 0xA700 until then."""
    while not stop.is_set():
        try:
            migrate.check_database(engine, settings)
            return
        except SQLAlchemyError as error:
            _log.warning("the database does not answer: %s", one_line(error))
        if not wait:
            return
        stop.wait(DATABASE_RETRY_S)


def one_line(error: Exception) -> str:
    """What an error says, without the statement and the links that SQLAlchemy adds."""
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
