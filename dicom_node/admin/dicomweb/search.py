"""QIDO-RS (PS3.18 10.6): studies, series and instances.

The database has no names of patients: they are read from the files that are found, and nobody can search by them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from fastapi import APIRouter, Depends, HTTPException, Request
from pydicom import Dataset, dcmread
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from starlette.responses import JSONResponse, Response

from dicom_node.admin.desk import Desk, desk_of
from dicom_node.admin.guard import needs
from dicom_node.admin.trail import viewed
from dicom_node.db import objects
from dicom_node.db.objects import FoundSeries, FoundStudy, StoredObject, StudyFilter
from dicom_node.domain.people import Right

router = APIRouter(prefix="/dicom-web", include_in_schema=False, dependencies=[Depends(needs(Right.VIEW))])

MOST = 500
_MOST_LOOKED_INTO = 1000
_OF_STUDY = (
    *("StudyTime", "ReferringPhysicianName", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDescription", "TimezoneOffsetFromUTC"),
)
_OF_SERIES = ("Modality", "SeriesDescription", "SeriesNumber", "SeriesDate", "SeriesTime")
_OF_INSTANCE = ("InstanceNumber", "Rows", "Columns", "BitsAllocated", "NumberOfFrames", "ContentLabel")
_CONTROLS = {"limit", "offset", "includefield", "fuzzymatching", "emptyvaluematching", "multiplevaluematching"}
_MATCHED = {
    "StudyInstanceUID",
    "PatientID",
    "AccessionNumber",
    "StudyDate",
    "ModalitiesInStudy",
    "SeriesInstanceUID",
    "Modality",
    "SOPInstanceUID",
    "SOPClassUID",
}


class DicomJSON(JSONResponse):
    """A body of ``application/dicom+json``."""

    media_type = "application/dicom+json"


@router.get("/studies")
def studies(request: Request) -> Response:
    """Search for studies."""
    desk, asked, ignored = desk_of(request), *_asked(request)
    limit, offset = _window(request)
    which = StudyFilter(
        studies=tuple(uid for uid in re.split(r"[,\\]", asked.get("StudyInstanceUID", "")) if uid),
        patient_id=asked.get("PatientID", ""),
        accession_number=asked.get("AccessionNumber", ""),
        study_date=asked.get("StudyDate", ""),
        modality=asked.get("ModalitiesInStudy", ""),
    )
    with desk.reading() as tx:
        rows = objects.find_studies(tx, which, limit, offset)
    found = [_study(desk, row) for row in rows]
    viewed(request, "dicomweb search", studies=[row.study_instance_uid for row in rows][:10])
    return _answer(found, ignored)


@router.get("/series")
@router.get("/studies/{study}/series")
def series(request: Request, study: str = "") -> Response:
    """Search for series, of one study or of all."""
    desk, asked, ignored = desk_of(request), *_asked(request)
    limit, offset = _window(request)
    wanted = asked.get("Modality", "")
    uids = study or asked.get("StudyInstanceUID", ""), asked.get("SeriesInstanceUID", "")
    with desk.reading() as tx:
        if not wanted or not any(uids):
            rows = objects.find_series(tx, *uids, wanted, limit, offset)
            found = [_series(desk, row) for row in rows]
        else:  # few enough to look into the files
            rows = objects.find_series(tx, *uids, "", _MOST_LOOKED_INTO, 0)
            found = [ds for ds in (_series(desk, row) for row in rows) if ds.get("Modality") == wanted]
            found = found[offset : offset + limit]
    viewed(request, "dicomweb search", study=uids[0])
    return _answer(found, ignored)


@router.get("/instances")
@router.get("/studies/{study}/instances")
@router.get("/studies/{study}/series/{series}/instances")
def instances(request: Request, study: str = "", series: str = "") -> Response:
    """Search for instances, of one series, of one study or of all."""
    desk, asked, ignored = desk_of(request), *_asked(request)
    limit, offset = _window(request)
    uids = study or asked.get("StudyInstanceUID", ""), series or asked.get("SeriesInstanceUID", "")
    with desk.reading() as tx:
        stored = objects.find_objects(tx, *uids, asked.get("SOPInstanceUID", ""), limit=limit, offset=offset)
    wanted = asked.get("SOPClassUID", "")
    viewed(request, "dicomweb search", study=uids[0])
    return _answer([_instance(desk, one) for one in stored if not wanted or one.sop_class_uid == wanted], ignored)


def read_header(desk: Desk, path: str, keywords: Iterable[str] = ()) -> Dataset:
    """Read a file without its pixels, or only some attributes of it; what cannot be read is empty."""
    try:
        tags = [tag for k in keywords if (tag := tag_for_keyword(k)) is not None]
        return dcmread(desk.spool.path(path), stop_before_pixels=True, specific_tags=tags or None)
    except Exception:  # noqa: BLE001 - whatever is wrong with one file must not cost the search
        return Dataset()


def _asked(request: Request) -> tuple[Mapping[str, str], list[str]]:
    """Read the matching keys, by keyword; and which of them nothing is matched with."""
    asked: dict[str, str] = {}
    ignored = []
    for name, value in request.query_params.items():
        if name in _CONTROLS:
            continue
        keyword = keyword_for_tag(int(name, 16)) if re.fullmatch(r"[0-9A-Fa-f]{8}", name) else name
        if keyword in _MATCHED:
            asked[keyword] = value[:2000]
        elif value not in ("", "*"):
            ignored.append(keyword or name)
    return asked, ignored


def _window(request: Request) -> tuple[int, int]:
    limit, offset = request.query_params.get("limit", "100"), request.query_params.get("offset", "0")
    if not (limit.isdecimal() and offset.isdecimal()) or len(limit + offset) > 18:
        raise HTTPException(400, "limit and offset are numbers.")
    return min(int(limit), MOST), int(offset)


def _answer(found: list[Dataset], ignored: list[str]) -> Response:
    answer: Response = DicomJSON([ds.to_json_dict() for ds in found]) if found else Response(status_code=204)
    if ignored:
        names = ", ".join(name for name in ignored if name.isascii() and name.isalnum())
        answer.headers["warning"] = f'299 dicom-node "These attributes are not matched: {names}"'
    return answer


def _study(desk: Desk, found: FoundStudy) -> Dataset:
    ds = _only(read_header(desk, found.path, _OF_STUDY), _OF_STUDY)
    ds.StudyInstanceUID = found.study_instance_uid
    ds.PatientID, ds.AccessionNumber, ds.StudyDate = found.patient_id, found.accession_number, found.study_date
    ds.ModalitiesInStudy = list(found.modalities)
    ds.NumberOfStudyRelatedSeries, ds.NumberOfStudyRelatedInstances = found.series, found.instances
    return ds


def _series(desk: Desk, found: FoundSeries) -> Dataset:
    ds = _only(read_header(desk, found.path, _OF_SERIES), _OF_SERIES)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = found.study_instance_uid, found.series_instance_uid
    ds.NumberOfSeriesRelatedInstances = found.instances
    return ds


def _instance(desk: Desk, stored: StoredObject) -> Dataset:
    ds = _only(read_header(desk, stored.path, _OF_INSTANCE), _OF_INSTANCE)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = stored.study_instance_uid, stored.series_instance_uid
    ds.SOPInstanceUID, ds.SOPClassUID = stored.sop_instance_uid, stored.sop_class_uid
    ds.AvailableTransferSyntaxUID = stored.transfer_syntax_uid
    return ds


def _only(read: Dataset, keywords: Iterable[str]) -> Dataset:
    """Keep what was asked for, and what says how its text is encoded."""
    kept = Dataset()
    for keyword in keywords:
        try:
            if keyword in read:
                kept[keyword] = read[keyword]
                kept[keyword].to_json_dict(None, 0)
        except Exception:  # noqa: BLE001 - whatever is wrong with one element must not cost the search
            kept.pop(keyword, None)
    return kept
