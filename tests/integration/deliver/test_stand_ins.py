"""What a peer turns out not to take, as it is sent, has the stand-ins that a probed profile would have given it."""

from __future__ import annotations

import pytest
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EncapsulatedPDFStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
)

from dicom_node.domain.model import OutputKind as K
from tests.integration.deliver.peer import MakeScp
from tests.integration.deliver.rows import deliveries
from tests.integration.deliver.site import Site
from tests.integration.deliver.test_encodings import story, went

MADE = (K.SEG, K.SC, K.RTSTRUCT, K.OVERLAY, K.CAPTURES, K.CAPTURES, K.PDF, K.SR)
WANTED = {"pacs": (K.SEG, K.SR)}
PICTURES, CONTOURS = MultiFrameTrueColorSecondaryCaptureImageStorage, RTStructureSetStorage
PICTURE, PAPER = SecondaryCaptureImageStorage, EncapsulatedPDFStorage


@pytest.mark.parametrize(
    ("takes", "gets"),
    [
        ((CONTOURS, PICTURES, Comprehensive3DSRStorage), ["overlay", "rtstruct", "sr"]),
        (
            (CONTOURS, PICTURE, PAPER),
            ["captures", "captures-2", "pdf", "rtstruct"],
        ),
        ((PICTURE,), ["captures", "captures-2", "sc"]),
    ],
)
def test_each_role_of_what_is_refused_is_taken_over_by_the_first_that_was_made_and_is_taken(
    takes: tuple[str, ...], gets: list[str], site: Site, scp: MakeScp
) -> None:
    peer = scp(classes=takes)
    site.deliverer({"pacs": peer.port})
    job = site.results(kinds=MADE, wanted=WANTED)
    site.wait(lambda: set(went(site, job).values()) == {"delivered", "failed"})
    assert sorted(kind for kind, state in went(site, job).items() if state == "delivered") == gets
    by_kind = {row.kind: row.sop_instance_uid for row in deliveries(site.engine, job)}
    assert sorted(peer.stored) == sorted(by_kind[kind] for kind in gets), "and each once"
    told = story(site, job)
    assert "pacs does not take SEG: " in told
    assert f"{'OVERLAY' if PICTURES in takes else 'CAPTURES'} goes instead" in told
