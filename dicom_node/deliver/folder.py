"""Put objects into a folder: each is there whole and on disk, or not at all."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from pydicom import dcmread

from dicom_node.deliver.stored import check_bytes, sha256_of
from dicom_node.domain.delivery import Delivery, FolderDestination, Sent
from dicom_node.domain.proof import Proof
from dicom_node.errors import DeliveryError
from dicom_node.spool import sync_folder


def send(destination: FolderDestination, path: Path, delivery: Delivery) -> Sent:
    """Copy one stored object to ``<study>/<series>/<instance>.dcm``, where nobody sees it before it is complete.

    Raises
    ------
    DeliveryError
        When the folder cannot be written, which may pass.
    """
    check_bytes(path, delivery)
    header = dcmread(path, specific_tags=["StudyInstanceUID", "SeriesInstanceUID"], stop_before_pixels=True)
    place = destination.path / header.StudyInstanceUID / header.SeriesInstanceUID
    try:
        if not destination.path.is_dir():  # a share that is not mounted: never fill the disk beneath it
            raise DeliveryError(f"{destination.name}: there is no folder {destination.path}", retry=True)
        _make(place, destination.path)
        _copy(path, place / f"{delivery.sop_instance_uid}.dcm")
    except OSError as error:
        raise DeliveryError(f"{destination.name}: {place} cannot be written: {error.strerror}", retry=True) from error
    return Sent(0x0000)


def find(destination: FolderDestination, proofs: Sequence[Proof]) -> set[str]:
    """Look which of some objects still lie in the folder, byte for byte.

    Raises
    ------
    DeliveryError
        When the folder cannot be read.
    """
    try:
        if not destination.path.is_dir():
            raise DeliveryError(f"{destination.name}: there is no folder {destination.path}", retry=True)
        return {proof.sop_instance_uid for proof in proofs if _lies_in(destination.path, proof)}
    except OSError as error:
        raise DeliveryError(f"{destination.name}: cannot be read: {error.strerror}", retry=True) from error


def echo(destination: FolderDestination) -> float:
    """Prove that the folder can be written; the seconds that it took.

    Raises
    ------
    DeliveryError
        When it cannot.
    """
    started = time.monotonic()
    scratch = destination.path / f".echo.{uuid4().hex}"
    try:
        scratch.touch()
        scratch.unlink()
    except OSError as error:
        raise DeliveryError(f"{destination.path} cannot be written: {error.strerror}", retry=True) from error
    return time.monotonic() - started


def _lies_in(folder: Path, proof: Proof) -> bool:
    file = folder / proof.study_instance_uid / proof.series_instance_uid / f"{proof.sop_instance_uid}.dcm"
    return file.is_file() and sha256_of(file) == proof.sha256


def _make(place: Path, root: Path) -> None:
    """Make a folder below the root, each new name synced."""
    if place != root and not place.is_dir():
        _make(place.parent, root)
        place.mkdir(exist_ok=True)
        sync_folder(place.parent)


def _copy(source: Path, target: Path) -> None:
    scratch = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        with source.open("rb") as read, scratch.open("wb") as written:
            shutil.copyfileobj(read, written, 1024 * 1024)
            written.flush()
            os.fsync(written.fileno())
        scratch.rename(target)
    finally:
        scratch.unlink(missing_ok=True)
    sync_folder(target.parent)
