"""Our copy of an object on its way out: proved to be what was stored, and made readable for peers that need that."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import UID

from dicom_node.domain.delivery import Delivery
from dicom_node.errors import DeliveryError


def check_bytes(path: Path, delivery: Delivery) -> None:
    """Prove that the file still holds what was stored: a damaged result must never reach a reader.

    Raises
    ------
    DeliveryError
        When it cannot be read, or its SHA-256 is another.
    """
    try:
        found = sha256_of(path)
    except OSError as error:
        raise DeliveryError(f"the stored object cannot be read: {error.strerror}", retry=True) from error
    if found != delivery.sha256:
        raise DeliveryError(
            f"the stored object {delivery.sop_instance_uid} was damaged on disk (SHA-256 differs); "
            "it is not sent: run the job again",
            retry=False,
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def readable(path: Path, destination: str, syntax: UID | None = None) -> FileDataset:
    """Read the object for re-encoding: uncompressed, or in another compression, and still the same SOP instance.

    Raises
    ------
    DeliveryError
        When it cannot be decompressed.
    """
    try:
        ds = dcmread(path)
        if ds.file_meta.TransferSyntaxUID.is_compressed:
            ds.decompress(as_rgb=False, generate_instance_uid=False)
        if syntax is not None:
            ds.compress(syntax, generate_instance_uid=False)
    except Exception as error:  # whatever a decoder raises, this object cannot go to this peer
        raise DeliveryError(
            f"{destination} takes the object only uncompressed, and it cannot be decompressed: {error}",
            retry=False,
        ) from error
    return ds
