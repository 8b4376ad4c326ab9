"""A result between being built and being stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from dicom_node.domain.delivery import ResultObject, numbered
from dicom_node.domain.model import OutputKind
from dicom_node.results.frames import Framed
from dicom_node.results.header import file_bytes
from dicom_node.spool import Spool


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """A result that is built and not yet proved."""

    kind: OutputKind
    result: Dataset
    data: bytes
    number: int = 1

    @classmethod
    def of(cls, kind: OutputKind, made: Dataset | Framed, number: int = 1) -> Draft:
        """Encode what was built."""
        return cls(kind, made.head if isinstance(made, Framed) else made, file_bytes(made), number)

    @property
    def name(self) -> str:
        """Its name among the results of the job."""
        return numbered(self.kind, self.number)


def stored(
    draft: Draft, job_id: str, summary: dict[str, Any], spool: Spool, only_for: tuple[str, ...] | None = None
) -> ResultObject:
    """Write a result into the spool, synced; give the row that names it."""
    path, size, sha256 = spool.write(f"results/{job_id}", f"{draft.name}.dcm", draft.data)
    return ResultObject(
        kind=draft.kind,
        sop_class_uid=str(draft.result.SOPClassUID),
        sop_instance_uid=str(draft.result.SOPInstanceUID),
        series_instance_uid=str(draft.result.SeriesInstanceUID),
        transfer_syntax_uid=str(draft.result.file_meta.TransferSyntaxUID),
        path=path,
        size=size,
        sha256=sha256,
        summary=summary,
        number=draft.number,
        only_for=only_for,
    )
