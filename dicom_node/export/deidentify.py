"""De-identify data sets: Basic Application Level Confidentiality Profile (PS3.15 E.2) with some of its options."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any
from uuid import UUID

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.coding import Code
from pydicom.uid import UID

from dicom_node.domain.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.errors import ExportError
from dicom_node.export import attributes as a

OLDEST_YEARS = 90  # who is older is of that age: there are too few of them
_UID_TEXT = re.compile(r"(?<![\d.])[0-2](?:\.(?:0|[1-9]\d*)){4,}(?![\d.]*\d)")
_STANDARD = "1.2.840.10008."
UNSPEAKING = frozenset(("SQ", "UI", "DS", "IS", "CS", "PN"))  # hold no words, the standard's alone, or are empty
_LONG = 5
_SHORTEST = 3  # of a name that is looked for in texts: shorter ones are in every text


class Keep(StrEnum):
    """What stays beside the basic profile."""

    DEVICE = "device"
    CHARACTERISTICS = "characteristics"
    UIDS = "uids"


class Dates(StrEnum):
    """What becomes of the dates."""

    REMOVED = "removed"
    MODIFIED = "modified"
    FULL = "full"


_OPTIONS = {
    Keep.DEVICE: Code("113109", "DCM", "Retain Device Identity Option"),
    Keep.CHARACTERISTICS: Code("113108", "DCM", "Retain Patient Characteristics Option"),
    Keep.UIDS: Code("113110", "DCM", "Retain UIDs Option"),
    Dates.FULL: Code("113106", "DCM", "Retain Longitudinal Temporal Information Full Dates Option"),
    Dates.MODIFIED: Code("113107", "DCM", "Retain Longitudinal Temporal Information Modified Dates Option"),
}
_BASIC = Code("113100", "DCM", "Basic Application Confidentiality Profile")


class Deidentifier:
    """One export: UIDs and dates are changed alike in everything that goes through it, and unlike any other export.

    Parameters
    ----------
    secret : bytes
        What new UIDs and the shift of dates derive from. Forgotten after the export, so that nobody gets back.
    """

    def __init__(self, secret: bytes, keep: frozenset[Keep] = frozenset(), dates: Dates = Dates.REMOVED) -> None:
        self._secret = secret
        self._keep = keep
        self._dates = dates
        self._shift = timedelta(days=-(365 + int.from_bytes(self._digest("dates")[:4], "big") % 3650))
        self.names: set[str] = set()  # of the patient, in lower case: what nothing may hold
        self.places: set[str] = set()  # of peers and hosts: left out of texts

    def dataset(self, ds: Dataset, *, pixels: bool = False) -> Dataset:
        """Make a new data set of what may stay.

        Parameters
        ----------
        pixels : bool
            Keep the pixel data, if the object is of a kind that nothing is drawn into.
        """
        self.learn(ds)
        cleaned = self._clean(ds)
        for element in cleaned.iterall():
            if element.VR not in UNSPEAKING and self.leaks(str(element.value or "")):
                element.value = ""  # a name in a place that stays, such as a manufacturer named like the patient
        cleaned.file_meta = self._meta(ds, cleaned)
        if pixels and self._may_keep_pixels(ds):
            _copy_pixels(ds, cleaned)
        self._sign(cleaned, ds)
        return cleaned

    def learn(self, ds: Dataset) -> None:
        """Note whose data it is, so that texts can be searched for it."""
        for element in ds.iterall():
            self.forbid(*_identity(element))

    def forbid(self, *names: str) -> None:
        """Note names that nothing may hold; those too short to be looked for are passed over."""
        self.names |= {name.strip().casefold() for name in names if len(name.strip()) >= _SHORTEST}

    def hide(self, *places: str) -> None:
        """Note names of peers and hosts, to be left out of texts."""
        self.places |= {place.strip().casefold() for place in places if len(place.strip()) >= _SHORTEST}

    def uid(self, uid: str) -> str:
        """Give the UID that stands for another; those of the standard stay."""
        if Keep.UIDS in self._keep or uid.startswith(_STANDARD) or not uid:
            return uid
        return str(UID(f"2.25.{UUID(bytes=self._digest(uid)[:16], version=4).int}"))

    def text(self, text: str) -> str:
        """Clean a sentence of ours: UIDs are replaced, and every name that was learnt is left out."""
        text = _UID_TEXT.sub(lambda found: self.uid(found[0]), text)
        if self._dates is not Dates.FULL:
            text = re.sub(r"\b(19|20)\d\d-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?", "(time)", text)
        for name in sorted(self.names | self.places, key=len, reverse=True):
            text = _pattern(name).sub("(removed)", text)
        return text

    def leaks(self, text: str) -> list[str]:
        """Find the names that a text holds all the same."""
        return sorted(name for name in self.names if _pattern(name).search(text))

    def _clean(self, ds: Dataset) -> Dataset:
        cleaned = Dataset()
        for element in ds:
            kept = self._element(element)
            if kept is not None:
                cleaned.add(kept)
        return cleaned

    def _element(self, element: DataElement) -> DataElement | None:
        keyword = element.keyword
        if not keyword or element.tag.is_private:
            return None
        if element.VR == "SQ":
            if keyword not in a.WALKED:
                return None
            return DataElement(element.tag, "SQ", DicomSequence([self._clean(item) for item in element.value]))
        if keyword in a.UIDS:
            return DataElement(element.tag, "UI", _each(element.value, self.uid))
        if (keyword in a.DATES or keyword in a.TIMES) and self._dates is not Dates.REMOVED:
            return DataElement(element.tag, element.VR, self._moment(element))
        if self._is_kept(keyword):
            return DataElement(element.tag, element.VR, _capped(element) if keyword == "PatientAge" else element.value)
        return DataElement(element.tag, element.VR, "") if keyword in a.EMPTIED else None

    def _is_kept(self, keyword: str) -> bool:
        return (
            keyword in a.KEPT
            or (Keep.DEVICE in self._keep and keyword in a.DEVICE)
            or (Keep.CHARACTERISTICS in self._keep and keyword in a.CHARACTERISTICS)
        )

    def _moment(self, element: DataElement) -> str:
        """A date as it is or shifted; a time as it is. What cannot be read goes."""
        text = str(element.value or "")
        if element.VR == "TM":
            return text if re.fullmatch(r"\d{2,6}(\.\d{1,6})?", text) else ""
        try:
            day: date = datetime.strptime(text, "%Y%m%d").date()
        except ValueError:
            return ""
        return (day if self._dates is Dates.FULL else day + self._shift).strftime("%Y%m%d")

    def _meta(self, ds: Dataset, cleaned: Dataset) -> FileMetaDataset:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = ds.SOPClassUID
        meta.MediaStorageSOPInstanceUID = cleaned.SOPInstanceUID
        meta.TransferSyntaxUID = ds.file_meta.TransferSyntaxUID
        meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
        meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
        return meta

    def _sign(self, cleaned: Dataset, ds: Dataset) -> None:
        """Say what was done to it (PS3.15 E.1.1 step 6, E.3)."""
        codes = [_BASIC, *(_OPTIONS[option] for option in (*sorted(self._keep), self._dates) if option in _OPTIONS)]
        cleaned.PatientID = f"P{self._digest(str(ds.get('PatientID', '')))[:4].hex()}"
        cleaned.PatientIdentityRemoved = "YES"
        cleaned.DeidentificationMethod = "dicom-node export, all but a list of attributes removed"
        cleaned.DeidentificationMethodCodeSequence = DicomSequence([_coded(code) for code in codes])
        words = {Dates.REMOVED: "REMOVED", Dates.MODIFIED: "MODIFIED", Dates.FULL: "UNMODIFIED"}
        cleaned.LongitudinalTemporalInformationModified = words[self._dates]

    def _may_keep_pixels(self, ds: Dataset) -> bool:
        if ds.get("SOPClassUID") not in a.PICTURES or "PixelData" not in ds:
            return False
        image_type = [str(value).upper() for value in _several(ds.get("ImageType"))]
        drawn_into = any("SCREEN" in value or value == "SECONDARY" for value in image_type)
        return str(ds.get("BurnedInAnnotation", "NO")).upper() != "YES" and not drawn_into

    def _digest(self, text: str) -> bytes:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).digest()


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """Find a name, in capitals or not: a short one as a word of its own, or it would be found in other words."""
    word = re.escape(name)
    return re.compile(word if len(name) >= _LONG else rf"(?<![\w.]){word}(?![\w.])", re.IGNORECASE)


def _copy_pixels(ds: Dataset, cleaned: Dataset) -> None:
    """Copy the pixel data. Bits above Bits Stored go: old systems kept overlays there, names and all.

    Raises
    ------
    ExportError
        When the bits cannot be told apart.
    """
    cleaned.PixelData = ds.PixelData
    cleaned["PixelData"].VR = ds["PixelData"].VR
    syntax = UID(ds.file_meta.TransferSyntaxUID)
    allocated, stored = int(ds.get("BitsAllocated", 0)), int(ds.get("BitsStored", 0))
    if syntax.is_compressed or stored >= allocated:
        return  # an encoder for so many bits has nowhere to keep others
    if allocated not in (8, 16, 32) or int(ds.get("HighBit", stored - 1)) != stored - 1:
        raise ExportError("the pixels have unused bits in unusual places, where an overlay may be: leave them out")
    order = "<" if syntax.is_little_endian else ">"
    kind = "i" if ds.get("PixelRepresentation", 0) else "u"
    values = np.frombuffer(ds.PixelData, dtype=f"{order}{kind}{allocated // 8}")
    unused = allocated - stored
    cleaned.PixelData = ((values << unused) >> unused).astype(values.dtype).tobytes()


def _coded(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _capped(element: DataElement) -> str:
    text = str(element.value or "")
    is_older = text.endswith("Y") and text[:-1].isdigit() and int(text[:-1]) > OLDEST_YEARS
    return f"{OLDEST_YEARS:03d}Y" if is_older else text


def _identity(element: DataElement) -> Iterator[str]:
    """Give the texts of an element by which somebody or some place could be known."""
    for value in _several(element.value) if element.VR == "PN" or element.keyword in a.IDENTITY else ():
        yield str(value)
        if element.VR == "PN":
            yield from re.split(r"[\^=\s]+", str(value))


def _each(value: Any, change: Any) -> Any:
    several = _several(value)
    changed = [change(str(one)) for one in several]
    return changed if len(changed) > 1 else (changed[0] if changed else "")


def _several(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]
