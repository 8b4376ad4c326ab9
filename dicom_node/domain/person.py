"""What a header says of the person that calculations ask for: age, sex. Nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from dicom_node.domain.header import texts

_PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}  # Age String, PS3.5 6.2
_OLDEST = 130


def age_years(header: Mapping[str, Any]) -> float | None:
    """Read the age at the scan: from the dates of birth and study, else from Patient's Age (0010,1010).

    Returns
    -------
    float or None
        Completed years from dates; None when neither is there or both are impossible.
    """
    born, scanned = _date(header, "PatientBirthDate"), _date(header, "StudyDate")
    if born and scanned and born <= scanned:
        years = scanned.year - born.year - ((scanned.month, scanned.day) < (born.month, born.day))
        if years <= _OLDEST:
            return float(years)
    text = "".join(texts(header, "PatientAge")[:1])
    if text[:-1].isdigit() and text[-1:] in _PER_YEAR:
        years_old = int(text[:-1]) / _PER_YEAR[text[-1]]
        return years_old if years_old <= _OLDEST else None
    return None


def is_female(header: Mapping[str, Any]) -> bool | None:
    """Read Patient's Sex (0010,0040); None when it is neither F nor M."""
    return {"F": True, "M": False}.get("".join(texts(header, "PatientSex")[:1]).upper())


def smokes(header: Mapping[str, Any]) -> bool | None:
    """Read Smoking Status (0010,21A0), whether the person smokes now; None when it is unknown."""
    return {"YES": True, "NO": False}.get("".join(texts(header, "SmokingStatus")[:1]).upper())


def _date(header: Mapping[str, Any], keyword: str) -> date | None:
    text = "".join(texts(header, keyword)[:1]).replace(".", "")  # ACR-NEMA wrote dots
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None
