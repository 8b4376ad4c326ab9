"""What a destination says it takes, and what goes there in place of what it does not."""

from __future__ import annotations

import json

from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage, SegmentationStorage
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

from dicom_node.db.profiles import read_profile, write_profile
from dicom_node.deliver.probe import probe
from dicom_node.domain.model import OutputKind
from tests.integration.deliver.archive import Archive
from tests.integration.deliver.peer import MakeScp, destination
from tests.integration.deliver.rows import attempts, deliveries, events
from tests.integration.deliver.site import Site
from tests.peers.orthanc import Orthanc

LABEL_MAP, KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.88.59"
ALL_KINDS = (OutputKind.SEG, OutputKind.SC, OutputKind.SR)
NO_SEG = (SecondaryCaptureImageStorage, Comprehensive3DSRStorage, Verification)


def test_orthanc_is_described_in_plain_words_and_keeps_nothing_of_it(site: Site, orthanc: Orthanc) -> None:
    orthanc.know("AINODE", site.receive_port)
    web = f'[destinations.web]\nkind = "stow"\nurl = "{orthanc.url}/dicom-web"\n'
    site.write_settings({"pacs": orthanc.dicom_port}, ae_title=orthanc.ae, sections=web)
    said = site.ask("probe", "pacs")
    assert "takes           segmentation (SEG): Explicit VR Little Endian, Implicit VR Little Endian, RLE" in said
    assert "does not take   segmentation as a label map; it gets instead: the segmentation in its BINARY form" in said
    assert "does not take   segmentation (SEG)" not in said
    assert "queries         are answered" in said
    assert "commitment      is answered; its report comes later, on an association to our listener" in said
    assert 'verify = "both"' in said
    assert orthanc.held() == []

    with site.engine.begin() as tx:
        profile = read_profile(tx, "pacs")
    assert profile is not None
    assert profile.refuses(profile.where, LABEL_MAP)
    assert not profile.refuses(profile.where, KEY_OBJECTS)
    assert not profile.refuses("ANOTHER at 10.0.0.9:104", LABEL_MAP)
    assert len(profile.echo_ms) == 5

    told = json.loads(site.ask("probe", "web", "--json"))
    assert (told["accepted"], told["commitment"], told["query"]) == (None, "-", "")


def test_pacs_without_queries_and_commitment_is_said_to_prove_nothing(scp: MakeScp) -> None:
    profile = probe(destination(scp(classes=NO_SEG).port))
    assert profile.refuses("PACS at 127.0.0.1:" + profile.where.rpartition(":")[2], SegmentationStorage)
    assert "does not take Study Root" in profile.query
    assert "does not take Storage Commitment" in profile.commitment
    assert profile.verify == "none"
    with Archive() as peer:
        able = probe(destination(peer.port))
    assert (able.verify, able.report) == ("both", "its report comes on the same association")


def test_picture_goes_in_place_of_a_segmentation_that_is_refused_and_before_the_report(
    site: Site, scp: MakeScp
) -> None:
    peer = scp(classes=NO_SEG)
    site.deliverer({"pacs": peer.port})
    wanted = {"pacs": [OutputKind.SEG, OutputKind.SR]}
    job = site.results(kinds=ALL_KINDS, wanted=wanted)
    site.wait(lambda: site.states(job) in (["failed", "delivered", "delivered"], ["delivered", "failed", "delivered"]))
    by_kind = {row.kind: row for row in deliveries(site.engine, job)}
    assert peer.stored == [by_kind["sc"].sop_instance_uid, by_kind["sr"].sop_instance_uid]
    assert "another object goes instead" in events(site.engine, by_kind["seg"].id)

    with site.engine.begin() as tx:
        write_profile(tx, "pacs", probe(destination(peer.port)))
    again = site.results(kinds=ALL_KINDS, wanted=wanted)
    site.wait(lambda: sorted(site.states(again)) == ["delivered", "delivered", "failed"])
    [seg] = [row for row in deliveries(site.engine, again) if row.kind == "seg"]
    assert "as it said on" in seg.last_error
    assert len(attempts(site.engine, seg.id)) == 1


def test_destination_that_gets_everything_gets_no_object_twice(site: Site, scp: MakeScp) -> None:
    peer = scp(classes=NO_SEG)
    site.deliverer({"pacs": peer.port})
    job = site.results(kinds=ALL_KINDS)
    site.wait(lambda: site.states(job) == ["failed", "delivered", "delivered"])
    assert len(peer.stored) == 2
