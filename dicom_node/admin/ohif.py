"""The OHIF viewer under /ohif/, where it is installed: its files, and its configuration for this node's DICOMweb.

It is behind the gate like everything else, and asks the node for images as whoever is signed in. Its policy is looser
than that of our own pages by what it cannot do without: styles that it makes at run time, WebAssembly, workers and
pictures from memory; and eval, since its codecs and its arrays (of which it makes segmentations) write their loops at
run time. No other host, and of inline script only what its page had when it was installed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import FileResponse, HTMLResponse, Response

from dicom_node.admin.desk import desk_of
from dicom_node.admin.guard import needs
from dicom_node.domain.people import Right
from dicom_node.viewer import PREFIX, installed

router = APIRouter(prefix=PREFIX, include_in_schema=False, dependencies=[Depends(needs(Right.VIEW))])

_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval' {hashes}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_CONFIGURATION = {
    "routerBasename": PREFIX,
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "maxNumberOfWebWorkers": 3,
    "showLoadingIndicator": True,
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "strictZSpacingForVolumeViewport": True,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "node",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "node",
            "configuration": {
                "friendlyName": "dicom-node",
                "name": "node",
                "wadoUriRoot": "/dicom-web",
                "qidoRoot": "/dicom-web",
                "wadoRoot": "/dicom-web",
                "qidoSupportsIncludeField": False,
                "supportsReject": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsFuzzyMatching": False,
                "supportsWildcard": True,
                "omitQuotationForMultipartRequest": True,
                "bulkDataURI": {"enabled": True},
            },
        }
    ],
}


def viewer_of(request: Request) -> Path | None:
    """Return the folder of the viewer that this node serves; None when none is installed."""
    return installed(desk_of(request).settings.web.ohif)


@router.get("/app-config.js")
def configuration(request: Request) -> Response:
    """Say where the images are."""
    _folder(request)
    return Response(f"window.config = {json.dumps(_CONFIGURATION)};", media_type="text/javascript")


@router.get("/{path:path}")
def file(request: Request, path: str) -> Response:
    """Give a file of the viewer; its own routes are all the one page."""
    folder = _folder(request)
    found = (folder / path).resolve()
    if found.is_file() and found.is_relative_to(folder.resolve()) and found.name != "index.html":
        answer: Response = FileResponse(found, headers={"cache-control": "private, max-age=86400"})
        policy = _POLICY.format(hashes="")
    elif "." in path.rpartition("/")[2]:
        raise HTTPException(404)
    else:
        page, hashes = _page(folder)
        answer, policy = HTMLResponse(page), _POLICY.format(hashes=hashes)
    answer.headers["content-security-policy"] = policy
    answer.headers["cross-origin-embedder-policy"] = "require-corp"  # memory that its workers share needs it
    return answer


@lru_cache(maxsize=2)
def _page(folder: Path) -> tuple[str, str]:
    """Read the page, and the hashes of the inline scripts that it came with."""
    page = (folder / "index.html").read_text(encoding="utf-8")
    digests = (hashlib.sha256(script.encode()).digest() for script in _INLINE.findall(page))
    return page, " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def _folder(request: Request) -> Path:
    folder = viewer_of(request)
    if folder is None:
        raise HTTPException(404, "OHIF is not installed here: `dicom-node ohif fetch` does it.")
    return folder
