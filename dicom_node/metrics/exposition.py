"""What a scrape gets."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dicom_node import __version__
from dicom_node.db.engine import reading
from dicom_node.db.numbers import Numbers, read_numbers
from dicom_node.metrics.gpu import read_gpus
from dicom_node.metrics.tail import Tail
from dicom_node.settings import Settings
from dicom_node.spool import Spool

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one node; one object for a process, from whichever threads.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of the node's database.
    """

    def __init__(self, settings: Settings, engine: Engine, spool: Spool) -> None:
        self._engine = engine
        self._registry = CollectorRegistry()
        self._tail = Tail(self._registry)
        self._gauges = _Gauges(settings, spool)
        self._registry.register(self._gauges)
        self._lock = threading.Lock()

    def exposition(self) -> bytes:
        """Look at everything and write it down; `CONTENT_TYPE` says how. A database that is away shows as such."""
        with self._lock:
            try:
                with reading(self._engine) as tx:
                    self._gauges.numbers = read_numbers(tx)
                    self._tail.follow(tx, self._gauges.numbers.now)
            except SQLAlchemyError:
                self._gauges.numbers = None
            return generate_latest(self._registry)


class _Gauges(Collector):
    def __init__(self, settings: Settings, spool: Spool) -> None:
        self._settings = settings
        self._spool = spool
        self.numbers: Numbers | None = None

    def describe(self) -> Iterator[Metric]:
        """Tell nothing ahead: registering must not ask the database."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Give all gauges."""
        yield InfoMetricFamily("dicom_node", "The program.", {"version": __version__, "name": self._settings.node.name})
        yield from self._disk()
        yield from _gpus()
        up = self.numbers is not None
        yield GaugeMetricFamily("dicom_node_database_up", "Whether the database answers.", float(up))
        if self.numbers is not None:
            yield from _of_database(self.numbers)

    def _disk(self) -> Iterator[Metric]:
        try:
            usage = shutil.disk_usage(self._spool.root)
        except OSError:
            return
        yield GaugeMetricFamily("dicom_node_spool_free_bytes", "Free space of the spool's file system.", usage.free)
        yield GaugeMetricFamily("dicom_node_spool_size_bytes", "Size of the spool's file system.", usage.total)
        reserve = self._settings.spool.reserve_mib * 1024 * 1024
        yield GaugeMetricFamily(
            "dicom_node_spool_reserve_bytes", "Free space below which instances are refused.", reserve
        )


def _of_database(numbers: Numbers) -> Iterator[Metric]:
    yield GaugeMetricFamily("dicom_node_database_size_bytes", "Size of the database.", numbers.size_bytes)
    yield GaugeMetricFamily("dicom_node_series_receiving", "Series that still arrive.", numbers.receiving)
    studies = {(rule,): count for rule, count in numbers.studies.items()}
    yield _labelled("dicom_node_studies_waiting", "Studies that wait for series.", ("rule",), studies)
    yield _labelled("dicom_node_jobs_open", "Jobs that are not over.", ("state", "model"), numbers.jobs)
    due = numbers.oldest_due
    age_s = max(0.0, (numbers.now - due).total_seconds()) if due else 0.0
    yield GaugeMetricFamily("dicom_node_queue_oldest_seconds", "Age of the job that waits longest for a worker.", age_s)
    names = ("state", "destination")
    yield _labelled("dicom_node_deliveries_open", "Deliveries that have not arrived.", names, numbers.deliveries)
    waits = {(name,): (numbers.now - at).total_seconds() for name, at in numbers.oldest_waiting.items()}
    text = "Age of the delivery that waits longest."
    yield _labelled("dicom_node_delivery_oldest_seconds", text, ("destination",), waits)
    alive = {(role,): count for role, count in numbers.processes.items()}
    yield _labelled("dicom_node_processes_alive", "Processes that beat.", ("role",), alive)
    yield GaugeMetricFamily("dicom_node_audit_unchained", "Audit events that have no place yet.", numbers.unchained)
    ago = {(name,): (numbers.now - at).total_seconds() for name, at in numbers.sweeps.items()}
    text = "Time since a sweep of the maintainer last went through."
    yield _labelled("dicom_node_sweep_age_seconds", text, ("sweep",), ago)


def _gpus() -> Iterator[Metric]:
    gpus = read_gpus()
    if gpus:
        used = {(gpu.index, gpu.name): float(gpu.used_bytes) for gpu in gpus}
        total = {(gpu.index, gpu.name): float(gpu.total_bytes) for gpu in gpus}
        busy = {(gpu.index, gpu.name): gpu.utilization for gpu in gpus}
        labels = ("gpu", "name")
        yield _labelled("dicom_node_gpu_memory_used_bytes", "GPU memory in use, by anybody.", labels, used)
        yield _labelled("dicom_node_gpu_memory_size_bytes", "GPU memory.", labels, total)
        yield _labelled("dicom_node_gpu_utilization_ratio", "How busy the GPU is, 0 to 1.", labels, busy)


def _labelled(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    """Write a gauge with several values; their keys are the labels' values, in order."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
