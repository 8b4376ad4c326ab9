"""Which objects a destination gets: those that its settings name, or those that it takes of what the model makes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from dicom_node.domain.delivery import Destination
from dicom_node.domain.encoding import Encoding
from dicom_node.domain.model import OutputKind
from dicom_node.domain.profile import OFFERS, Offer, Profile

_K = OutputKind
# What goes in place of a kind that is not taken, role by role: of each role, the first kind that is taken (or, when it
# is refused as it is sent, that was made).
STAND_INS: Mapping[OutputKind, tuple[tuple[OutputKind, ...], ...]] = {
    _K.SEG_LABELMAP: ((_K.SEG,),),
    _K.SEG_FRACTIONAL: ((_K.SEG,),),
    _K.SEG: ((_K.RTSTRUCT,), (_K.OVERLAY, _K.CAPTURES, _K.SC)),  # as data, and for the eye
    _K.PM: ((_K.GREY,), (_K.SC,)),  # an image that the model made, and what spoke for detections on the page
    _K.GREY: ((_K.OVERLAY, _K.CAPTURES, _K.SC),),
    _K.SR: ((_K.PDF, _K.SC),),
    _K.VIEWER_SR: ((_K.GSPS, _K.KEY_IMAGES, _K.CAPTURES, _K.SC),),
    _K.RTSTRUCT: ((_K.OVERLAY, _K.CAPTURES, _K.SC),),
    _K.GSPS: ((_K.KEY_IMAGES, _K.CAPTURES, _K.SC),),
    _K.OVERLAY: ((_K.CAPTURES, _K.SC),),
    _K.KEY_IMAGES: ((_K.CAPTURES, _K.SC),),
    _K.PDF: ((_K.SC,),),
}
_NO_SALIENCY = "nothing of what spoke for detections"
REPORT_FORMS = (_K.SR, _K.PDF, _K.SC)
SOP_CLASSES: Mapping[OutputKind, str] = {kind: offer.sop_class_uid for offer in OFFERS for kind in offer.kinds}


@dataclass(frozen=True, slots=True)
class Choice:
    """What one destination gets of a job, and why.

    Attributes
    ----------
    kinds : frozenset of OutputKind
        What it gets, as far as there is something to make it of.
    why : str
        In words; empty where it gets all that the model makes.
    instead : mapping of OutputKind to tuple of OutputKind
        What is not taken, and what goes in its place.
    otherwise : OutputKind
        In which form it hears that none of them was made.
    """

    kinds: frozenset[OutputKind]
    why: str = ""
    instead: Mapping[OutputKind, tuple[OutputKind, ...]] = field(default_factory=dict)
    otherwise: OutputKind = OutputKind.SR

    def of(self, made: Collection[OutputKind]) -> frozenset[OutputKind]:
        """Give what goes of what was made: no study stays silent."""
        return self.kinds if self.kinds & {*made} else frozenset({self.otherwise})


def choose(destination: Destination, outputs: Collection[OutputKind], profile: Profile | None) -> Choice:
    """Choose what goes to a destination.

    Parameters
    ----------
    outputs : collection of OutputKind
        What the model makes anyway.
    profile : Profile, optional
        What the destination said when it was probed; one of another peer counts for nothing.

    Returns
    -------
    Choice
        What the settings name; else what the model makes, with stand-ins for what is refused. A kind that is refused
        and has no stand-in that is taken stays: its delivery fails where everybody sees it.
    """
    otherwise = report_form(destination, profile)
    if destination.objects:
        return Choice(destination.objects, "as its settings say", otherwise=otherwise)
    if profile is None:
        return Choice(frozenset(outputs))

    def takes(kind: OutputKind) -> bool:
        if kind is _K.SEG and destination.seg is not Encoding.BINARY:
            return True  # which encoding is taken shows when it is sent
        return kind not in SOP_CLASSES or not profile.refuses(destination.where, SOP_CLASSES[kind])

    instead = {kind: found for kind in outputs if not takes(kind) and (found := stand_ins(kind, takes))}
    if not instead:
        return Choice(frozenset(outputs), otherwise=otherwise)
    kinds = frozenset(outputs) - instead.keys() | {stand_in for found in instead.values() for stand_in in found}
    return Choice(kinds, f"as it said on {profile.probed_at:%Y-%m-%d}", instead, otherwise)


def report_form(destination: Destination, profile: Profile | None) -> OutputKind:
    """Choose how a destination is told that there is no result: of what its settings name, the first that it takes."""

    def takes(kind: OutputKind) -> bool:
        return profile is None or not profile.refuses(destination.where, SOP_CLASSES[kind])

    wanted = [kind for kind in REPORT_FORMS if kind in destination.objects] or list(REPORT_FORMS)
    return next(filter(takes, [*wanted, *REPORT_FORMS]), wanted[0])


def stand_ins(kind: OutputKind, takes: Callable[[OutputKind], bool]) -> tuple[OutputKind, ...]:
    """Give what goes in place of a kind: of each role, the first kind that is taken."""
    found = (next(filter(takes, role), None) for role in STAND_INS.get(kind, ()))
    return tuple(stand_in for stand_in in found if stand_in is not None)


def instead_of(offer: Offer, profile: Profile) -> str:
    """Say what a destination gets in place of what it does not take, in words that hold whatever model runs."""

    def takes(kind: OutputKind) -> bool:
        return not profile.refuses(profile.where, SOP_CLASSES[kind])

    found = {kind: stand_ins(kind, takes) for kind in offer.kinds}
    if _K.GREY in found.get(_K.PM, ()):  # of a map of what spoke for detections there is none (results/grey.py)
        rest = [_name(kind) for kind in found[_K.PM] if kind is not _K.GREY]
        return f"{_name(_K.GREY)}, of images that a model made only; {' and '.join(rest) or _NO_SALIENCY}"
    gets = [_name(stand_in) for some in found.values() for stand_in in some]
    return " and ".join(dict.fromkeys(gets)) or offer.instead


def _name(kind: OutputKind) -> str:
    return next(offer.name for offer in OFFERS if offer.sop_class_uid == SOP_CLASSES[kind])
