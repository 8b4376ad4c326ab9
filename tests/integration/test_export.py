"""A report for a fault holds what helps to find it, and nothing of the patient: what is not known to be safe goes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import dictionary_VR, keyword_dict
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import select

from dicom_node.db import tables as t
from dicom_node.db.engine import transaction
from dicom_node.domain.delivery import Sent
from dicom_node.domain.uids import AETitle
from dicom_node.errors import ExportError
from dicom_node.export import Dates, Deidentifier, Keep, Wanted, export_report
from dicom_node.export import attributes as a
from dicom_node.settings import DimseSettings, Settings
from tests.ct import small_ct
from tests.integration.operated import Operated, operated

MARK = "Zyxwvut"
MARKS = {
    "PatientName": f"{MARK}^Qqanna", "PatientID": "ID-ZZQX-4711", "PatientBirthDate": "19310203",
    "AccessionNumber": "ACC-ZZQX-0815", "ReferringPhysicianName": f"Doc{MARK}", "StudyDescription": f"for {MARK}",
    "SeriesDescription": "THORAX of Qqanna", "InstitutionName": "Hospital ZZQX-Town", "StationName": "CT-ZZQX-9",
    "DeviceSerialNumber": "SER-ZZQX-5", "OtherPatientIDs": "ID-ZZQX-4712", "PatientComments": f"{MARK} is afraid",
}  # fmt: skip


# A value for each value representation that can hold words or say when.
VALUES = dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"), MARK)
VALUES |= {"DA": "19310203", "TM": "101500", "DT": "19310203101500", "AS": "033Y"}
VALUES |= {"UI": "1.2.3.4.5", "DS": "1", "IS": "1"}


def marked(number: int, ds: Dataset) -> Dataset:
    """Whose patient is everywhere: in the usual places, in private ones, in sequences, and in unused bits."""
    for keyword, value in MARKS.items():
        setattr(ds, keyword, value)
    ds.PatientAge, ds.PatientWeight = "093Y", "71.5"
    ds.add_new(0x00091001, "LO", f"private {MARK}")
    request = Dataset()
    request.RequestedProcedureDescription = f"for {MARK}"
    ds.RequestAttributesSequence = Sequence([request])
    ds.BitsStored, ds.HighBit = 12, 11
    values = np.clip(np.frombuffer(ds.PixelData, "<u2"), 0, 4095)
    ds.PixelData = (values | (number % 16) << 12).astype("<u2").tobytes()  # an overlay of old in the upper bits
    ds["PixelData"].VR = "OW"
    return ds


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Operated]:
    with operated(f"sqlite:///{tmp_path / 'node.db'}", tmp_path) as made:
        yield made


def exported(node: Operated, out: Path, **wanted: Any) -> dict[str, bytes]:
    job, what = node.jobs()[0]["id"], Wanted(**wanted)
    export_report(node.engine, job, out, node.settings, node.spool, what, actor="operator test")
    with zipfile.ZipFile(out) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def images(files: dict[str, bytes]) -> list[Dataset]:
    found = [dcmread(BytesIO(data)) for name, data in files.items() if name.startswith("series-1/")]
    return sorted(found, key=lambda ds: int(ds.InstanceNumber))


def test_a_report_tells_the_story_and_nothing_of_the_patient(node: Operated, tmp_path: Path) -> None:
    paths = small_ct(tmp_path / "ct", slices=8, change=marked)
    node.receive(paths, "SCANNER-ZZQX")
    (job,) = node.jobs()
    node.complete(job["id"])
    node.send(Sent(0x0000), Sent(0x0000))

    files = exported(node, tmp_path / "report.zip", pixels=True)

    everything = b"\n".join(files.values())
    identity = [MARK, "Qqanna", "ZZQX", "19310203", "093Y", "afraid"]
    originals = [dcmread(path) for path in paths]
    uids = {str(ds[k].value) for ds in originals for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    uids.add(str(originals[0].FrameOfReferenceUID))
    assert [word for word in (*identity, *uids) if word.lower().encode() in everything.lower()] == []
    story = files["story.txt"].decode()
    for said in ("complete, revision 1", "rule chest matched", "completed in", "SEG to pacs, attempt 1 delivered"):
        assert said in story
    (rows,) = json.loads(files["rows.json"])
    assert (rows["jobs"][0]["id"], rows["jobs"][0]["state"]) == (job["id"], "completed")
    assert 0 <= rows["attempts"][0]["started_at"] < 60, "seconds from the first instance"
    sent = images(files)
    assert len(sent) == 8
    assert len({ds.StudyInstanceUID for ds in sent}) == len({ds.FrameOfReferenceUID for ds in sent}) == 1
    assert len({ds.SOPInstanceUID for ds in sent}) == 8
    assert rows["series"]["series_instance_uid"] == sent[0].SeriesInstanceUID
    for ds, original in zip(sent, originals, strict=True):
        assert (ds.PatientName, ds.PatientBirthDate, ds.AccessionNumber, ds.StudyDate) == ("", "", "", "")
        assert (ds.PatientIdentityRemoved, ds.LongitudinalTemporalInformationModified) == ("YES", "REMOVED")
        assert ds.ImagePositionPatient == original.ImagePositionPatient
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert (ds.pixel_array == original.pixel_array & 0x0FFF).all()
        assert (np.frombuffer(ds.PixelData, "<u2") >> 12 == 0).all(), "no bit is left where an overlay could be"
    (event,) = _audited(node, "data exported")
    assert (event.actor, event.detail["files"]) == ("operator test", 8)


def test_each_option_keeps_its_part_and_says_so(node: Operated, tmp_path: Path) -> None:
    node.receive(small_ct(tmp_path / "ct", slices=8, change=marked))
    plain = images(exported(node, tmp_path / "1.zip"))[0]
    assert [item.CodeValue for item in plain.DeidentificationMethodCodeSequence] == ["113100"]
    assert "PixelData" not in plain
    assert "StationName" not in plain

    kept = images(exported(node, tmp_path / "2.zip", keep=frozenset(Keep), dates=Dates.FULL))[0]
    codes = {item.CodeValue for item in kept.DeidentificationMethodCodeSequence}
    assert codes == {"113100", "113106", "113108", "113109", "113110"}
    assert (kept.StationName, kept.DeviceSerialNumber) == ("CT-ZZQX-9", "SER-ZZQX-5")
    assert (kept.PatientSex, kept.PatientAge, kept.PatientWeight) == ("O", "090Y", 71.5)
    assert (kept.StudyDate, kept.SeriesTime) == ("20250301", "101500")
    assert kept.LongitudinalTemporalInformationModified == "UNMODIFIED"
    assert kept.SeriesInstanceUID == node.jobs()[0]["series_instance_uid"]

    moved = images(exported(node, tmp_path / "3.zip", dates=Dates.MODIFIED))
    assert {item.CodeValue for item in moved[0].DeidentificationMethodCodeSequence} == {"113100", "113107"}
    assert {ds.StudyDate for ds in moved} == {ds.ContentDate for ds in moved} != {"20250301"}
    assert exported(node, tmp_path / "4.zip", headers=False).keys() == {
        "README.txt", "manifest.json", "rows.json", "settings.json", "story.txt",
    }  # fmt: skip


def test_a_name_in_a_place_that_stays_goes_and_one_that_cannot_go_stops_the_export(
    node: Operated, tmp_path: Path
) -> None:
    def careless(number: int, ds: Dataset) -> Dataset:
        ds.PatientName, ds.Manufacturer = f"{MARK}^Anna", f"made for {MARK}"
        return ds

    node.receive(small_ct(tmp_path / "ct", slices=8, change=careless))
    files = exported(node, tmp_path / "first.zip")
    assert images(files)[0].Manufacturer == ""
    assert MARK.encode() not in b"".join(files.values())

    named = {MARK: DimseSettings(host="pacs", ae_title=AETitle("PACS"))}
    node.settings = node.settings.model_copy(update={"destinations": named})
    with pytest.raises(ExportError, match=r"settings\.json would hold something of the patient"):
        exported(node, tmp_path / "second.zip")
    assert [path.name for path in tmp_path.iterdir() if "second" in path.name] == []
    assert len(_audited(node, "data exported")) == 1


@pytest.mark.filterwarnings("ignore:Invalid value", "ignore:The value length")
def test_of_all_attributes_of_the_standard_only_those_of_the_list_stay() -> None:
    item = Dataset()
    item.PatientName, item.PatientID = MARK, MARK
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for tag in keyword_dict.values():
        vr = dictionary_VR(tag)
        if tag >> 16 > 0x0004 and vr in VALUES:
            ds.add(DataElement(tag, vr, VALUES[vr]))
        elif vr == "SQ":
            ds.add(DataElement(tag, vr, Sequence([item])))
    ds.SOPClassUID, ds.PatientName = "1.2.840.10008.5.1.4.1.1.2", MARK
    assert len(ds) > 3000

    cleaned = Deidentifier(b"secret").dataset(ds)

    said = {"PatientID", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"}
    said.add("LongitudinalTemporalInformationModified")
    assert {e.keyword for e in cleaned} <= a.KEPT | a.UIDS | a.EMPTIED | a.WALKED | said
    spoken = [str(e.value) for e in cleaned.iterall() if e.VR not in ("SQ", "CS")]
    assert [text for text in spoken if MARK in text or text in ("19310203", "033Y", "1.2.3.4.5")] == []
    listed = a.KEPT | a.UIDS | a.EMPTIED | a.WALKED | a.IDENTITY | a.DATES | a.TIMES | a.DEVICE | a.CHARACTERISTICS
    assert listed - {*keyword_dict} == set(), "no keyword is misspelt"


def test_settings_go_without_secrets(node: Operated, tmp_path: Path) -> None:
    node.receive(small_ct(tmp_path / "ct", slices=8))
    channels = {"pager": {"kind": "webhook", "url": "https://pager.zz/x", "secret": "whsec_abc"}}
    peers = [{"ae_title": "CT1", "address": "10.9.8.7"}]
    document = node.settings.model_dump() | {"notify": {"channels": channels}, "receive": {"peers": peers}}
    document |= {"database": {"url": "postgresql://node:hunter2@db.zz/node"}}
    settings = Settings.model_validate(document)
    export_report(node.engine, node.jobs()[0]["id"], tmp_path / "r.zip", settings, node.spool, Wanted(), actor="x")
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        told = archive.read("settings.json").decode()
    secrets = ("hunter2", "whsec_abc", "10.9.8.7", "pager.zz", "db.zz", str(tmp_path))
    assert [secret for secret in secrets if secret in told] == []
    assert json.loads(told)["assemble"]["quiet_s"] == 1e-6


def _audited(node: Operated, event: str) -> list[Any]:
    with transaction(node.engine) as tx:
        return list(tx.execute(select(t.audit_event).where(t.audit_event.c.event == event)))
