"""Ask a DICOMweb service for studies: QIDO-RS, then WADO-RS instance by instance (PS3.18 sections 10.6 and 10.4)."""

from __future__ import annotations

import json
from typing import Any

from dicom_node.deliver.web import Service
from dicom_node.domain.delivery import StowDestination
from dicom_node.domain.retrieval import Kind
from dicom_node.errors import DeliveryError

PAGE = 500
_MOST_PAGES = 2_000
_ANY = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_STUDY, _SERIES, _INSTANCE, _ACCESSION = "0020000D", "0020000E", "00080018", "00080050"


def find_studies(web: Service, source: StowDestination, kind: Kind, value: str) -> list[str]:
    """Search for the studies with an accession number, or for one by its UID; their Study Instance UIDs.

    Raises
    ------
    DeliveryError
        When the service does not answer, or refuses.
    """
    attribute, keyword = (_STUDY, "StudyInstanceUID") if kind is Kind.STUDY else (_ACCESSION, "AccessionNumber")
    found = _search(web, source, "/studies", {keyword: value, "includefield": attribute})
    same = [one for one in found if _value(one, attribute).strip() == value]
    return list(dict.fromkeys(uid for one in same if (uid := _value(one, _STUDY))))


def list_instances(web: Service, source: StowDestination, study: str) -> list[tuple[str, str]]:
    """List the instances of a study, page by page: series and SOP Instance UID of each.

    Raises
    ------
    DeliveryError
        When the service does not answer, or refuses.
    """
    listed: dict[tuple[str, str], None] = {}
    for page in range(_MOST_PAGES):
        fields = {"includefield": _SERIES, "limit": str(PAGE), "offset": str(page * PAGE)}
        found = _search(web, source, f"/studies/{study}/instances", fields)
        new = [(_value(one, _SERIES), _value(one, _INSTANCE)) for one in found]
        before = len(listed)
        listed |= dict.fromkeys(one for one in new if all(one))
        if len(listed) == before:  # no more, or a service that knows no pages
            break
        if len(found) < PAGE:
            break
    return list(listed)


def retrieve(web: Service, source: StowDestination, study: str, series: str, instance: str) -> bytes:
    """Fetch one instance as a file, in the transfer syntax that it is stored in.

    Raises
    ------
    DeliveryError
        When the service does not give it.
    """
    answer = web.request(
        "GET",
        f"/studies/{study}/series/{series}/instances/{instance}",
        allowed_s=source.timeout_s,
        headers={"Accept": _ANY},
    )
    if answer.status != 200:
        raise web.refused(answer, "a retrieval")
    kind = answer.headers.get("Content-Type", "")
    return answer.data if kind.startswith("application/dicom") else _only_part(answer.data, kind, source.name)


def _search(web: Service, source: StowDestination, path: str, fields: dict[str, str]) -> list[dict[str, Any]]:
    answer = web.request("GET", path, allowed_s=source.timeout_s, fields=fields)
    if answer.status in (204, 404):  # some answer 404 for what they do not have
        return []
    if answer.status != 200:
        raise web.refused(answer, "a search")
    try:
        found = json.loads(answer.data)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise DeliveryError(f"{source.name} answered a search with something that is no JSON", retry=True)
    return [one for one in found if isinstance(one, dict)]


def _value(ds: dict[str, Any], tag: str) -> str:
    element = ds.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""


def _only_part(body: bytes, kind: str, name: str) -> bytes:
    """Take the part out of a multipart body that has one."""
    _, _, after = kind.partition("boundary=")
    boundary = b"--" + after.partition(";")[0].strip().strip('"').encode("latin-1", "replace")
    start = body.find(b"\r\n\r\n")
    end = body.rfind(b"\r\n" + boundary)
    if not after or start < 0 or end < start:
        raise DeliveryError(f"{name} answered a retrieval with something that is no multipart", retry=True)
    return body[start + 4 : end]
