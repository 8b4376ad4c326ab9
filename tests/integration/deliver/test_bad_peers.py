"""Bad destinations, all at once, beside a good one: nothing lost, nothing twice, the good one not held up.

Time is simulated by the settings: an hour, the longest wait between two tries, is 0.3 s here.
"""

from __future__ import annotations

import random
import socket
import threading
from collections import Counter
from contextlib import ExitStack

from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage
from pynetdicom import evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind as StudyRootFind,
)
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

from dicom_node.domain.model import OutputKind
from tests.integration.deliver.archive import Archive
from tests.integration.deliver.rows import attempts, deliveries, proofs
from tests.integration.deliver.site import Site
from tests.node import free_port

HOUR_S = 0.3
KINDS = (OutputKind.SEG, OutputKind.SC, OutputKind.SR)
VERIFY = 'verify = "query"\nverify_after_s = 0.3\nverify_timeout_s = 0.6'
NO_SEG = (SecondaryCaptureImageStorage, Comprehensive3DSRStorage, Verification, StudyRootFind)


class Dropping:
    """Cuts the connection in the middle of an object, so many times."""

    def __init__(self, times: int) -> None:
        self.left = times
        self._lock = threading.Lock()

    def __call__(self, event: evt.Event) -> None:
        # the data set comes in several PDUs after that of the command: cut at the first of them
        if isinstance(event.pdu, P_DATA_TF) and len(event.pdu.encode()) > 8192:
            with self._lock:
                if self.left == 0:
                    return
                self.left -= 1
            line = event.assoc.dul.socket
            assert line is not None
            assert line.socket is not None
            line.socket.shutdown(socket.SHUT_RDWR)


def test_no_object_is_lost_or_doubled_and_no_destination_waits_for_another(site: Site) -> None:
    seeded = random.Random(5)
    moody = [seeded.choice((0xA700, 0x0000)) for _ in range(20)]
    down_port, dropping = free_port(), Dropping(3)
    with ExitStack() as stack:
        peers = {
            "good": stack.enter_context(Archive()),
            "moody": stack.enter_context(Archive(statuses=[*moody, 0x0000])),
            "dropping": stack.enter_context(Archive(on_pdu=dropping)),
            "forgetful": stack.enter_context(Archive(loses=1)),
            "no_seg": stack.enter_context(Archive(classes=NO_SEG)),
        }
        names = [*peers, "down"]
        site.deliverer(
            {name: peer.port for name, peer in peers.items()} | {"down": down_port}, more=VERIFY, longest_s=HOUR_S
        )
        job = site.results(*names, kinds=KINDS, wanted={"no_seg": [OutputKind.SEG, OutputKind.SR]})

        def proven(name: str) -> int:
            return sum(proof.state == "proven" for proof in proofs(site.engine, job, name))

        site.wait(lambda: proven("good") == 3, 120)
        assert site.states(job, "down")[1:] == ["waiting", "waiting"], "it is away, and held up nobody"
        [first, *_] = deliveries(site.engine, job, "down")
        site.wait(lambda: len(attempts(site.engine, first.id)) >= 12, 120)  # twelve hours
        peers["down"] = stack.enter_context(Archive(port=down_port))
        wanted = dict.fromkeys(names, 3) | {"no_seg": 2}
        site.wait(lambda: all(proven(name) == count for name, count in wanted.items()), 120)

        for name, peer in peers.items():
            sent = [row for row in deliveries(site.engine, job, name) if row.state == "delivered"]
            in_order = [row.sop_instance_uid for row in sent]
            again = in_order[:1] if name == "forgetful" else []
            # what was cut off may have arrived as a whole: then it comes again, the same object byte for byte
            arrived = peer.received if name != "dropping" else list(dict.fromkeys(peer.received))
            uids = [uid for uid, _, _ in arrived]
            # what was lost is sent again as soon as that is known, which may be before the last object is sent
            assert uids == in_order if not again else Counter(uids) == Counter(in_order + again), name
            assert set(peer.held) == set(in_order), name
        assert [row.kind for row in deliveries(site.engine, job, "no_seg") if row.state == "delivered"] == ["sc", "sr"]
        assert dropping.left == 0
        tried = [attempt for row in deliveries(site.engine, job, "moody") for attempt in attempts(site.engine, row.id)]
        assert any(status == 0xA700 for _, _, status in tried)
