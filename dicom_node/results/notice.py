"""That there is no result, for archives that take no structured report: on paper, or as a picture."""

from __future__ import annotations

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_node.domain.job import FailedJob
from dicom_node.results.capture import capture
from dicom_node.results.header import Origin
from dicom_node.results.pdf import encapsulated
from dicom_node.results.sheet import AMBER, BACKGROUND, MUTED, paragraph, stacked
from dicom_node.results.unanalysed import comment_on, describe
from dicom_node.results.words import NOT_FOR_DIAGNOSIS

_WIDTH, _MARGIN = 800, 32


def build_notice_pdf(origin: Origin, failed: FailedJob) -> Dataset:
    """Print what the report of a failed job says, as an encapsulated PDF."""
    from dicom_node.results.printed import print_notice  # its library is slow to load, and few want a PDF

    head = f"NOT ANALYSED ({failed.failure.value})"
    said = comment_on(origin, failed)

    def printed(identity: Dataset) -> bytes:
        return print_notice(origin, identity, f"{head}: {origin.card.title}", said)

    return encapsulated(origin, describe(origin, failed.failure), codes.DCM.ImagingMeasurementReport, [], printed)


def build_notice_sc(origin: Origin, failed: FailedJob) -> Dataset:
    """Draw what the report of a failed job says. It names no patient: a viewer says whose it is."""
    said = comment_on(origin, failed)
    lines = [
        paragraph(f"NOT ANALYSED ({failed.failure.value})", _WIDTH, 26, AMBER),
        paragraph(origin.card.title, _WIDTH, 20),
        paragraph(said, _WIDTH, 16),
        paragraph(f"{origin.time:%Y-%m-%d %H:%M}. {NOT_FOR_DIAGNOSIS}", _WIDTH, 14, MUTED),
    ]
    body = stacked(lines, 18)
    page = Image.new("RGB", (_WIDTH + 2 * _MARGIN, body.height + 2 * _MARGIN), BACKGROUND)
    page.paste(body, (_MARGIN, _MARGIN))
    return capture(origin, np.asarray(page), "sc", 4, describe(origin, failed.failure), said)
