"""A destination gets its segmentation in the form it wants, or BINARY with the reason; one form, never two."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from sqlalchemy import update

from dicom_node import explain
from dicom_node.db import tables as t
from dicom_node.db.deliveries import resend
from dicom_node.domain.encoding import Encoding
from dicom_node.domain.model import OutputKind
from tests.integration.deliver.peer import LABEL_MAP, MakeScp, Scp
from tests.integration.deliver.rows import deliveries
from tests.integration.deliver.site import Site
from tests.peers.orthanc import Orthanc

FORMS = (OutputKind.SEG, OutputKind.SEG_LABELMAP, OutputKind.SC, OutputKind.SR, OutputKind.SR_LABELMAP)
AS_LABELMAP: Mapping[str, Encoding] = {"pacs": Encoding.LABELMAP}
ONLY = {"pacs": (OutputKind.SEG, OutputKind.SR)}
OLD = (SegmentationStorage, SecondaryCaptureImageStorage, Comprehensive3DSRStorage)


def went(site: Site, job: str, destination: str = "pacs") -> dict[str, str]:
    return {row.kind: row.state for row in deliveries(site.engine, job, destination)}


def story(site: Site, job: str) -> str:
    with site.engine.begin() as tx:
        tx.execute(update(t.job).where(t.job.c.id == job).values(state="completed"))
        [told] = explain.explain(tx, job)
    return "\n".join([*(line.text for line in told.lines), told.answer])


def test_each_destination_gets_the_form_that_it_wants(site: Site, scp: MakeScp) -> None:
    labelmap, binary = scp(), scp()
    site.deliverer({"pacs": labelmap.port, "other": binary.port})
    job = site.results("pacs", "other", kinds=FORMS, wanted=ONLY, encodings=AS_LABELMAP)
    site.wait(lambda: len(labelmap.stored) == 2 and len(binary.stored) == 3)
    site.wait(lambda: set(went(site, job).values()) == {"delivered"})
    assert list(went(site, job)) == ["seg-labelmap", "sr-labelmap"]
    assert list(went(site, job, "other")) == ["seg", "sc", "sr"]
    assert labelmap.received[0][1] == RLELossless


@pytest.mark.parametrize("answer", [0x0000, 0xA900, 0xC000], ids=["refused class", "0xA900", "0xC000"])
def test_what_is_not_taken_as_a_label_map_goes_as_binary_with_its_own_report(
    answer: int, site: Site, scp: MakeScp
) -> None:
    peer: Scp = scp(classes=OLD) if answer == 0x0000 else scp(statuses=(answer, 0x0000))
    site.deliverer({"pacs": peer.port})
    job = site.results(kinds=FORMS, wanted=ONLY, encodings=AS_LABELMAP)
    site.wait(lambda: went(site, job) == {"seg-labelmap": "canceled", "seg": "delivered", "sr": "delivered"})
    by_kind = {row.kind: row for row in deliveries(site.engine, job)}
    assert peer.stored == [by_kind["seg"].sop_instance_uid, by_kind["sr"].sop_instance_uid]
    told = story(site, job)
    assert "pacs does not take SEG-LABELMAP: " in told
    assert "SEG goes instead" in told
    assert "Result delivered to pacs" in told
    assert "SEG as BINARY: " in told

    with site.engine.begin() as tx:  # asked to send it all again, it sends no second form
        resend(tx, [row.id for row in by_kind.values()], site.enqueuer)
    site.wait(lambda: len(peer.stored) == 4)
    site.wait(lambda: went(site, job) == {"seg-labelmap": "canceled", "seg": "delivered", "sr": "delivered"})
    assert sorted(set(peer.stored)) == sorted(peer.stored[:2])


def test_real_archive_that_refuses_label_maps_has_the_binary_one(site: Site, orthanc: Orthanc) -> None:
    site.deliverer({"pacs": orthanc.dicom_port}, ae_title=orthanc.ae)
    job = site.results(kinds=FORMS, wanted=ONLY, encodings=AS_LABELMAP)
    site.wait(lambda: went(site, job) == {"seg-labelmap": "canceled", "seg": "delivered", "sr": "delivered"})
    by_kind = {row.kind: row for row in deliveries(site.engine, job)}
    assert orthanc.held() == sorted(by_kind[kind].sop_instance_uid for kind in ("seg", "sr"))
    assert "does not take 1.2.840.10008.5.1.4.1.1.66.7" in story(site, job)


def test_why_there_is_no_label_map_is_told(site: Site, scp: MakeScp) -> None:
    peer = scp()
    site.deliverer({"pacs": peer.port})
    why = {"labelmap": "'Left lung' and 'Nodule 1' overlap"}
    job = site.results(kinds=(OutputKind.SEG, OutputKind.SR), encodings=AS_LABELMAP, not_as=why)
    site.wait(lambda: went(site, job) == {"seg": "delivered", "sr": "delivered"})
    assert "no SEG-LABELMAP for pacs: 'Left lung' and 'Nodule 1' overlap; SEG goes instead" in story(site, job)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, ExplicitVRLittleEndian])
def test_peer_that_takes_another_compression_gets_that_one_and_the_same_pixels(
    syntax: UID, site: Site, scp: MakeScp
) -> None:
    peer = scp(syntaxes=(syntax, ExplicitVRLittleEndian, ImplicitVRLittleEndian))
    site.deliverer({"pacs": peer.port})
    job = site.results(kinds=FORMS, wanted=ONLY, encodings=AS_LABELMAP)
    site.wait(lambda: set(went(site, job).values()) == {"delivered"})
    uid, used, data = peer.received[0]
    assert used == syntax
    stored = dcmread(site.home / "spool" / "results" / job / "seg-labelmap-1.dcm")
    assert (stored.SOPInstanceUID, stored.file_meta.TransferSyntaxUID) == (uid, RLELossless)
    pixels = stored.pixel_array
    stored.file_meta.TransferSyntaxUID = syntax
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, stored.file_meta)
    received = dcmread(BytesIO(b"\0" * 128 + b"DICM" + buffer.getvalue() + data))
    assert (received.SOPInstanceUID, received.SOPClassUID) == (uid, LABEL_MAP)
    assert (received.pixel_array == pixels).all()
