"""Shuts the process of a model in, before a line of the bundle runs: a bundle is code that somebody else wrote.

On Linux, without privileges: Landlock lets it read the programs, its bundle and nothing else, and write only into a
scratch folder of its own; seccomp lets it open no socket and start no process, so that it can neither call home nor
leave the group that is killed with it; capabilities are dropped. A model that is a program may start others, which
inherit all of this. Standard library only: this comes before torch.

References
----------
Linux kernel documentation, userspace-api/landlock.rst and userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import pwd
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sys", "/proc", "/opt/nvidia")
_SYSTEM_FILES = ("ld.so.cache", "ld.so.conf", "localtime", "passwd", "group", "nsswitch.conf", "mime.types")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_GPU_DEVICES = ("nvidia*", "dri", "kfd")

# Rights of Landlock, by the version of its interface that brought them.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_OF_FOLDERS = _READ_DIR | sum(1 << bit for bit in range(4, 14))
_TRUNCATE, _IOCTL = 1 << 14, 1 << 15
_RIGHTS = ((5, (1 << 16) - 1), (3, (1 << 15) - 1), (2, (1 << 14) - 1), (1, (1 << 13) - 1))
_TCP = 0b11  # bind, connect: since version 4
_SCOPES = 0b11  # abstract sockets and signals of others: since version 6
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_BENEATH = 1

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CLONE_THREAD = 0x10000
_CLONE_NAMESPACES = 0x7E020000  # mounts, cgroup, host name, IPC, users, process ids, network
_AF_UNIX = 1
_FILTER_MODE, _ALL_THREADS = 1, 1
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_STARTING = ("fork", "vfork")
_TALKING = ("socket", "connect")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108
_ANSWERED = {"clone3": errno.ENOSYS}  # the C library then uses clone, whose flags a filter can see

# What a model has no need of: sockets, processes, other processes' memory, ways around the above.
_X86_64 = {
    "socket": 41,
    "connect": 42,
    "fork": 57,
    "vfork": 58,
    "clone3": 435,
    "setpgid": 109,
    "setsid": 112,
    "ptrace": 101,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "pidfd_getfd": 438,
    "io_uring_setup": 425,
    "userfaultfd": 323,
    "bpf": 321,
    "perf_event_open": 298,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "unshare": 272,
    "setns": 308,
}
_AARCH64 = {
    "socket": 198,
    "connect": 203,
    "clone3": 435,
    "setpgid": 154,
    "setsid": 157,
    "ptrace": 117,
    "process_vm_readv": 270,
    "process_vm_writev": 271,
    "pidfd_getfd": 438,
    "io_uring_setup": 425,
    "userfaultfd": 282,
    "bpf": 280,
    "perf_event_open": 241,
    "add_key": 217,
    "request_key": 218,
    "keyctl": 219,
    "unshare": 97,
    "setns": 268,
}


class ConfinementError(Exception):
    """The process cannot be shut in. The message says what the system lacks."""


def become(account: str) -> None:
    """Take on another account of the system, for good.

    Parameters
    ----------
    account : str
        Name of the account. Only a privileged process may change it.

    Raises
    ------
    ConfinementError
        If there is no such account, or this process may not take it on.
    """
    try:
        entry = pwd.getpwnam(account)
        os.initgroups(account, entry.pw_gid)
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    except KeyError:
        raise ConfinementError(f"this machine has no account {account!r}") from None
    except PermissionError:
        raise ConfinementError(f"only a node that runs as root can give its models the account {account!r}") from None
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self is closed to its own process


def confine(
    readable: Iterable[Path], writable: Iterable[Path], *, may_start: bool = False, may_share: bool = False
) -> tuple[str, ...]:
    """Shut this process in, for good, with all threads that it has or starts, and all processes if it may start any.

    Parameters
    ----------
    readable : iterable of pathlib.Path
        Folders and files that it may read, beside the system's programs and Python's packages.
    writable : iterable of pathlib.Path
        Folders in which it may do anything.
    may_start : bool
        Whether it may start processes. They are shut in like it, and cannot leave the group that is killed with it.
    may_share : bool
        Whether these may share memory and open sockets between each other: sockets of this machine alone, never of a
        network.

    Returns
    -------
    tuple of str
        The mechanisms in force: ``landlock 7``, ``seccomp``.

    Raises
    ------
    ConfinementError
        If the system has none of them, or not enough.
    """
    machine = _Machine.here()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise ConfinementError("Linux refuses to give up privileges")
    shared = [Path(_SHARED_MEMORY)] if may_share else []
    version = _landlock(libc, [*readable, *_programs()], [*writable, *shared, *_devices()])
    _drop_capabilities(libc, machine)
    _seccomp(libc, b"".join(_filter(machine, may_start=may_start, may_share=may_share)), machine.seccomp)
    return f"landlock {version}", "seccomp"


class _Machine:
    """Numbers that differ between processors."""

    def __init__(self, arch: int, calls: dict[str, int], *, clone: int, prctl: int, seccomp: int, capset: int) -> None:
        self.arch, self.calls, self.clone, self.prctl = arch, calls, clone, prctl
        self.seccomp, self.capset = seccomp, capset

    @classmethod
    def here(cls) -> _Machine:
        kind = platform.machine() if sys.platform == "linux" else sys.platform
        if kind == "x86_64":
            return cls(0xC000003E, _X86_64, clone=56, prctl=157, seccomp=317, capset=126)
        if kind == "aarch64":
            return cls(0xC00000B7, _AARCH64, clone=220, prctl=167, seccomp=277, capset=91)
        raise ConfinementError(f"a model's process can be shut in on Linux on x86_64 or aarch64, not on {kind}")


def _programs() -> Iterator[Path]:
    """What Python itself reads. Not the folder of this product: settings and spool may lie in it."""
    home = Path(__file__).resolve().parent
    yield home
    for place in (*_SYSTEM, *(f"/etc/{name}" for name in _SYSTEM_FILES), sys.prefix, sys.base_prefix):
        yield Path(place)
    for place in (*sys.path, *os.environ.get("LD_LIBRARY_PATH", "").split(":")):
        if place and Path(place).resolve() not in (home.parent, Path.cwd()):
            yield Path(place)


def _devices() -> Iterator[Path]:
    yield from map(Path, _DEVICES)
    for pattern in _GPU_DEVICES:
        yield from Path("/dev").glob(pattern)


def _landlock(libc: ctypes.CDLL, readable: Iterable[Path], writable: Iterable[Path]) -> int:
    version = int(libc.syscall(_CREATE_RULESET, None, 0, 1))
    if version < 1:
        raise ConfinementError("this Linux has no Landlock (it came with 5.13), or it is switched off")
    handled = next(rights for since, rights in _RIGHTS if version >= since)
    attributes = [handled, *([_TCP] if version >= 4 else []), *([_SCOPES] if version >= 6 else [])]
    packed = struct.pack(f"={len(attributes)}Q", *attributes)
    ruleset = libc.syscall(_CREATE_RULESET, packed, len(packed), 0)
    if ruleset < 0:
        raise ConfinementError(f"Landlock refuses its rules: {os.strerror(ctypes.get_errno())}")
    try:
        for paths, rights in ((readable, _READ), (writable, handled)):
            for path in paths:
                _allow(libc, ruleset, path, rights & handled)
        if libc.syscall(_RESTRICT_SELF, ruleset, 0):
            raise ConfinementError(f"Landlock cannot be switched on: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(ruleset)
    return version


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no right
    try:
        if not path.is_dir():
            rights &= ~_OF_FOLDERS
        if libc.syscall(_ADD_RULE, ruleset, _BENEATH, struct.pack("=Qi", rights, place), 0):
            raise ConfinementError(f"Landlock refuses a rule for {path}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(place)


def _drop_capabilities(libc: ctypes.CDLL, machine: _Machine) -> None:
    if libc.syscall(machine.capset, struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", *[0] * 6)):
        raise ConfinementError(f"capabilities cannot be dropped: {os.strerror(ctypes.get_errno())}")


def _seccomp(libc: ctypes.CDLL, program: bytes, call: int) -> None:
    kept = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(kept))
    if libc.syscall(call, _FILTER_MODE, _ALL_THREADS, described):
        raise ConfinementError(f"seccomp cannot be switched on: {os.strerror(ctypes.get_errno())}")


def _filter(machine: _Machine, *, may_start: bool, may_share: bool) -> Iterator[bytes]:
    """The filter in the kernel's own instructions. Offsets: 0 call, 4 processor, 16 first argument."""
    yield from (_load(4), _if_equal(machine.arch, 1, 0), _return(_KILL), _load(0))
    yield from (_if_at_least(0x40000000, 0, 1), _return(_ERRNO | errno.EPERM))  # 32-bit pointers on x86_64
    spared = (*(_STARTING if may_start else ()), *(_TALKING if may_share else ()))
    for name, number in machine.calls.items():
        if name not in spared:
            yield from (_if_equal(number, 0, 1), _return(_ERRNO | _ANSWERED.get(name, errno.EPERM)))
    if may_share:
        yield from (_if_equal(machine.calls["socket"], 0, 4), _load(16), _if_equal(_AF_UNIX, 1, 0))
        yield from (_return(_ERRNO | errno.EPERM), _return(_ALLOW))
    refused = _if_set(_CLONE_NAMESPACES, 0, 1) if may_start else _if_set(_CLONE_THREAD, 1, 0)
    yield from (_if_equal(machine.clone, 0, 4), _load(16), refused)
    yield from (_return(_ERRNO | errno.EPERM), _return(_ALLOW))
    yield from (_if_equal(machine.prctl, 0, 4), _load(16), _if_equal(_PR_SET_PDEATHSIG, 0, 1))
    yield from (_return(_ERRNO | errno.EPERM), _return(_ALLOW), _return(_ALLOW))


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", 0x20, 0, 0, offset)


def _if_equal(value: int, then: int, otherwise: int) -> bytes:
    return struct.pack("=HBBI", 0x15, then, otherwise, value)


def _if_at_least(value: int, then: int, otherwise: int) -> bytes:
    return struct.pack("=HBBI", 0x35, then, otherwise, value)


def _if_set(bits: int, then: int, otherwise: int) -> bytes:
    return struct.pack("=HBBI", 0x45, then, otherwise, bits)


def _return(value: int) -> bytes:
    return struct.pack("=HBBI", 0x06, 0, 0, value)
