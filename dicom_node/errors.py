"""Every error the node raises on purpose, and what each one means for the caller.

::

    NodeError                       retry: can the same thing succeed later?
    |- ConfigurationError           a setting, rule, card or destination is wrong; names file and key    (exit status 2)
    |- NotFoundError                an operator named something that is not there                        (exit status 1)
    |- ConflictError                an operator asked for a step that the state forbids                  (exit status 1)
    |- RequestError                 an operator asked for something that cannot be; the text says why    (exit status 1)
    |- StoreError                   an instance that was not stored; carries the DIMSE status
    |  |- OutOfResources            0xA700  disk full, database away: the peer shall send again
    |  |- DataSetMismatch           0xA900  data set and command disagree
    |  |- CannotUnderstand          0xC000  no usable identity in the data set
    |  |- UnknownTransferSyntax     0xC122  a transfer syntax that the standard does not know
    |  `- DuplicateDiffers          0x0111  same SOP Instance UID with other bytes: the first is kept
    |- ProtocolError                a peer broke the upper layer protocol or DIMSE; costs its association
    |  `- TlsFailed                 a connection over TLS that did not come about, or broke
    |- GeometryError                a series that cannot be one volume; the text says why
    |  `- MissingSlices             slices are missing among those that are there
    |- NotEligible                  a volume that the model was not made for; the text says why
    |- SignInRefused                an OpenID provider vouches for nobody who may come in; the text says why
    |- ProviderAway                 the OpenID provider does not answer                                  (retry)
    |- SpoolError                   a spooled file is missing or unreadable                              (retry)
    |- ModelFailed                  the model did not answer, or not usefully                            (as given)
    |- NotificationError            a channel did not take a notification                                 (as given)
    |- ExportError                  a report for a fault would hold what it must not                     (exit status 1)
    |- ResultError                  findings that cannot become a valid DICOM object
    `- DeliveryError                a destination did not take an object; carries the DIMSE status       (as given)
"""

from __future__ import annotations


class NodeError(Exception):
    """Base of the tree. `retry` says whether the same step may succeed when tried again."""

    retry: bool = False


class ConfigurationError(NodeError):
    """Settings, a rule, a model card or a destination is wrong.

    Parameters
    ----------
    problems : list of str
        One sentence each, naming file and key and what to do.
    """

    def __init__(self, problems: list[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else problems
        super().__init__("\n".join(self.problems))


class NotFoundError(NodeError):
    """Nothing in the database answers to what the operator named."""


class ConflictError(NodeError):
    """The state of a job or delivery forbids what the operator asked for."""


class RequestError(NodeError):
    """What an operator asks for cannot be done by anybody: a list without numbers, hours that are none."""


class StoreError(NodeError):
    """An instance that was not stored (statuses: PS3.4 B.2.3, PS3.7 annex C, PS3.18 table I.2-2)."""

    status: int = 0x0110
    retry = True


class OutOfResources(StoreError):
    """Disk full or database absent; nothing was kept and the peer shall send again."""

    status = 0xA700


class DataSetMismatch(StoreError):
    """The data set contradicts the command set (SOP Class or SOP Instance UID)."""

    status = 0xA900
    retry = False


class CannotUnderstand(StoreError):
    """The data set has no usable identity: a UID of instance, series or study is missing or malformed."""

    status = 0xC000
    retry = False


class UnknownTransferSyntax(StoreError):
    """The instance is encoded in a way that the standard does not know."""

    status = 0xC122
    retry = False


class DuplicateDiffers(StoreError):
    """The SOP Instance UID is stored already, with other bytes. The first is kept."""

    status = 0x0111
    retry = False


class ProtocolError(NodeError):
    """A peer sent what the protocol forbids. It is answered with an A-ABORT and costs no other association.

    Parameters
    ----------
    message : str
        What was wrong, for an administrator.
    abort_reason : int
        Reason/Diag. of the A-ABORT (PS3.8 table 9-26): 1 unrecognized, 2 unexpected PDU, 6 invalid parameter value.
    """

    def __init__(self, message: str, abort_reason: int = 6) -> None:
        self.abort_reason = abort_reason
        super().__init__(message)


class TlsFailed(ProtocolError):
    """There is no TLS with a peer. The text says why; `it` is the peer."""


class GeometryError(NodeError):
    """The instances of a series do not form one volume. Never guessed over: the text says why."""


class MissingSlices(GeometryError):
    """Slices are missing among those that are there. They may still come."""


class NotEligible(NodeError):
    """The series is one volume, but not of a kind that the model was made for. No model runs on it."""


class SignInRefused(NodeError):
    """An OpenID provider, or what it says, lets somebody not in."""


class ProviderAway(NodeError):
    """The OpenID provider does not answer, or not as one."""

    retry = True


class SpoolError(NodeError):
    """A spooled file is missing, unreadable or not the bytes that were acknowledged."""

    retry = True


class ModelFailed(NodeError):
    """The model crashed, hung, ran out of memory or returned something unusable."""

    def __init__(self, message: str, *, retry: bool = True) -> None:
        self.retry = retry
        super().__init__(message)


class ResultError(NodeError):
    """Findings that cannot be written as a valid DICOM object."""


class ExportError(NodeError):
    """A report would hold something of a patient, so nothing of it was written."""


class NotificationError(NodeError):
    """A channel did not take a notification."""

    def __init__(self, message: str, *, retry: bool) -> None:
        self.retry = retry
        super().__init__(message)


class DeliveryError(NodeError):
    """A destination did not take an object.

    Parameters
    ----------
    message : str
        What happened, for an administrator.
    retry : bool
        True for what may pass (no connection, 0xA7xx), False for what will not (0xA9xx, 0xCxxx, 0x01xx).
    status : int, optional
        The DIMSE status, when the peer answered with one.
    is_refused : bool
        The destination does not take objects of this kind at all; another kind may go instead.
    """

    def __init__(self, message: str, *, retry: bool, status: int | None = None, is_refused: bool = False) -> None:
        self.retry = retry
        self.status = status
        self.is_refused = is_refused
        super().__init__(message)
