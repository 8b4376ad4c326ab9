"""The spool: files of instances and results. A file counts once its row is committed; without a row it is debris.

::

    incoming/               data sets that are still arriving; emptied at start
    instances/<hour>/       one file for each stored instance, named by a random number
    results/<job>/          what a job made
    quarantine/<job>/       what a job made and could not prove; it has no row and is never sent
    locks/                  who holds which slot of this machine (engine.py, supervise.py)

Names never come from what a peer sent.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from dicom_node.digest import Digest
from dicom_node.errors import SpoolError

FOLDERS = ("incoming", "instances", "results", "locks")
_MIB = 1024 * 1024
_MOST_PIECES = os.sysconf("SC_IOV_MAX")  # that one system call writes


class Spool:
    """A folder tree on one file system.

    Parameters
    ----------
    root : pathlib.Path
        Made by `prepare` when it is not there.
    reserve_mib : int
        Free space that storing never goes below, so that the database and the results still fit.
    """

    def __init__(self, root: Path, reserve_mib: int = 512) -> None:
        self.root = root
        self.reserve_mib = reserve_mib
        self._incoming = root / "incoming"
        self._instances = root / "instances"
        self._folder = self._instances  # in which names were last kept: one of its hours

    def prepare(self) -> None:
        """Make the folders.

        Raises
        ------
        SpoolError
            If they cannot be made or written to.
        """
        try:
            for name in FOLDERS:
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpoolError(f"the spool {self.root} cannot be used: {error}") from error
        if not os.access(self.root / "incoming", os.W_OK | os.X_OK):
            raise SpoolError(f"the spool {self.root} cannot be written to by user id {os.geteuid()}")

    def incoming(self) -> Incoming:
        """Open a file for a data set that is about to arrive."""
        while True:
            arriving = Incoming(self._incoming / f"{uuid4().hex}.part")
            if not arriving.was_swept:
                return arriving
            arriving.discard()

    def keep(self, arrived: Sequence[Incoming]) -> list[str]:
        """Make arrived files durable: named, then their contents synced, and the folder with their names.

        A name that comes to the disk before its contents does no harm: as yet no row speaks of it. It spares the folder
        a wait of its own, for the journal of a file system mostly takes it along with the contents.

        Parameters
        ----------
        arrived : sequence of Incoming
            Complete; closed by this call.

        Returns
        -------
        list of str
            Their paths, relative to the spool.

        Raises
        ------
        OSError
            If the disk is full or broken; nothing of `arrived` is kept then.
        """
        paths: list[str] = []
        try:
            folder = self._folder_of_this_hour()
            paths += [f"instances/{folder.name}/{one.path.stem}.dcm" for one in arrived]
            for one, path in zip(arrived, paths, strict=True):
                one.path.rename(self.root / path)
            for one in arrived:
                one.sync()
                one.close()
            sync_folder(folder)
        except OSError:
            for one in arrived:
                one.discard()
            for path in paths:
                self.delete(path)
            raise
        return paths

    def write(self, folder: str, name: str, data: bytes) -> tuple[str, int, str]:
        """Write a file that is there completely or not at all, replacing one of the same name.

        Returns
        -------
        (str, int, str)
            Path relative to the spool, size in bytes, SHA-256.
        """
        place = self._inside(folder)
        made = not place.exists()
        place.mkdir(parents=True, exist_ok=True)
        scratch = place / f".{name}.{uuid4().hex}"
        try:
            with scratch.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            scratch.rename(place / name)
        finally:
            scratch.unlink(missing_ok=True)
        sync_folder(place)
        if made:
            sync_folder(place.parent)
        return f"{folder}/{name}", len(data), hashlib.sha256(data).hexdigest()

    def path(self, relative: str) -> Path:
        """Find a spooled file.

        Raises
        ------
        SpoolError
            If it is not there, or `relative` leads out of the spool.
        """
        path = self._inside(relative)
        if not path.is_file():
            raise SpoolError(f"the spool has no file {relative}; was it deleted by hand?")
        return path

    def has_digest(self, relative: str, digest: str) -> bool:
        """Whether the data set of an instance's file has a digest; one that is not there, or cut short, has none."""
        found = Digest(like=digest)
        try:
            with self.path(relative).open("rb") as file:
                begin = file.read(144)  # preamble, prefix, and the length of the file meta information (PS3.10 7.1)
                file.seek(struct.unpack_from("<I", begin, 140)[0], os.SEEK_CUR)
                while piece := file.read(_MIB):
                    found.update(piece)
        except (OSError, SpoolError, struct.error):
            return False
        return str(found) == digest

    def read(self, relative: str) -> bytes:
        """Read a spooled file whole.

        Raises
        ------
        SpoolError
            If it is not there or cannot be read, or `relative` leads out of the spool.
        """
        try:
            with self._inside(relative).open("rb", buffering=0) as file:
                return file.read()
        except FileNotFoundError:
            raise SpoolError(f"the spool has no file {relative}; was it deleted by hand?") from None
        except OSError as error:
            raise SpoolError(f"{relative} cannot be read: {error.strerror}") from error

    def delete(self, relative: str) -> None:
        """Delete a file; one that is gone already is fine."""
        self._inside(relative).unlink(missing_ok=True)

    def delete_folder(self, relative: str) -> None:
        """Delete a folder and all that is in it; one that is gone already is fine."""
        shutil.rmtree(self._inside(relative), ignore_errors=True)

    def delete_empty_hours(self) -> None:
        """Delete the folders of earlier hours in which no instance is left."""
        for folder in (self.root / "instances").iterdir():
            if folder.name != self._this_hour():
                with suppress(OSError):  # it is not empty
                    folder.rmdir()

    def free_bytes(self) -> int:
        """Free space of the file system, as far as this user may fill it."""
        return shutil.disk_usage(self.root).free

    def is_full(self) -> bool:
        """Whether the free space is down to the reserve."""
        return self.free_bytes() < self.reserve_mib * _MIB

    def sweep_incoming(self) -> int:
        """Delete what a dead receiver left half-arrived, and leave what a living one still writes.

        Returns
        -------
        int
            How many were deleted.
        """
        swept = 0
        for path in (self.root / "incoming").glob("*.part"):
            swept += _delete_unless_open(path)
        return swept

    def sweep_orphans(self, known: Callable[[Sequence[str]], set[str]], older_than_s: float) -> int:
        """Delete stored files that have no row: their storing failed after the rename, and was never acknowledged.

        Parameters
        ----------
        known : callable
            Of relative paths, those that have a row.
        older_than_s : float
            Younger files are left alone: their row may be about to be committed.

        Returns
        -------
        int
            How many were deleted.
        """
        swept = 0
        for folder in (self.root / "instances").iterdir():
            old = [f"instances/{folder.name}/{path.name}" for path in _older(folder.iterdir(), older_than_s)]
            rows = known(old) if old else set()
            for relative in old:
                if relative not in rows:
                    self.delete(relative)
                    swept += 1
        return swept

    def sweep_results(self, wanted: Callable[[Sequence[str]], set[str]], older_than_s: float) -> int:
        """Delete the folders of results that no row speaks of: of attempts that failed, or whose rows were deleted.

        Parameters
        ----------
        wanted : callable
            Of ids of jobs, those whose results are to stay.
        older_than_s : float
            Younger folders are left alone: their rows may be about to be committed.

        Returns
        -------
        int
            How many were deleted.
        """
        old = [folder.name for folder in _older((self.root / "results").iterdir(), older_than_s)]
        stay = wanted(old) if old else set()
        for job in old:
            if job not in stay:
                self.delete_folder(f"results/{job}")
        return len(old) - len(stay)

    @staticmethod
    def _this_hour() -> str:
        return datetime.now(UTC).strftime("%Y%m%d-%H")

    def _folder_of_this_hour(self) -> Path:
        hour, folder = self._this_hour(), self._folder
        if folder.name != hour or not folder.exists():
            folder = self._instances / hour
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)
            self._folder = folder
        return folder

    def _inside(self, relative: str) -> Path:
        if relative.startswith("/") or ".." in relative.split("/"):
            raise SpoolError(f"{relative} is no path inside the spool")
        return self.root / relative


class Incoming:
    """A data set on its way into the spool.

    Attributes
    ----------
    size : int
        Bytes of the file so far, prefix included.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._prefix = 0
        self._digest = Digest()
        self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o640)
        fcntl.flock(self._fd, fcntl.LOCK_SH)  # says to `sweep_incoming` that somebody still writes here

    def write_prefix(self, data: bytes) -> None:
        """Write what stands before the data set and is ours, not the peer's: preamble and file meta information."""
        self._write([data])
        self._prefix = self.size

    def write(self, *pieces: memoryview | bytes) -> None:
        """Append pieces of the data set."""
        for data in pieces:
            self._digest.update(data)
        self._write(pieces)

    def read(self, position: int, length: int) -> bytes:
        """Read a piece of the data set back; shorter than `length` only at its end."""
        return os.pread(self._fd, length, self._prefix + position)

    @property
    def was_swept(self) -> bool:
        """Whether a sweep deleted the file in the moment between its opening and its locking."""
        return os.fstat(self._fd).st_nlink == 0

    @property
    def digest(self) -> str:
        """Digest of the data set as it was sent, without preamble and file meta information."""
        return str(self._digest)

    def sync(self) -> None:
        """Wait until the contents are on disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close; from now on a sweep takes what still lies at `path`."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def discard(self) -> None:
        """Close and delete."""
        with suppress(OSError):  # on a broken disk this fails as well; `sweep_incoming` takes what stays
            self.close()
        with suppress(OSError):
            self.path.unlink()

    def _write(self, pieces: Sequence[memoryview | bytes]) -> None:
        left = [memoryview(data) for data in pieces]
        while left:
            written = os.writev(self._fd, left[:_MOST_PIECES])
            self.size += written
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if written:
                left[0] = left[0][written:]


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _delete_unless_open(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _older(paths: Iterable[Path], seconds: float) -> list[Path]:
    limit = time.time() - seconds
    found = []
    for path in paths:
        try:
            if path.stat().st_mtime < limit:
                found.append(path)
        except FileNotFoundError:
            continue
    return found
