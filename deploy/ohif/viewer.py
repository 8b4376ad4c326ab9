"""Open results in the OHIF viewer, straight from a PACS that speaks DICOMweb.

    python deploy/ohif/viewer.py --dicomweb http://127.0.0.1:8042/dicom-web

The viewer's built files come from the npm package @ohif/app, fetched once with `npm pack` into `--folder`. The page and
the PACS appear under one origin, so the browser asks no other host and the PACS needs no CORS. For looking at results
on one's own machine: it has no authentication and listens on the loopback address only.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from http.client import HTTPConnection
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

PACKAGE = "@ohif/app@3.12.10"
CONFIGURATION = """window.config = {
  routerBasename: '/', extensions: [], modes: [], customizationService: {}, showStudyList: true,
  maxNumberOfWebWorkers: 2, showLoadingIndicator: true, showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: false, strictZSpacingForVolumeViewport: true, investigationalUseDialog: { option: 'never' },
  defaultDataSourceName: 'pacs',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'pacs',
    configuration: {
      friendlyName: 'PACS', name: 'pacs', wadoUriRoot: '/dicom-web', qidoRoot: '/dicom-web', wadoRoot: '/dicom-web',
      qidoSupportsIncludeField: false, supportsReject: false, imageRendering: 'wadors', thumbnailRendering: 'wadors',
      enableStudyLazyLoad: true, supportsFuzzyMatching: false, supportsWildcard: true,
      omitQuotationForMultipartRequest: true, bulkDataURI: { enabled: true },
    },
  }],
};
"""


def main() -> int:
    """Fetch the viewer when it is not there yet, then serve it until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dicomweb", default="http://127.0.0.1:8042/dicom-web", help="DICOMweb root of the PACS")
    parser.add_argument("--folder", type=Path, default=Path("var/ohif"), help="where the viewer's files are kept")
    parser.add_argument("--port", type=int, default=3000)
    arguments = parser.parse_args()
    try:
        page = fetch(arguments.folder)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"could not fetch {PACKAGE}: {error}. It needs `npm`, and the npm registry once.", file=sys.stderr)
        return 1
    server = serve(page, arguments.dicomweb, arguments.port)
    print(f"OHIF on http://127.0.0.1:{arguments.port}/ shows {arguments.dicomweb} (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
    return 0


def fetch(folder: Path) -> Path:
    """Return the folder of the built viewer, downloading it on the first call."""
    page = folder / "package" / "dist"
    if (page / "index.html").exists():
        return page
    if shutil.which("npm") is None:
        raise FileNotFoundError("npm is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(Path(scratch).glob("*.tgz"))) as archive:
            archive.extractall(folder, filter="data")
    return page


def serve(page: Path, dicomweb: str, port: int) -> ThreadingHTTPServer:
    """Listen on the loopback address; `page` under ``/``, the PACS under ``/dicom-web``."""
    upstream = urlsplit(dicomweb)

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(page))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path.startswith("/dicom-web/"):
                self._pass_on()
            elif path == "/app-config.js":
                self._answer(200, {"content-type": "text/javascript"}, CONFIGURATION.encode())
            else:
                if not (page / path.lstrip("/")).is_file():
                    self.path = "/index.html"  # the viewer's own routes
                super().do_GET()

        def _pass_on(self) -> None:
            assert upstream.hostname is not None
            connection = HTTPConnection(upstream.hostname, upstream.port or 80, timeout=120)
            accept = self.headers.get("accept", "*/*")
            host = self.headers.get("host", "")
            connection.request(
                "GET", upstream.path + self.path.removeprefix("/dicom-web"), headers={"accept": accept, "host": host}
            )
            answer = connection.getresponse()
            body = answer.read()
            kept = {name: answer.headers[name] for name in ("content-type",) if name in answer.headers}
            self._answer(answer.status, kept, body)
            connection.close()

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def end_headers(self) -> None:
            self.send_header("cross-origin-opener-policy", "same-origin")
            self.send_header("cross-origin-embedder-policy", "require-corp")
            super().end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
            """Keep the terminal quiet."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    sys.exit(main())
