"""Serve the application until told to stop."""

from __future__ import annotations

import logging
from threading import Event, Thread

import uvicorn

from dicom_node.admin.desk import Desk
from dicom_node.admin.site import build_site

_MOST_CONNECTIONS = 256
_LONGEST_HEADER = 32 * 1024
_STOP_S = 5
_log = logging.getLogger(__name__)


def serve_site(desk: Desk, stop: Event) -> None:
    """Listen as the settings say, until `stop`.

    Raises
    ------
    OSError
        When the port cannot be had.
    """
    web = desk.settings.web
    site = build_site(desk)
    config = uvicorn.Config(
        site,
        host=web.address,
        port=web.port,
        ssl_certfile=web.certificate,
        ssl_keyfile=str(web.private_key) if web.private_key else None,
        proxy_headers=bool(web.proxies),
        forwarded_allow_ips=list(web.proxies),
        log_config=None,
        access_log=False,  # a query may name a patient
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        h11_max_incomplete_event_size=_LONGEST_HEADER,
        http="h11",
        ws="none",
        timeout_graceful_shutdown=_STOP_S,
    )
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, name="web", daemon=True)  # not in the main thread: the signals are ours
    thread.start()
    scheme = "https" if web.certificate else "http"
    while thread.is_alive() and not stop.wait(0.2):
        if server.started:
            _log.info("web pages on %s://%s:%d/", scheme, web.address, web.port)
            stop_when(stop, thread)
    server.should_exit = True
    thread.join(_STOP_S + 2)
    site.state.shelf.stop(_STOP_S)
    if not stop.is_set():
        raise OSError(f"the web server on port {web.port} ended by itself")


def stop_when(stop: Event, thread: Thread) -> None:
    """Wait until told to stop, or until the server has ended by itself."""
    while thread.is_alive() and not stop.wait(0.5):
        pass
