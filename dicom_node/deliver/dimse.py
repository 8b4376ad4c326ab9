"""C-STORE to a destination: negotiated per object, sent from the file, every answer understood.

Each object is proposed in its own transfer syntax, a compressed one in further compressions without loss, and in the
two uncompressed ones that every peer must know (PS3.5 10.1), each in a context of its own so that the peer's choice is
ours to make. The bytes go as they are when their own syntax was accepted, and are re-encoded otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

from dicom_node.deliver.association import Conversation, associated
from dicom_node.deliver.status import DUPLICATE_SOP_INSTANCE, judge
from dicom_node.deliver.stored import check_bytes, readable
from dicom_node.domain.delivery import Delivery, DimseDestination, Sent
from dicom_node.domain.uids import AETitle
from dicom_node.errors import DeliveryError

MOST_CONTEXTS = 128  # PS3.8 9.3.2.2
SLOWEST_BYTES_PER_S = 64 * 1024  # the answer to a large object is waited for longer: it may still be under way


def send(destination: DimseDestination, path: Path, delivery: Delivery) -> Sent:
    """Send one stored object.

    Parameters
    ----------
    destination : DimseDestination
        Where to.
    path : pathlib.Path
        The file; its bytes must still be those whose SHA-256 the delivery names.
    delivery : Delivery
        What the object is.

    Returns
    -------
    Sent
        Success, a warning (stored all the same), or 0x0111: the peer had the object already, from an earlier try.

    Raises
    ------
    DeliveryError
        In every other case; `retry` says whether the same object may be taken later (PS3.4 B.2.3).
    """
    check_bytes(path, delivery)
    own = UID(delivery.transfer_syntax_uid)
    with associated(destination, _contexts(delivery.sop_class_uid, own)) as conversation:
        accepted = {cx.transfer_syntax[0] for cx in conversation.assoc.accepted_contexts}
        others = [syntax for syntax in _also(own) if syntax in accepted]
        subject = path if own in accepted else readable(path, destination.name, *others[:1])
        answer = _store(conversation, subject, path.stat().st_size)
    return _judge(destination, answer)


def echo(destination: DimseDestination) -> float:
    """Verify that a destination answers (C-ECHO, PS3.4 annex A).

    Returns
    -------
    float
        Seconds from the association request to the answer.

    Raises
    ------
    DeliveryError
        Saying why there is no answer, or an answer that is not 0x0000.
    """
    started = time.monotonic()
    with associated(destination, [build_context(Verification)]) as conversation:
        answer = conversation.ask(conversation.assoc.send_c_echo, "C-ECHO", destination.timeout_s)
    if answer.Status != 0x0000:
        raise DeliveryError(f"{destination.name} answered C-ECHO with 0x{answer.Status:04X}", retry=True)
    return time.monotonic() - started


@dataclass(frozen=True, slots=True)
class FileSent:
    """What became of one file. `status` is None when the peer never answered for it; `problem` is empty if stored."""

    path: Path
    status: int | None
    problem: str = ""

    @property
    def is_duplicate(self) -> bool:
        """Whether the peer did not take it, for it holds an instance of that UID: the same one, or another."""
        return self.status == DUPLICATE_SOP_INSTANCE and bool(self.problem)


def send_files(
    paths: Sequence[Path],
    host: str,
    port: int,
    called: str,
    calling: str,
    on_progress: Callable[[FileSent], None] | None = None,
    *,
    timeout_s: float = 30.0,
) -> list[FileSent]:
    """Send files as they are, proposing exactly the SOP classes and transfer syntaxes they have.

    One association, or one for each 128 such pairs; where one is lost, the rest goes on another, if it took any.
    docs/delivery.md says what a duplicate (0x0111) means then.

    Parameters
    ----------
    paths : sequence of pathlib.Path
        DICOM files; what is none is reported, not raised.
    host, port, called, calling : str, int, str, str
        The peer, its AE title and ours.
    on_progress : callable, optional
        Called after each file.
    timeout_s : float
        For each step of the conversation.

    Returns
    -------
    list of FileSent
        One for each path. Those of one association stand together; in them the order is kept.

    Raises
    ------
    DeliveryError
        When no association can be had at all.
    """
    peer = DimseDestination(
        name=f"{called}@{host}",
        host=host,
        port=port,
        ae_title=AETitle(called),
        calling_ae=AETitle(calling),
        timeout_s=timeout_s,
    )
    sending = _Sending(peer, on_progress)
    pairs: dict[tuple[UID, UID], list[Path]] = {}
    for path in paths:
        try:
            meta = read_file_meta_info(path)
            pairs.setdefault((meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID), []).append(path)
            sending.uids[path] = str(meta.get("MediaStorageSOPInstanceUID", ""))
        except (InvalidDicomError, AttributeError, EOFError, OSError) as error:
            sending.tell(FileSent(path, None, f"not a DICOM file: {error}"))
    for start in range(0, len(pairs), MOST_CONTEXTS):
        group = list(pairs)[start : start + MOST_CONTEXTS]
        kinds = {path: pair for pair in group for path in pairs[pair]}
        sending.send_group(group, [(path, *kinds[path]) for path in paths if path in kinds])
    return sending.done


class _Sending:
    """Files on their way to one peer, and what became of them so far."""

    def __init__(self, peer: DimseDestination, on_progress: Callable[[FileSent], None] | None) -> None:
        self.done: list[FileSent] = []
        self.uids: dict[Path, str] = {}  # the SOP Instance UID of each file
        self._peer = peer
        self._on_progress = on_progress
        self._unanswered: dict[Path, tuple[int, ...]] = {}  # sent whole: the state of the file, as `_state` gives it

    def tell(self, sent: FileSent) -> None:
        """Note what became of a file."""
        self.done.append(sent)
        if self._on_progress:
            self._on_progress(sent)

    def send_group(self, pairs: list[tuple[UID, UID]], files: list[tuple[Path, UID, UID]]) -> None:
        """Send files on one association after the other, as long as each takes any."""
        rest, lost = files, ""
        while rest:
            try:
                done, lost = self._send_some(pairs, rest)
            except DeliveryError as error:
                if len(rest) == len(files):
                    raise
                done, lost = 0, str(error)
            if not done:  # nothing at all on this association: another would end like it
                break
            rest = rest[done:]
        for path, *_ in rest:
            self.tell(FileSent(path, None, lost if path is rest[0][0] else f"not sent: {lost}"))

    def _send_some(self, pairs: list[tuple[UID, UID]], files: list[tuple[Path, UID, UID]]) -> tuple[int, str]:
        """Send on one association until it is lost; how many files are told of, and what became of it."""
        contexts = [build_context(sop_class, syntax) for sop_class, syntax in pairs]
        with associated(self._peer, contexts) as conversation:
            accepted = {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in conversation.assoc.accepted_contexts}
            for n, (path, sop_class, syntax) in enumerate(files):
                if (sop_class, syntax) not in accepted:
                    self.tell(FileSent(path, None, f"the peer does not take {sop_class.name} in {syntax.name}"))
                    continue
                before, state = conversation.data_sets_sent, _state(path)
                try:
                    answer = _judge(self._peer, _store(conversation, path, path.stat().st_size, n % 65535 + 1))
                except DeliveryError as error:
                    if error.status is None and error.retry:
                        if conversation.data_sets_sent > before:
                            self._unanswered[path] = state
                        return n, str(error)
                    self.tell(FileSent(path, error.status, str(error)))
                else:
                    self.tell(FileSent(path, answer.status, self._not_taken(path, state, answer)))
        return len(files), ""

    def _not_taken(self, path: Path, state: tuple[int, ...], answer: Sent) -> str:
        """Say that a peer did not take a file; empty when it has it, be it since we sent the same before."""
        if answer.status != DUPLICATE_SOP_INSTANCE:
            return ""
        told = f"not taken: {answer.comment}"
        if self._unanswered.get(path) != state or _state(path) != state:
            return told
        is_twin = list(self.uids.values()).count(self.uids[path]) > 1
        if is_twin or any(one.is_duplicate for one in self.done):  # it had some of these before: perhaps this one, too
            return f"{told}; it was sent twice, for the first answer was lost, and may be what the peer holds"
        return ""


def _state(path: Path) -> tuple[int, ...]:
    """By what a file is known to be the same, and not to have been written since."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _contexts(sop_class_uid: str, own: UID) -> list[PresentationContext]:
    syntaxes = dict.fromkeys([own, *_also(own), ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    return [build_context(sop_class_uid, syntax) for syntax in syntaxes]


def _also(own: UID) -> tuple[UID, ...]:
    """Give other compressions without loss, for a peer that takes one of them and not ours."""
    ways = (JPEGLSLossless, JPEG2000Lossless, RLELossless)
    return tuple(syntax for syntax in ways if syntax != own) if own in (RLELossless, JPEGLSLossless) else ()


def _judge(destination: DimseDestination, answer: Dataset) -> Sent:
    return judge(destination.name, answer.Status, str(answer.get("ErrorComment", "")))


def _store(conversation: Conversation, subject: Path | Dataset, size: int, message_id: int = 1) -> Dataset:
    allowed_s = conversation.timeout_s + size / SLOWEST_BYTES_PER_S
    return conversation.ask(lambda: conversation.assoc.send_c_store(subject, message_id), "C-STORE", allowed_s)
