"""Put files into a spool and a database as a receiver does, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue
from sqlalchemy import Engine

from dicom_node.db.engine import transaction, utc_now
from dicom_node.db.instances import RELEASED, NewInstance, Sender, Stored, end_association, store_instances
from dicom_node.domain.completeness import PATIENCE, Source, Sources
from dicom_node.domain.job import JobInstance
from dicom_node.domain.study import HEADER
from dicom_node.spool import Spool


def sender(name: str = "CT1", association: str = "a" * 36) -> Sender:
    """An association that a scanner opened just now."""
    return Sender(association, name, "AINODE", "127.0.0.1", "TEST", utc_now())


def store_files(
    engine: Engine,
    spool: Spool,
    paths: Sequence[Path],
    *,
    quiet_s: float = 30.0,
    by: Sender | None = None,
    sources: Sources | None = None,
    end: str | None = RELEASED,
) -> list[Stored]:
    """Store DICOM files; what became of each. `end` is how their association ended, None if it is still open."""
    kept = spool_files(spool, paths)
    by = by or sender()
    new = [
        NewInstance(
            sender=by,
            study_instance_uid=str(one.header["StudyInstanceUID"]),
            series_instance_uid=str(one.header["SeriesInstanceUID"]),
            sop_instance_uid=one.sop_instance_uid,
            sop_class_uid=one.sop_class_uid,
            transfer_syntax_uid=one.transfer_syntax_uid,
            path=one.path,
            size=spool.path(one.path).stat().st_size,
            digest=one.digest,
            header=one.header,
        )
        for one in kept
    ]
    with transaction(engine) as tx:
        outcomes = store_instances(tx, new, sources or alike(quiet_s), spool.has_digest)
        if end is not None:
            end_association(tx, by, reason=end, stored=len(new), refused=0)
    return outcomes


def alike(quiet_s: float) -> Sources:
    """Wait for whatever anybody sends for so long, and four times as long for what is missing."""
    return Sources(Source(quiet_s=quiet_s, patience_s=PATIENCE * quiet_s))


def spool_files(spool: Spool, paths: Sequence[Path]) -> list[JobInstance]:
    """Put files into the spool only; as a job would name them, in the order given."""
    kept = []
    for path in paths:
        data = path.read_bytes()
        offset = 144 + int.from_bytes(data[140:144], "little")
        arriving = spool.incoming()
        arriving.write_prefix(data[:offset])
        arriving.write(data[offset:])
        (relative,) = spool.keep([arriving])
        ds = dcmread(path, stop_before_pixels=True)
        kept.append(
            JobInstance(
                str(ds.SOPInstanceUID),
                str(ds.SOPClassUID),
                str(ds.file_meta.TransferSyntaxUID),
                relative,
                arriving.digest,
                header_of(ds),
            )
        )
    return kept


def header_of(ds: Dataset) -> dict[str, Any]:
    """The attributes that a receiver keeps, as JSON takes them."""
    found: dict[str, Any] = {keyword: ds.get(keyword) for keyword in HEADER if ds.get(keyword) is not None}
    return {k: [str(x) for x in v] if isinstance(v, MultiValue) else str(v) for k, v in found.items()}
