"""A small HTTP server for metrics and health, where the web pages are not wanted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sqlalchemy import Engine

from dicom_node.health import Health, State, health, ready
from dicom_node.metrics.exposition import CONTENT_TYPE, Metrics
from dicom_node.settings import Settings
from dicom_node.spool import Spool

Answer = tuple[HTTPStatus, str, bytes]


class MetricsServer:
    """Answers ``/metrics``, ``/health`` and ``/ready``, to anybody who can reach it.

    Parameters
    ----------
    host, port : str, int
        Where it listens; port 0 takes a free one, told by `port`.
    """

    def __init__(self, settings: Settings, engine: Engine, spool: Spool, host: str, port: int) -> None:
        metrics = Metrics(settings, engine, spool)
        metrics.exposition()  # counting begins here, not at the first scrape
        answers: dict[str, Callable[[], Answer]] = {
            "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE, metrics.exposition()),
            "/health": lambda: health_answer(health(settings, engine, spool)),
            "/ready": lambda: health_answer(ready(settings, engine, spool)),
        }
        self._server = _Server((host, port), _handler(answers))
        self.port: int = self._server.server_address[1]

    def run(self, stop: threading.Event) -> None:
        """Answer until `stop`."""
        serving = threading.Thread(target=self._server.serve_forever, args=(0.2,), daemon=True)
        serving.start()
        stop.wait()
        self._server.shutdown()
        self._server.server_close()
        serving.join(timeout=5)


def health_answer(found: Health) -> Answer:
    """Write health as JSON; 503 when the node is down."""
    body = {"state": found.state, "checks": [asdict(check) for check in found.checks]}
    status = HTTPStatus.SERVICE_UNAVAILABLE if found.state is State.DOWN else HTTPStatus.OK
    return status, "application/json", json.dumps(body, indent=1).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def _handler(answers: dict[str, Callable[[], Answer]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = "dicom-node"
        sys_version = ""
        timeout = 10

        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            status, kind, body = answer() if answer else (HTTPStatus.NOT_FOUND, "text/plain", b"not found\n")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Log nothing: what somebody asks for may name a patient."""

    return Handler
