"""Notifications: each told once and without the patient, over real HTTP and SMTP, again while nobody takes it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socketserver
import threading
from collections.abc import Iterator
from datetime import timedelta
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import select, update

from dicom_node.db import chain
from dicom_node.db import tables as t
from dicom_node.db.engine import transaction, utc_now
from dicom_node.domain.delivery import Sent
from dicom_node.errors import DeliveryError
from dicom_node.notify.notifier import Notifier
from dicom_node.settings import Notify, NotifyRule
from tests.ct import small_ct
from tests.integration.operated import Operated, operated
from tests.unit.results.case import built_of, make_case, nodules

SECRET = "whsec_" + base64.b64encode(b"a secret of the pager").decode()


class Hook:
    """A webhook receiver: answers with `statuses` one after the other, the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        self.posts: list[tuple[dict[str, str], bytes]] = []
        answers, posts = list(statuses or (204,)), self.posts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                posts.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
                self.end_headers()

            def log_message(self, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/ainode?x=1"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(body)["data"] for _, body in self.posts]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class MailServer:
    """An SMTP server (RFC 5321) that keeps what it gets; `refuse` names a recipient it has no room for."""

    def __init__(self, refuse: str = "-") -> None:
        self.mails: list[bytes] = []
        mails = self.mails

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 mail\r\n")
                while line := self.rfile.readline():
                    verb = line[:4].upper()
                    if verb == b"DATA":
                        self.wfile.write(b"354 go on\r\n")
                        text = b""
                        while (more := self.rfile.readline()) != b".\r\n":
                            text += more
                        mails.append(text)
                    if verb == b"RCPT" and refuse.encode() in line:
                        self.wfile.write(b"452 no room\r\n")
                        continue
                    self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def node(database_url: str, tmp_path: Path) -> Iterator[Operated]:
    with operated(database_url, tmp_path) as made:
        yield made


def notifier(node: Operated, hook: Hook, mail: MailServer | None = None, **rules: Any) -> Notifier:
    channels: dict[str, Any] = {"pager": {"kind": "webhook", "url": hook.url, "secret": SECRET}}
    if mail is not None:
        sender = {"host": "127.0.0.1", "port": mail.port, "tls": "none", "sender": "ainode@hospital.example"}
        channels["radiology"] = {"kind": "mail", **sender, "recipients": ["radiology@hospital.example"]}
    settings = Notify.model_validate({"channels": channels, "rules": rules})
    return Notifier(node.engine, settings, "ainode", "test", node.spool)


def step(node: Operated, one: Notifier) -> None:
    with transaction(node.engine) as tx:
        while chain.extend(tx):
            pass
    one.step()


def make_due(node: Operated) -> None:
    with transaction(node.engine) as tx:
        tx.execute(update(t.notification).where(t.notification.c.state == "waiting").values(next_attempt_at=utc_now()))


def outcomes(node: Operated) -> list[tuple[str, int]]:
    with transaction(node.engine) as tx:
        return [(row.state, row.attempt) for row in tx.execute(select(t.notification))]


def audited(node: Operated, event: str) -> list[dict[str, Any]]:
    with transaction(node.engine) as tx:
        return list(tx.scalars(select(t.audit_event.c.detail).where(t.audit_event.c.event == event)))


def test_each_rule_is_told_its_own_once_and_without_the_patient(node: Operated, tmp_path: Path) -> None:
    hook, mail = Hook(), MailServer()
    one = notifier(
        node,
        hook,
        mail,
        found={"on": "finding", "to": ["pager", "radiology"], "label": "left"},
        other={"on": "finding", "to": ["pager"], "label": "Nodule"},
        elsewhere={"on": "failure", "to": ["pager"], "models": ["heart"]},
        broken={"on": "failure", "to": ["pager"]},
        unfit={"on": "not eligible", "to": ["pager"], "subject": "$node\nBcc: evil", "text": "$patient_id|$model"},
        refused={"on": "delivery failed", "to": ["pager"]},
    )
    paths = small_ct(tmp_path / "ct", slices=8)
    node.receive(paths)
    (job,) = node.jobs()
    node.complete(job["id"])
    node.send(DeliveryError("pacs answered 0xC000", retry=False, status=0xC000), Sent(0x0000))
    node.receive(small_ct(tmp_path / "fails", slices=8))
    (bad,) = node.jobs(state="scheduled")
    node.fail(bad["id"])
    node.receive(small_ct(tmp_path / "gap", slices=8, change=lambda n, ds: None if n == 4 else ds))

    step(node, one)
    step(node, one)

    told = {said["rule"]: said for said in hook.told()}
    assert sorted(told) == ["broken", "found", "refused", "unfit"]
    assert len(hook.posts) == 4
    assert told["found"]["findings"] == "Left lung"
    assert told["broken"]["text"].startswith(f"Job {bad['id'][:8]} (lung, rule chest) failed for good: The model")
    assert told["refused"]["text"].startswith(f"SEG of job {job['id'][:8]} could not be delivered to pacs: pacs")
    assert told["unfit"]["text"] == "$patient_id|lung"
    (sent,) = [message_from_bytes(text, policy=default) for text in mail.mails]
    assert (sent["To"], sent["Subject"]) == ("radiology@hospital.example", "ainode: lung found something")
    assert sent.get_content().strip() == f"Job {job['id'][:8]} (lung, rule chest) found: Left lung."
    ds = dcmread(paths[0])
    everything = b"".join(body for _, body in hook.posts) + b"".join(mail.mails)
    for name in (
        "PatientID",
        "PatientName",
        "AccessionNumber",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "PatientBirthDate",
    ):
        assert str(ds[name].value).encode() not in everything
    assert len(audited(node, "notification sent")) == 5
    hook.close()
    mail.close()


def test_a_webhook_is_signed_and_tried_again_under_the_same_id(node: Operated, tmp_path: Path) -> None:
    hook = Hook(503, 500, 204)
    one = notifier(node, hook, broken={"on": "failure", "to": ["pager"], "patient": True})
    node.receive(small_ct(tmp_path / "ct", slices=8))
    node.fail(node.jobs()[0]["id"])
    for _ in range(4):
        step(node, one)
        make_due(node)

    assert outcomes(node) == [("sent", 3)]
    assert len({headers["webhook-id"] for headers, _ in hook.posts}) == 1
    for headers, body in hook.posts:
        text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = hmac.new(b"a secret of the pager", text, hashlib.sha256).digest()
        assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    assert "Patient ID SYN-001" in hook.told()[0]["text"], "its rule says patient = true"
    hook.close()


def test_what_will_not_be_taken_is_given_up_and_audited(node: Operated, tmp_path: Path) -> None:
    hook, mail = Hook(410), MailServer(refuse="radiology")
    one = notifier(node, hook, mail, broken={"on": "failure", "to": ["pager", "radiology"]})
    node.receive(small_ct(tmp_path / "ct", slices=8))
    node.fail(node.jobs()[0]["id"])
    step(node, one)
    assert sorted(outcomes(node)) == [("failed", 1), ("waiting", 1)]
    with transaction(node.engine) as tx:
        tx.execute(update(t.notification).values(created_at=utc_now() - timedelta(days=3)))
    make_due(node)
    step(node, one)

    assert sorted(outcomes(node)) == [("failed", 1), ("failed", 2)]
    errors = sorted(detail["error"] for detail in audited(node, "notification failed"))
    assert errors == ["127.0.0.1 answered with HTTP status 410", "127.0.0.1 refused every recipient"]
    hook.close()
    mail.close()


def test_a_backlog_is_told_once_and_the_past_not_at_all(node: Operated, tmp_path: Path) -> None:
    node.receive(small_ct(tmp_path / "before", slices=8))
    node.fail(node.jobs()[0]["id"])
    with transaction(node.engine) as tx:
        chain.extend(tx)
    hook = Hook()
    one = notifier(
        node, hook, late={"on": "backlog", "to": ["pager"], "after_s": 60}, broken={"on": "failure", "to": ["pager"]}
    )
    node.receive(small_ct(tmp_path / "ct", slices=8))
    step(node, one)
    assert hook.posts == []
    with transaction(node.engine) as tx:
        waiting = update(t.job).where(t.job.c.state == "scheduled")
        tx.execute(waiting.values(created_at=utc_now() - timedelta(minutes=7)))
    step(node, one)
    step(node, one)
    assert [said["minutes"] for said in hook.told()] == ["7"]
    hook.close()


def test_a_mail_can_hold_the_report_which_names_nobody_unless_the_rule_says_so(tmp_path: Path) -> None:
    with operated(f"sqlite:///{tmp_path / 'node.db'}", tmp_path) as node:
        mail, hook = MailServer(), Hook()
        words = {"on": "finding", "to": ["radiology"], "text": "Job $job:\n$report\n"}
        one = notifier(node, hook, mail, plain=words, named={**words, "patient": True})
        case = make_case(tmp_path / "case")
        report = built_of(case, *nodules(case), node.spool).files["sr"]
        node.receive(small_ct(tmp_path / "ct", slices=8))
        (job,) = node.jobs()
        node.complete(job["id"])
        node.spool.write(f"results/{job['id']}", "sr.dcm", report)
        step(node, one)
        hook.close()
        mail.close()
    said = sorted(
        (message_from_bytes(text, policy=default).get_content().replace("\r\n", "\n") for text in mail.mails), key=len
    )
    ds = dcmread(BytesIO(report))
    for text in said:
        assert text.startswith(f"Job {job['id'][:8]}:\nImaging Measurement Report: complete, preliminary, unverified\n")
        assert "    Nodule 1: Nodule, lung (left)\n      Long axis: 8.4 mm\n" in text
        assert (str(ds.PatientName) in text) == (text is said[1])
    for name in ("PatientName", "PatientID", "AccessionNumber", "StudyInstanceUID", "PatientBirthDate", "StudyDate"):
        assert str(ds[name].value) not in said[0], name


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"on": "failure", "text": "$report"}, "there is no \\$report yet"),
        ({"on": "finding", "subject": "$report"}, "many lines"),
    ],
)
def test_a_report_is_asked_for_only_where_there_is_one(rule: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        NotifyRule.model_validate({"to": ["radiology"], **rule})
