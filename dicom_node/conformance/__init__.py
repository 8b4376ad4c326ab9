"""The tables of the DICOM conformance statement, made from the code (PS3.2 annex N): `refreshed`.

The words of docs/conformance.md are written by hand; between ``<!-- table: NAME -->`` and ``<!-- end -->`` stands what
`TABLES` makes of the code. ``make conformance`` writes it anew, and a test fails when that would change anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from dicom_node.conformance.markdown import Row, table
from dicom_node.conformance.objects import attributes, codes_of_ours, kinds_made
from dicom_node.conformance.services import (
    dicomweb_resources,
    identity,
    rejections,
    services,
    settings_of_destinations,
    settings_of_the_listener,
    storage_classes,
    transfer_syntaxes,
)
from dicom_node.conformance.statuses import (
    commitment_failures,
    commitment_requests,
    queries,
    store_provider,
    store_user,
)

TABLES: dict[str, Callable[[], list[Row]]] = {
    "services": services,
    "objects": kinds_made,
    "identity": identity,
    "listener": settings_of_the_listener,
    "destinations": settings_of_destinations,
    "rejections": rejections,
    "storage classes": storage_classes,
    "transfer syntaxes": transfer_syntaxes,
    "store as SCP": store_provider,
    "store as SCU": store_user,
    "commitment requests": commitment_requests,
    "commitment reports": commitment_failures,
    "queries": queries,
    "DICOMweb": dicomweb_resources,
    "attributes": attributes,
    "local codes": codes_of_ours,
}
_PLACE = re.compile(r"(?<=<!-- table: )([A-Za-z ]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


def refreshed(page: str) -> str:
    """Write every table of a statement anew.

    Parameters
    ----------
    page : str
        Markdown.

    Raises
    ------
    KeyError
        If it asks for a table that nobody makes.
    """
    return _PLACE.sub(lambda place: f"{place[1]}{place[2]}{table(TABLES[place[1]]())}\n", page)
