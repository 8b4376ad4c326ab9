"""Every storage class and transfer syntax is stored as it comes; private classes when somebody has named them."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined]  # made at import

from dicom_node.db import tables as t
from dicom_node.db.engine import transaction
from dicom_node.explain import explain
from dicom_node.receive.classes import storage_classes, transfer_syntaxes
from tests.integration.receive.conftest import Start
from tests.integration.receive.objects import ct
from tests.integration.receive.scu import Instance, Scu, store_all

PRIVATE = "1.2.840.113619.4.26"  # GE's 3D model storage
DEFLATED = (DeflatedExplicitVRLittleEndian, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")  # and those of JPIP
RULE = f'model = "chest_ct"\ndestinations = ["pacs"]\n\n[when]\nSOPClassUID = ["{PRIVATE}"]\n'


def instance(number: int, sop_class: str, syntax: UID = ExplicitVRLittleEndian) -> Instance:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, f"1.2.3.4.3.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.4.1", "1.2.3.4.2"
    ds.PatientID, ds.Modality = "P1", "OT"
    data = encode(ds, syntax.is_implicit_VR, syntax.is_little_endian)
    assert data is not None
    if syntax in DEFLATED:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = deflater.compress(data) + deflater.flush()
    return Instance(sop_class, ds.SOPInstanceUID, syntax, data)


def test_every_storage_class_is_stored(start: Start) -> None:
    node = start()
    every = [instance(n, uid) for n, uid in enumerate(sorted(storage_classes()))]
    assert {"1.2.840.10008.5.1.4.1.1.5", "1.2.840.10008.5.1.4.1.1.66.7"} <= storage_classes()  # retired, and new
    for first in range(0, len(every), 100):  # an association has 128 contexts at most
        some = every[first : first + 100]
        assert store_all(node.port, some) == [0x0000] * len(some)
    assert {row.sop_class_uid for row in node.rows(t.instance)} == {*storage_classes()}


def test_every_transfer_syntax_is_stored_byte_for_byte(start: Start) -> None:
    node = start()
    every = [instance(n, "1.2.840.10008.5.1.4.1.1.2", uid) for n, uid in enumerate(sorted(transfer_syntaxes()))]
    assert store_all(node.port, every) == [0x0000] * len(every)
    stored = node.stored()
    assert [one.transfer_syntax_uid for one in every if not stored[one.sop_instance_uid].endswith(one.data)] == []
    assert {row.transfer_syntax_uid for row in node.rows(t.instance)} == {*transfer_syntaxes()}


def test_a_private_class_that_nobody_named_is_refused_and_told(start: Start) -> None:
    node = start()
    asked = (PRIVATE, [ExplicitVRLittleEndian])
    for _ in range(2):
        with Scu(node.port) as scu:
            scu.associate(asked, (ModalityWorklistInformationFind, [ImplicitVRLittleEndian]))
            assert (PRIVATE, ExplicitVRLittleEndian) not in scu.contexts
            scu.release()
    events = node.soon(lambda: node.events("SOP class not named"))
    assert events == [{"from": "SCANNER", "address": "127.0.0.1", "sop_classes": [PRIVATE]}]
    for text in ("SCANNER", PRIVATE):
        with transaction(node.engine) as tx:
            (story,) = explain(tx, text)
        assert f"SCANNER (127.0.0.1) may not send {PRIVATE}" in story.answer
        assert "receive.sop_classes" in story.answer


@pytest.mark.parametrize("by", ["setting", "rule"])
def test_a_private_class_that_somebody_named_is_stored(start: Start, tmp_path: Path, by: str) -> None:
    (tmp_path / "rules").mkdir()
    if by == "rule":
        (tmp_path / "rules" / "model.toml").write_text(RULE)
    named = {"sop_classes": [PRIVATE]} if by == "setting" else {}
    node = start(settings={"rules": tmp_path / "rules"}, **named)
    assert store_all(node.port, [instance(1, PRIVATE), ct(2)]) == [0x0000, 0x0000]
    assert not node.events("SOP class not named")


def test_a_rule_that_is_switched_off_names_nothing(start: Start, tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "model.toml").write_text("enabled = false\n" + RULE)
    node = start(settings={"rules": tmp_path / "rules"})
    with Scu(node.port) as scu:
        assert (PRIVATE, ExplicitVRLittleEndian) not in scu.associate((PRIVATE, [ExplicitVRLittleEndian])).contexts
