"""DICOMweb: a viewer opens source and result from the node, as one study, byte for byte what the spool holds."""

from __future__ import annotations

import re
from email import message_from_bytes
from email.policy import HTTP
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, generate_uid
from sqlalchemy import text
from starlette.testclient import TestClient

from dicom_node.db.audit import AuditFilter, list_events
from dicom_node.db.browse import results_of, slices_of
from dicom_node.db.engine import reading
from dicom_node.domain.audit import Event
from dicom_node.domain.people import Right
from tests.ct import small_ct
from tests.integration.web.node import WebNode

Filled = tuple[WebNode, dict[str, str]]
WEB = "/dicom-web"


@pytest.fixture(scope="session")
def viewer(filled: Filled) -> TestClient:
    node, _ = filled
    return node.client(node.token("vera", Right.VIEW))


@pytest.fixture(scope="session")
def study(filled: Filled) -> dict[str, Any]:
    """The job whose study a viewer opens."""
    node, made = filled
    (job,) = node.jobs(job=made["completed"])
    return job


def parts(answer: Any) -> list[tuple[str, bytes]]:
    """Content type and bytes of each part, split at the boundary."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("multipart/related")
    head = f"Content-Type: {answer.headers['content-type']}\r\nContent-Transfer-Encoding: binary\r\n\r\n".encode()
    boundary = f"--{message_from_bytes(head, policy=HTTP).get_boundary()}".encode()
    found = []
    for piece in answer.content.split(boundary)[1:-1]:
        headers, _, body = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        found.append((re.findall(rb"Content-Type: ([^\r]+)", headers)[0].decode(), body[:-2]))
    return found


def search(viewer: TestClient, path: str, **keys: str) -> list[Dataset]:
    answer = viewer.get(f"{WEB}{path}", params=keys)
    assert answer.status_code in (200, 204)
    if answer.status_code == 204:
        return []
    assert answer.headers["content-type"] == "application/dicom+json"
    return [Dataset.from_json(one) for one in answer.json()]


def test_a_search_finds_source_and_result_as_one_study(viewer: TestClient, study: dict[str, Any]) -> None:
    uid = study["study_instance_uid"]
    (found,) = search(viewer, "/studies", StudyInstanceUID=uid)
    assert found.PatientID == "LIDC-IDRI-0314"
    (named,) = search(viewer, "/studies", PatientID="P-gap")
    assert named.PatientName == "GAP^SYNTHETIC", "from the file: the database has no names"
    assert list(found.ModalitiesInStudy) == ["CT", "SEG", "SR"]
    assert (found.NumberOfStudyRelatedSeries, found.NumberOfStudyRelatedInstances) == (3, 32)
    by = {ds.Modality: ds for ds in search(viewer, f"/studies/{uid}/series")}
    assert set(by) == {"CT", "SEG", "SR"}
    assert by["CT"].NumberOfSeriesRelatedInstances == 30
    assert len(search(viewer, f"/studies/{uid}/series/{by['CT'].SeriesInstanceUID}/instances")) == 30
    assert len(search(viewer, f"/studies/{uid}/instances", limit="7", offset="28")) == 4
    (seg,) = search(viewer, f"/studies/{uid}/series", Modality="SEG")
    assert seg.SeriesInstanceUID == by["SEG"].SeriesInstanceUID


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"PatientID": "P-gap"}, 1),
        ({"00100020": "P-*"}, 6),
        ({"AccessionNumber": "A-?ap"}, 1),
        ({"StudyDate": "20250301"}, 7),
        ({"StudyDate": "20240101-20250228"}, 0),
        ({"StudyDate": "20250301-"}, 7),
        ({"ModalitiesInStudy": "SR"}, 1),
        ({"PatientID": "%"}, 0),
        ({"limit": "3"}, 3),
        ({"limit": "100", "offset": "6"}, 2),
    ],
)
def test_studies_are_matched_as_the_standard_says(viewer: TestClient, keys: dict[str, str], found: int) -> None:
    assert len(search(viewer, "/studies", **keys)) == found


def test_what_is_not_matched_is_said_and_what_makes_no_sense_refused(viewer: TestClient) -> None:
    answer = viewer.get(f"{WEB}/studies", params={"PatientName": "X*"})
    assert answer.headers["warning"].startswith('299 dicom-node "These attributes are not matched: PatientName"')
    assert viewer.get(f"{WEB}/studies?limit=-1").status_code == 400
    assert viewer.get(f"{WEB}/studies", params={"检查": "X"}).headers["warning"].endswith('not matched: "'), "no header"
    for path in ("/studies/1.2", "/studies/1.2/metadata", "/studies/1.2/series/1/instances/1/frames/1"):
        assert viewer.get(f"{WEB}{path}").status_code == 404
    assert viewer.get(f"{WEB}/studies/1.2").headers["content-type"] == "application/problem+json"


def test_objects_are_given_as_stored_or_decoded_as_the_client_takes_them(
    filled: Filled, viewer: TestClient, study: dict[str, Any]
) -> None:
    node, made = filled
    with reading(node.engine) as tx:
        first = slices_of(tx, made["completed"])[0]
        results = results_of(tx, made["completed"])
    of = f"{WEB}/studies/{study['study_instance_uid']}/series"
    base = f"{of}/{study['series_instance_uid']}/instances/{first.sop_instance_uid}"
    as_is = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    ((kind, data),) = parts(viewer.get(base, headers={"accept": as_is}))
    assert kind == f"application/dicom; transfer-syntax={JPEGLSLossless}"
    assert data == node.spool.path(first.path).read_bytes()
    plain = 'multipart/related; type="application/dicom"'
    ((kind, data),) = parts(viewer.get(base, headers={"accept": plain}))
    assert kind == f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"
    decoded, stored = dcmread(BytesIO(data)), dcmread(node.spool.path(first.path))
    assert np.array_equal(decoded.pixel_array, stored.pixel_array)
    assert decoded.SOPInstanceUID == stored.SOPInstanceUID
    one = viewer.get(base, headers={"accept": "application/dicom; transfer-syntax=*"})
    assert one.content == node.spool.path(first.path).read_bytes()
    for result in results.values():
        path = f"{of}/{result.series_instance_uid}"
        ((_, data),) = parts(viewer.get(path, headers={"accept": as_is}))
        assert data == node.spool.path(result.path).read_bytes()
    assert len(parts(viewer.get(f"{WEB}/studies/{study['study_instance_uid']}", headers={"accept": as_is}))) == 32
    assert viewer.get(base, headers={"accept": "text/html"}).status_code == 406


def test_metadata_says_everything_but_the_pixels(viewer: TestClient, study: dict[str, Any]) -> None:
    path = f"{WEB}/studies/{study['study_instance_uid']}/series/{study['series_instance_uid']}/metadata"
    found = [Dataset.from_json(one) for one in viewer.get(path).json()]
    assert len({ds.SOPInstanceUID for ds in found}) == 30
    assert all(ds.ImagePositionPatient and ds.RescaleSlope and "PixelData" not in ds for ds in found)
    seg = next(r for r in study["results"] if r["kind"] == "seg")
    path = f"{WEB}/studies/{study['study_instance_uid']}/series/{seg['series_instance_uid']}/metadata"
    (ds,) = [Dataset.from_json(one) for one in viewer.get(path).json()]
    assert len(ds.PerFrameFunctionalGroupsSequence) == ds.NumberOfFrames > 30


def test_frames_are_the_stored_code_stream_or_plain_values(
    filled: Filled, viewer: TestClient, study: dict[str, Any]
) -> None:
    node, made = filled
    with reading(node.engine) as tx:
        first = slices_of(tx, made["completed"])[0]
        seg = results_of(tx, made["completed"])["seg"]
    values = dcmread(node.spool.path(first.path)).pixel_array
    of = f"{WEB}/studies/{study['study_instance_uid']}/series"
    base = f"{of}/{study['series_instance_uid']}/instances/{first.sop_instance_uid}"
    octets = "multipart/related; type=application/octet-stream"
    ((kind, data),) = parts(viewer.get(f"{base}/frames/1", headers={"accept": octets}))
    assert kind.endswith(ExplicitVRLittleEndian)
    assert np.array_equal(np.frombuffer(data, values.dtype).reshape(values.shape), values)
    ((kind, data),) = parts(viewer.get(f"{base}/frames/1", headers={"accept": f"{octets}; transfer-syntax=*"}))
    assert kind.endswith(JPEGLSLossless)
    assert np.array_equal(imagecodecs.jpegls_decode(data).astype(values.dtype), values)
    masks = dcmread(node.spool.path(seg.path)).pixel_array
    path = f"{of}/{seg.series_instance_uid}/instances/{seg.sop_instance_uid}"
    for n, (_, data) in zip((2, 31), parts(viewer.get(f"{path}/frames/2,31", headers={"accept": octets})), strict=True):
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        assert np.array_equal(bits.reshape(masks[n - 1].shape), masks[n - 1])
    for wrong, status in (("0", 400), ("a", 400), ("1,a", 400), ("2", 404), ("99999", 404)):
        assert viewer.get(f"{base}/frames/{wrong}").status_code == status
    picture = Image.open(BytesIO(viewer.get(f"{base}/rendered", params={"window": "40,400"}).content))
    assert picture.size == (512, 512)
    for wrong in ("--40,400", "40", "40,-1", "40,1e2", "40," + 400 * "9", "bone"):
        assert viewer.get(f"{base}/rendered", params={"window": wrong}).status_code == 400, wrong


def test_a_file_that_is_gone_is_a_410_and_costs_no_search(node: WebNode, chest_part: list[Any]) -> None:
    node.receive(chest_part[:2])
    for path in node.spool.root.rglob("*.dcm"):
        path.unlink()
    viewer = node.client(node.token("vera", Right.VIEW))
    (found,) = search(viewer, "/studies")
    assert viewer.get(f"{WEB}/studies/{found.StudyInstanceUID}/metadata").status_code == 410


def test_nothing_is_given_out_that_could_not_be_written_down(node: WebNode, tmp_path: Path) -> None:
    paths = small_ct(tmp_path / "ct", slices=3)
    node.receive(paths)
    study = dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID
    viewer = node.client(node.token("vera", Right.VIEW), raise_server_exceptions=False)
    with node.engine.begin() as tx:
        tx.execute(text("CREATE TRIGGER full BEFORE INSERT ON audit_event BEGIN SELECT RAISE(ABORT, 'full'); END"))
    assert viewer.get(f"{WEB}/studies/{study}/metadata").status_code == 500
    with node.engine.begin() as tx:
        tx.execute(text("DROP TRIGGER full"))
    assert viewer.get(f"{WEB}/studies/{study}/metadata").status_code == 200
    with reading(node.engine) as tx:
        assert [one.detail["uid"] for one in list_events(tx, AuditFilter((Event.SENT_OUT.value,)))] == [study]


def test_an_element_that_cannot_be_read_costs_itself_and_a_broken_frame_is_told(node: WebNode, tmp_path: Path) -> None:
    ds = dcmread(str(get_testdata_file("693_J2KI.dcm")))
    ds.PixelData = encapsulate([get_frame(ds.PixelData, 0, number_of_frames=1)])
    ds.save_as(tmp_path / "odd.dcm")
    node.receive([tmp_path / "odd.dcm"])
    (stored,) = node.spool.root.rglob("*.dcm")
    content = stored.read_bytes()
    rows = bytes.fromhex("28001000") + b"US" + bytes.fromhex("0200")
    at, pixels = content.index(rows), content.rindex(bytes.fromhex("e07f1000")) + 12
    torn = content[:at] + rows[:-2] + bytes.fromhex("0300000200") + content[at + 10 : pixels]
    stored.write_bytes(torn + bytes.fromhex("feffdde000000000"))  # three bytes are no number, and no frame is left
    viewer = node.client(node.token("vera", Right.VIEW))
    (found,) = search(viewer, "/instances")
    assert found.Columns == ds.Columns
    assert "Rows" not in found
    base = f"{WEB}/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    octets = {"accept": "multipart/related; type=application/octet-stream; transfer-syntax=*"}
    answer = viewer.get(f"{base}/frames/1", headers=octets)
    assert (answer.status_code, "cannot be" in answer.text) == (410, True), answer.text


def test_an_image_that_claims_to_be_huge_is_refused_before_it_is_decoded(node: WebNode, tmp_path: Path) -> None:
    said = "says that it has 65535 x 65535 pixels"
    client = node.client(node.token("vera", Right.VIEW))
    for name, told in {"in its code stream": said, "in its header": "too large", "in components": "components"}.items():
        ds = dcmread(str(get_testdata_file("693_J2KI.dcm")))
        ds.SOPInstanceUID = ds.SeriesInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        frame = bytearray(get_frame(ds.PixelData, 0, number_of_frames=1))
        if name == "in its code stream":
            frame[8:16] = (65535).to_bytes(4, "big") * 2
        elif name == "in components":
            frame[40:42] = b"\x40\x00"
        else:
            ds.Rows = ds.Columns = 65535
        ds.PixelData = encapsulate([bytes(frame)])
        ds.save_as(tmp_path / "bomb.dcm")
        node.receive([tmp_path / "bomb.dcm"])
        base = f"{WEB}/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
        plain = {"accept": "multipart/related; type=application/dicom"}
        octets = {"accept": "multipart/related; type=application/octet-stream"}
        for path, headers in (("/rendered", None), ("/frames/1", octets), ("", plain)):
            answer = client.get(base + path, headers=headers)
            assert (answer.status_code, told in answer.text or "at once" in answer.text) == (422, True), answer.text
