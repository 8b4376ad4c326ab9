"""What the values of an image may be, by what a bundle calls it: a proposal, for whoever adds the model to read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

from ai.codes import UNKNOWN

Code = Mapping[str, str]
_HOUNSFIELD, _NONE = ("[hnsf'U]", "Hounsfield unit"), ("1", "no units")
_KNOWN: tuple[tuple[frozenset[str], tuple[str, str], tuple[str, str]], ...] = tuple(
    (frozenset(words.split()), quantity, unit)  # PS3.16 CID 7180 and 7181; any of the words
    for words, quantity, unit in (
        ("adc", ("113041", "Apparent Diffusion Coefficient"), ("10-6.mm2/s", "10-6.mm2/s")),
        ("fa", ("110808", "Fractional Anisotropy"), _NONE),
        ("t1map", ("113063", "T1"), ("ms", "millisecond")),
        ("t2map", ("113065", "T2"), ("ms", "millisecond")),
        ("cbf", ("126390", "Absolute Regional Blood Flow"), ("ml/[100]g/min", "milliliter per 100 gram per minute")),
        ("cbv", ("126391", "Absolute Regional Blood Volume"), ("ml/[100]ml", "milliliter per 100 milliliter")),
        ("mtt", ("113052", "Mean Transit Time"), ("s", "second")),
        ("tmax", ("113084", "Tmax"), ("s", "second")),
        ("ktrans", ("126312", "Ktrans"), ("/min", "/min")),
        ("suv suvbw", ("126401", "SUVbw"), ("g/ml{SUVbw}", "Standardized Uptake Value body weight")),
        ("distance distances sdf", ("121206", "Distance"), ("mm", "mm")),
        ("saliency", ("130404", "Saliency"), _NONE),
        ("hounsfield hu ct cect ncct cbct", ("112031", "Attenuation Coefficient"), _HOUNSFIELD),
        ("t1 t1w", ("110804", "T1 Weighted MR Signal Intensity"), ("[arb'U]", "arbitrary unit")),
        ("t2 t2w flair", ("110805", "T2 Weighted MR Signal Intensity"), ("[arb'U]", "arbitrary unit")),
        ("mr mri", ("110852", "MR signal intensity"), ("[arb'U]", "arbitrary unit")),
    )
)
_OWN = frozenset({"uncertainty", "entropy", "variance", "probability", "error", "doubt", "confidence"})


def quantity_of(*said: str) -> tuple[Code, Code]:
    """Propose quantity and unit of an image.

    Parameters
    ----------
    said : str
        The bundle's words for it, the most telling first: its name, its format, the modality that it is made of.

    Returns
    -------
    quantity, unit
        Each a mapping of value, scheme and meaning. What nobody said has the value `UNKNOWN`.
    """
    for text in said:
        words = re.findall(r"[a-z]+[0-9]?[a-z]*", text.lower().replace("_", " ").replace("-", " "))
        joined = {*words, *(a + b for a, b in pairwise(words))}
        if joined & _OWN:  # a doubt about a CT has no Hounsfield units
            break
        for names, quantity, unit in _KNOWN:
            if names & joined:
                return _code(quantity, "DCM"), _code(unit, "UCUM")
    unknown = {"value": UNKNOWN, "scheme": "DCM", "meaning": UNKNOWN}
    return unknown, _code(_NONE, "UCUM")


def _code(pair: tuple[str, str], scheme: str) -> Code:
    return {"value": pair[0], "scheme": scheme, "meaning": pair[1]}
