"""What is stored, and what each C-STORE is answered."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE
from sqlalchemy import delete, update

from dicom_node.db import tables as t
from dicom_node.db.engine import transaction
from dicom_node.digest import digest_of
from tests.integration.receive.conftest import Start
from tests.integration.receive.objects import FILES, ct, sample
from tests.integration.receive.scu import Instance, Scu, command_set, p_data, pdv, store_all
from tests.peers.tools import dcmtk

SUCCESS, DIFFERS, MISMATCH, NOT_UNDERSTOOD = 0x0000, 0x0111, 0xA900, 0xC000


def data_set(file: bytes) -> bytes:
    """What follows preamble and file meta information."""
    return file[144 + int.from_bytes(file[140:144], "little") :]


@pytest.mark.parametrize("name", FILES.values(), ids=FILES)
def test_the_bytes_of_a_data_set_are_stored_as_sent(start: Start, name: str) -> None:
    node = start()
    one = sample(name)
    assert store_all(node.port, [one]) == [SUCCESS]
    (row,) = node.rows(t.instance)
    path = node.spool.path(row.path)
    file = path.read_bytes()
    assert data_set(file) == one.data
    assert (row.size, row.digest) == (len(file), digest_of(one.data))
    ds = dcmread(path, stop_before_pixels=True)
    assert ds.file_meta.TransferSyntaxUID == row.transfer_syntax_uid == one.transfer_syntax_uid
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID == row.sop_instance_uid
    assert ds.file_meta.MediaStorageSOPClassUID == ds.SOPClassUID == row.sop_class_uid
    assert ds.file_meta.SourceApplicationEntityTitle == "SCANNER"
    assert row.header["StudyInstanceUID"] == ds.StudyInstanceUID
    assert row.header["SeriesInstanceUID"] == ds.SeriesInstanceUID
    assert (int(row.header["Rows"]), int(row.header["Columns"])) == (ds.Rows, ds.Columns)
    if name != "MR_small_padded.dcm":  # dcmtk does not read its padding
        assert one.sop_instance_uid in dcmtk("dcmdump", "+P", "SOPInstanceUID", str(path))


def test_rows_tell_study_series_and_association(start: Start, database_url: str) -> None:
    node = start(url=database_url)
    slices = [ct(n, StudyDate="20250102", SeriesDescription="CHEST", NumberOfSeriesRelatedInstances=7) for n in (1, 2)]
    assert store_all(node.port, slices) == [SUCCESS, SUCCESS]

    (study,) = node.rows(t.study)
    (series,) = node.rows(t.series)
    association = node.soon(lambda: next((row for row in node.rows(t.association) if row.ended_at), None))
    assert (study.study_instance_uid, study.patient_id, study.accession_number) == ("1.2.3.4.1", "P1", "A1")
    assert study.study_date == "20250102"
    assert (series.series_instance_uid, series.modality, series.series_description) == ("1.2.3.4.2", "CT", "CHEST")
    assert (series.instance_count, series.expected_count, series.state) == (2, 7, "receiving")
    assert (association.calling_ae, association.called_ae) == ("SCANNER", "AINODE")
    assert (association.peer_address, association.stored, association.refused) == ("127.0.0.1", 2, 0)
    assert association.end_reason == "released"
    assert "RAW" in association.implementation
    assert association.started_at < association.ended_at
    assert [row.association_id for row in node.rows(t.instance)] == [association.id] * 2


def test_a_series_whose_rows_were_deleted_on_the_way_begins_anew(start: Start, database_url: str) -> None:
    node = start(url=database_url)
    with Scu(node.port) as scu:
        scu.associate_for(ct())
        assert [scu.store(ct(number)) for number in (1, 2)] == [SUCCESS] * 2
        with transaction(node.engine) as tx:  # as retention does, long after
            for table in (t.instance, t.series, t.study):
                tx.execute(delete(table))
        assert [scu.store(ct(number)) for number in (3, 4, 1)] == [SUCCESS] * 3
        scu.release()
    (series,) = node.rows(t.series)
    assert series.instance_count == 3
    assert [row.sop_instance_uid for row in node.rows(t.instance)] == [ct(n).sop_instance_uid for n in (3, 4, 1)]
    assert {row.series_id for row in node.rows(t.instance)} == {series.id}


def test_storescu_sends_a_real_series(start: Start, database_url: str, chest_ct: Sequence[Path]) -> None:
    node = start(url=database_url)
    some = [str(path) for path in chest_ct[:40]]
    dcmtk("storescu", "-xt", "-aet", "SCANNER", "-aec", "AINODE", "127.0.0.1", str(node.port), *some)
    expected = {one.sop_instance_uid: one.data for one in (Instance.read(Path(path)) for path in some)}
    assert {uid: data_set(file) for uid, file in node.stored().items()} == expected


def test_pynetdicom_sends_over_contexts_with_several_transfer_syntaxes(start: Start, chest_ct: Sequence[Path]) -> None:
    node = start()
    files = [dcmread(path) for path in chest_ct[:5]]
    ae = AE("SCANNER")
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    ae.add_requested_context(CTImageStorage, files[0].file_meta.TransferSyntaxUID)
    assoc = ae.associate("127.0.0.1", node.port, ae_title="AINODE")
    assert assoc.is_established
    assert [assoc.send_c_store(ds).Status for ds in files] == [SUCCESS] * 5
    assoc.release()
    pixels = {ds.SOPInstanceUID: ds.PixelData for ds in files}
    assert {uid: dcmread(BytesIO(file)).PixelData for uid, file in node.stored().items()} == pixels


def test_sixteen_associations_at_once_store_everything(start: Start, database_url: str) -> None:
    node = start(url=database_url)
    # the associations share series, as a modality does that sends one series over several
    batches = [[ct(10 * batch + n, series=f"1.2.{batch % 3}") for n in range(10)] for batch in range(16)]
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda batch: store_all(node.port, batch), batches))
    assert statuses == [[SUCCESS] * 10] * 16
    sent = {one.sop_instance_uid: one.data for batch in batches for one in batch}
    assert {uid: data_set(file) for uid, file in node.stored().items()} == sent
    assert sum(series.instance_count for series in node.rows(t.series)) == 160
    assert len(node.rows(t.series)) == len(node.rows(t.study)) == len(node.events("series started")) == 3


def test_resending_the_same_bytes_succeeds_and_stores_nothing_new(start: Start, database_url: str) -> None:
    node = start(url=database_url)
    one = ct()
    assert store_all(node.port, [one, one]) == [SUCCESS, SUCCESS]
    files, settle_at = node.files(), node.rows(t.series)[0].settle_at
    assert store_all(node.port, [one]) == [SUCCESS]
    assert node.files() == files
    (series,) = node.rows(t.series)
    assert (series.instance_count, series.settle_at) == (1, settle_at)


def test_what_an_earlier_version_stored_is_compared_by_the_digest_that_it_took(start: Start, database_url: str) -> None:
    node = start(url=database_url)
    one = ct()
    assert store_all(node.port, [one]) == [SUCCESS]
    files, earlier = node.files(), hashlib.sha256(one.data).hexdigest()
    with transaction(node.engine) as tx:
        tx.execute(update(t.instance).values(digest=earlier))
    assert store_all(node.port, [one]) == [SUCCESS]
    assert store_all(node.port, [replace(one, data=one.data.replace(b"P1", b"P2"))]) == [DIFFERS]
    assert node.files() == files
    (told,) = node.events("instance refused: same UID, other bytes")
    assert told["kept"]["digest"] == earlier


def test_other_bytes_under_a_known_uid_are_refused_and_the_first_are_kept(start: Start, database_url: str) -> None:
    node = start(url=database_url)
    first, other = ct(), ct(PatientID="P2")
    assert store_all(node.port, [first, other]) == [SUCCESS, DIFFERS]
    assert {uid: data_set(file) for uid, file in node.stored().items()} == {first.sop_instance_uid: first.data}
    assert len([name for name in node.files() if name.startswith("instances/")]) == 1
    (event,) = node.soon(lambda: node.events("instance refused: same UID, other bytes"))
    assert event["instance"] == first.sop_instance_uid
    association = node.soon(lambda: next((row for row in node.rows(t.association) if row.ended_at), None))
    assert (association.stored, association.refused) == (1, 1)


def test_the_same_instance_over_sixteen_associations_is_stored_once(start: Start, database_url: str) -> None:
    node = start(url=database_url)
    one = ct(pixels=200_000)
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: store_all(node.port, [one, one]), range(16)))
    assert statuses == [[SUCCESS, SUCCESS]] * 16
    assert len(node.stored()) == 1
    assert len([name for name in node.files() if name.startswith("instances/")]) == 1


def test_a_late_instance_reopens_a_complete_series(start: Start, database_url: str) -> None:
    node = start(url=database_url)
    assert store_all(node.port, [ct(1)]) == [SUCCESS]
    with transaction(node.engine) as tx:
        tx.execute(update(t.series).values(state="complete", revision=1))
    assert store_all(node.port, [ct(1), ct(2)]) == [SUCCESS, SUCCESS]
    (series,) = node.rows(t.series)
    assert (series.state, series.revision, series.instance_count) == ("receiving", 1, 2)
    assert len(node.events("series reopened")) == 1


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"SOPInstanceUID": "1.2.9"}, MISMATCH),
        ({"SOPClassUID": MRImageStorage}, MISMATCH),
        ({"StudyInstanceUID": None}, NOT_UNDERSTOOD),
        ({"SeriesInstanceUID": ""}, NOT_UNDERSTOOD),
        ({"StudyInstanceUID": "../../etc/passwd"}, NOT_UNDERSTOOD),
        ({"SeriesInstanceUID": "1." * 40 + "1"}, NOT_UNDERSTOOD),
        ({"SOPInstanceUID": None}, NOT_UNDERSTOOD),
    ],
)
@pytest.mark.filterwarnings("ignore:.*UI:UserWarning")
def test_a_data_set_without_the_identity_of_its_command_is_refused(
    start: Start, changes: dict[str, Any], status: int
) -> None:
    node = start()
    with Scu(node.port) as scu:
        scu.associate_for(ct())
        assert scu.store(ct(1, **changes)) == status
        assert scu.store(ct(2)) == SUCCESS  # the association goes on
        scu.release()
    assert list(node.stored()) == [ct(2).sop_instance_uid]
    assert len(node.files()) == 1 + len([name for name in node.files() if not name.startswith("in")])
    (event,) = node.soon(lambda: node.events("instance refused"))
    assert event["status"] == f"0x{status:04X}"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"AffectedSOPInstanceUID": None}, NOT_UNDERSTOOD),
        ({"AffectedSOPInstanceUID": "no.uid"}, NOT_UNDERSTOOD),
        ({"AffectedSOPInstanceUID": "1.2.3/../x"}, NOT_UNDERSTOOD),
        ({"AffectedSOPClassUID": MRImageStorage}, MISMATCH),
        ({"AffectedSOPInstanceUID": "1.2.3"}, MISMATCH),
    ],
)
@pytest.mark.filterwarnings("ignore:.*UI:UserWarning")
def test_a_command_that_does_not_say_what_comes_is_refused_and_its_data_swallowed(
    start: Start, changes: dict[str, Any], status: int
) -> None:
    node = start()
    one = ct(pixels=500_000)
    with Scu(node.port) as scu:
        scu.associate_for(one)
        scu.begin_store(one, **changes)
        scu.send_data(one, one.data)
        assert scu.response().Status == status
        assert scu.store(one) == SUCCESS
    assert len(node.stored()) == 1


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # pydicom minds what the test writes
def test_texts_that_no_database_holds_do_not_keep_an_instance_out(start: Start, database_url: str) -> None:
    node = start(url=database_url)
    long = "L" * 300
    odd = ct(1, PatientID="P\x001", AccessionNumber=long, SeriesDescription=long, Modality=long, StudyDate=long)
    latin = ct(2, series="1.2.5", SpecificCharacterSet="ISO_IR 100", StudyDescription="Thorax für Müller")
    japanese = ct(3, series="1.2.6", SpecificCharacterSet=["", "ISO 2022 IR 87"], StudyDescription="\u80ba")
    unknown = ct(4, series="1.2.7", SpecificCharacterSet="ISO_IR 999")
    assert store_all(node.port, [odd, latin, japanese, unknown]) == [SUCCESS] * 4
    headers = {row.sop_instance_uid: row.header for row in node.rows(t.instance)}
    assert headers[latin.sop_instance_uid]["StudyDescription"] == "Thorax für Müller"
    assert headers[japanese.sop_instance_uid]["StudyDescription"] == "\u80ba"
    study = next(row for row in node.rows(t.study) if row.study_instance_uid == "1.2.3.4.1")
    assert "\0" not in study.patient_id
    assert study.accession_number == "L" * 64


def test_a_data_set_may_come_in_single_bytes_and_in_the_pdu_of_its_command(start: Start) -> None:
    node = start()
    one = ct(pixels=10)
    with Scu(node.port) as scu:
        scu.associate_for(one)
        scu.begin_store(one)
        scu.send_data(one, one.data, piece=1)
        assert scu.response().Status == SUCCESS

        command = scu.store_command(ct(2, pixels=10))
        context, data = scu.context_of(one), ct(2, pixels=10).data
        whole = p_data(pdv(context, 3, command_set(command)), pdv(context, 0, data[:7]), pdv(context, 2, data[7:]))
        for byte in whole:
            scu.socket.sendall(bytes([byte]))
        assert scu.response().Status == SUCCESS

        third = ct(3, pixels=10)  # the last fragment may be empty
        scu.begin_store(third)
        scu.send_data(third, third.data, ends=False)
        scu.socket.sendall(p_data(pdv(context, 2, b"")))
        assert scu.response().Status == SUCCESS
        scu.release()
    assert len(node.stored()) == 3
