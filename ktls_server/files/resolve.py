"""A request's path to a contained, open file: the only place that turns names from the network into descriptors.

What always holds:

- Nothing outside the root is reached, whatever the path, the symlinks, or a rename that happens meanwhile. There is no
  check of a name followed by an open of the same name: each step starts from a descriptor that is already contained.
- Only regular files are opened for reading. Everything is looked at first with `O_PATH`, which does not open the thing
  itself, so a FIFO cannot block us and a device cannot notice us.
- Names are bytes from end to end, so a name in any encoding can be served.

Two ways lead to the same answer. `openat2(2)` with `RESOLVE_BENEATH` lets the kernel do all of it in one call (Linux
5.6, `linux/openat2.h`). Where the kernel or a seccomp filter refuses that, and for absolute symlinks that point back
into the root, which `RESOLVE_BENEATH` never follows, `_Walk` goes component by component and reads symlinks itself.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from ..errors import FileUnavailable

SYS_openat2 = 437  # asm-generic/unistd.h; the same on every architecture that CPython's Linux wheels know
RESOLVE_NO_MAGICLINKS = 0x02  # linux/openat2.h
RESOLVE_BENEATH = 0x08  # linux/openat2.h

# fs/namei.c: MAXSYMLINKS. Both ways stop at the same depth.
MAX_SYMLINKS = 40

# The kernel says EAGAIN when a rename kept it from proving that ".." stayed beneath; the walk needs no such proof.
# E2BIG and EINVAL: an openat2 with another struct open_how or without these flags. EXDEV: an escape, or an absolute
# symlink that may still lead inside. EINTR: the walk's calls are retried by Python itself (PEP 475).
_WALK_INSTEAD = frozenset(
    (errno.ENOSYS, errno.EPERM, errno.EXDEV, errno.EAGAIN, errno.E2BIG, errno.EINVAL, errno.EINTR)
)

_STATUS_OF_ERRNO = {
    errno.EACCES: 403,
    errno.EPERM: 403,
    errno.EMFILE: 503,
    errno.ENFILE: 503,
    errno.ENOMEM: 503,
    errno.EAGAIN: 503,
    errno.ENOENT: 404,
    errno.ENOTDIR: 404,
    errno.ELOOP: 404,
    errno.ENAMETOOLONG: 404,
    errno.EXDEV: 404,
    errno.EINVAL: 404,
    errno.ENXIO: 404,
    errno.ENODEV: 404,
    errno.ESTALE: 404,
}

_PROC_SELF_FD = b"/proc/self/fd/%d"
_O_LOOK = os.O_PATH | os.O_CLOEXEC
# O_NONBLOCK: a regular file under a lease (fcntl F_SETLEASE) would otherwise block the whole event loop in open.
_O_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class _OpenHow(ctypes.Structure):
    """`struct open_how`, linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


# Without argtypes and with arguments that are C values already, a call costs a microsecond less. `c_long` for the
# descriptor: C's variadic `syscall` reads registers.
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_SYS_OPENAT2 = ctypes.c_long(SYS_openat2)
_HOW_SIZE = ctypes.c_size_t(ctypes.sizeof(_OpenHow))
_HOW_TO_LOOK = _OpenHow(_O_LOOK, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
_HOW_TO_READ = _OpenHow(_O_READ, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
_LOOK_ADDRESS = ctypes.c_void_p(ctypes.addressof(_HOW_TO_LOOK))
_READ_ADDRESS = ctypes.c_void_p(ctypes.addressof(_HOW_TO_READ))


class Found(NamedTuple):
    """Something inside the root: an `O_PATH` descriptor, which the receiver closes, and what `fstat` said of it."""

    fd: int
    stat: os.stat_result


Identity: TypeAlias = tuple[int, int, int, int, int, int]
"""Mode, device, inode, size, and the times of the last change of content and of inode in nanoseconds."""


class Proof(NamedTuple):
    """What an answer was made from: paths relative to the root, each with what it was.

    `folders` are those on the way, with mode, device and inode, outermost first; None where symlinks are on the way.
    """

    folders: tuple[tuple[bytes, tuple[int, int, int]], ...] | None
    files: tuple[tuple[bytes, Identity], ...]
    absent: tuple[bytes, ...]


def identity_of(status: os.stat_result) -> Identity | None:
    """None for anything but a regular file."""
    return _identity(status) if stat.S_ISREG(status.st_mode) else None


def _identity(status: os.stat_result) -> Identity:
    return status[0], status[2], status[1], status[6], status.st_mtime_ns, status.st_ctime_ns


class Root:
    """The folder that is served, held by one descriptor; a later rename of the folder changes nothing."""

    def __init__(self, path: Path, *, openat2: bool = True) -> None:
        """`openat2` False takes the walk for everything. Raises OSError where `path` is no folder that opens."""
        self._names = tuple({os.fsencode(os.path.abspath(path)), os.fsencode(os.path.realpath(path))})
        self._openat2 = openat2
        self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._c_fd = ctypes.c_long(self._fd)

    def close(self) -> None:
        """Give the descriptor back, once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def find(self, path_untrusted: bytes) -> Found:
        """What is at `path_untrusted`, relative to the root; symlinks are followed while they stay inside.

        Raises `FileUnavailable`.
        """
        fd = self._look(path_untrusted)
        if fd < 0:
            raise _refusal(-fd)
        return Found(fd, _status_of(fd))

    def find_file(self, path_untrusted: bytes) -> Found | None:
        """The same for a file that need not be there: None where there is no regular file."""
        try:
            found = self.find(path_untrusted)
        except FileUnavailable as refusal:
            if refusal.status == 404:
                return None
            raise
        if not stat.S_ISREG(found.stat.st_mode):
            os.close(found.fd)
            return None
        return found

    def proof(self, files: Sequence[tuple[bytes, os.stat_result]], absent: tuple[bytes, ...]) -> Proof | None:
        """What tells that these files, found with that status, are still there and unchanged, and those names still absent.

        None where that cannot be told. The cheaper way is taken if it holds now: it does where no symlink is on the way.
        """
        identities = [(path, identity_of(status)) for path, status in files]
        proved = tuple((path, identity) for path, identity in identities if identity is not None)
        if len(proved) < len(identities):
            return None
        names = {path[:end] for path, _ in proved for end in range(len(path)) if path[end : end + 1] == b"/"}
        try:
            found = [(name, os.lstat(name, dir_fd=self._fd)) for name in sorted(names, key=len)]
        except OSError:
            return None
        folders = tuple((name, (status.st_mode, status.st_dev, status.st_ino)) for name, status in found)
        for proof in (Proof(folders, proved, absent), Proof(None, proved, absent)):
            if self.holds(proof):
                return proof
        return None

    def holds(self, proof: Proof) -> bool:
        """Whether everything is as the proof says. As contained as `find`.

        Without symlinks on the way: each folder from the root down is the same folder, and then the file, looked at last,
        is the same file. Was a folder exchanged for a symlink between two of these looks, the proof is of the moment
        before. Otherwise the kernel resolves each path beneath the root.
        """
        folders, files, absent = proof
        fd = self._fd
        try:
            if folders is None:
                for path, identity in files:
                    if self._resolved_identity(path) != identity:
                        return False
            else:
                for path, folder in folders:
                    status = os.lstat(path, dir_fd=fd)
                    if (status[0], status[2], status[1]) != folder:
                        return False
                for path, identity in files:
                    if _identity(os.lstat(path, dir_fd=fd)) != identity:
                        return False
            return not absent or not any(map(self.seems_to_hold, absent))
        except OSError:
            return False

    def _resolved_identity(self, path_untrusted: bytes) -> Identity:
        fd = self._look(path_untrusted)
        if fd < 0:
            raise OSError(-fd, os.strerror(-fd))
        try:
            return _identity(os.fstat(fd))
        finally:
            os.close(fd)

    def seems_to_hold(self, path_untrusted: bytes) -> bool:
        """A cheap first look for what is mostly not there: False is an answer, True says only that looking is worth it.

        Opens nothing, and is the one call that may look outside the root, by a symlink: nothing is served for it.
        """
        return os.access(path_untrusted, os.F_OK, dir_fd=self._fd)

    def open_file(self, found: Found, path_untrusted: bytes) -> int:
        """A readable descriptor of the very file that was found; closes `found.fd` in any case.

        `path_untrusted` is where it was found, needed again where /proc is missing. Raises `FileUnavailable`: 404 for
        anything but a regular file, 403 for one that may not be read.
        """
        try:
            if not stat.S_ISREG(found.stat.st_mode):
                raise FileUnavailable(404)
            return os.open(_PROC_SELF_FD % found.fd, _O_READ)
        except FileNotFoundError:
            return self._open_again(found, path_untrusted)
        except OSError as error:
            raise _refusal(error.errno or 0) from error
        finally:
            os.close(found.fd)

    def open_folder(self, found: Found) -> int:
        """A descriptor of a found folder for `os.scandir`; leaves `found.fd` open. Raises `FileUnavailable`."""
        try:
            return os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=found.fd)
        except OSError as error:
            raise _refusal(error.errno or 0) from error

    def _look(self, path_untrusted: bytes, *, read: bool = False) -> int:
        """An `O_PATH` descriptor (or a readable one), or the negative errno."""
        if b"\0" in path_untrusted:  # C strings end there: the kernel would see another name
            return -errno.ENOENT
        if self._openat2:
            address = _READ_ADDRESS if read else _LOOK_ADDRESS
            fd: int = _syscall(_SYS_OPENAT2, self._c_fd, path_untrusted or b".", address, _HOW_SIZE)
            if fd >= 0:
                return fd
            code = ctypes.get_errno()
            if code not in _WALK_INSTEAD:
                return -code
        try:
            return _Walk(self._fd, self._names).open(path_untrusted, _O_READ if read else _O_LOOK)
        except OSError as error:
            return -(error.errno or errno.EIO)

    def _open_again(self, found: Found, path_untrusted: bytes) -> int:
        """Without /proc an `O_PATH` descriptor cannot be reopened: resolve once more, and take only the same inode."""
        fd = self._look(path_untrusted, read=True)
        if fd < 0:
            raise _refusal(-fd)
        status = _status_of(fd)
        if (status.st_dev, status.st_ino) != (found.stat.st_dev, found.stat.st_ino):
            os.close(fd)
            raise FileUnavailable(404)
        return fd


def _status_of(fd: int) -> os.stat_result:
    """`fstat`, which a network file system can refuse; `fd` is closed then. Raises as `Root.find`."""
    try:
        return os.fstat(fd)
    except OSError as error:
        os.close(fd)
        raise _refusal(error.errno or 0) from error


def _refusal(code: int) -> FileUnavailable | OSError:
    """What to raise for an errno: an OSError for what no request and no file's absence explains, such as EIO."""
    status = _STATUS_OF_ERRNO.get(code)
    return OSError(code, os.strerror(code)) if status is None else FileUnavailable(status)


class _Walk:
    """One path, followed component by component from the root, as the kernel would under `RESOLVE_BENEATH`.

    `folders` is the chain of open folders from the root down. A `..` (in a symlink) goes back along the chain instead
    of asking the file system, so a folder that is moved away meanwhile cannot lead above the root.
    """

    def __init__(self, root_fd: int, root_names: tuple[bytes, ...]) -> None:
        self._root_names = root_names
        self._folders = [root_fd]
        self._symlinks = 0

    def open(self, path_untrusted: bytes, flags: int) -> int:
        """Opens what is there with `flags`. Raises OSError with the errno that the kernel would have given."""
        if path_untrusted.startswith(b"/"):
            raise OSError(errno.EXDEV, "an absolute path leaves the root")
        pending = path_untrusted.split(b"/")[::-1]
        try:
            while pending:
                name = pending.pop()
                if name == b"..":
                    self._climb()
                elif name not in (b"", b"."):
                    fd = self._step(name, pending, flags)
                    if fd is not None:
                        return fd
            return os.open(b".", flags, dir_fd=self._folders[-1])
        finally:
            self._leave_all()

    def _step(self, name: bytes, pending: list[bytes], flags: int) -> int | None:
        """Enters a folder or follows a symlink (more is then `pending`), or opens what is neither and ends the path."""
        fd = os.open(name, _O_LOOK | os.O_NOFOLLOW, dir_fd=self._folders[-1])
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISLNK(mode):
                pending.extend(self._follow(os.readlink(b"", dir_fd=fd)))
                return None
            if stat.S_ISDIR(mode):
                self._folders.append(fd)
                fd = -1
                return None
            if pending:
                raise OSError(errno.ENOTDIR, "not a folder")
            if flags == _O_LOOK:
                found, fd = fd, -1
                return found
            return os.open(name, flags | os.O_NOFOLLOW, dir_fd=self._folders[-1])
        finally:
            if fd >= 0:
                os.close(fd)

    def _climb(self) -> None:
        if len(self._folders) == 1:
            raise OSError(errno.EXDEV, "a .. leaves the root")
        os.close(self._folders.pop())

    def _follow(self, target: bytes) -> list[bytes]:
        """The components that a symlink stands for, last first."""
        self._symlinks += 1
        if self._symlinks > MAX_SYMLINKS:
            raise OSError(errno.ELOOP, "too many symlinks")
        if target.startswith(b"/"):
            target = self._inside(target)
            self._leave_all()
        return target.split(b"/")[::-1]

    def _inside(self, target: bytes) -> bytes:
        """An absolute symlink's target, relative to the root, where it begins with the root's own name."""
        for name in self._root_names:
            if target == name or target.startswith(name.rstrip(b"/") + b"/"):
                return target[len(name) :].lstrip(b"/")
        raise OSError(errno.EXDEV, "an absolute symlink leaves the root")

    def _leave_all(self) -> None:
        while len(self._folders) > 1:
            os.close(self._folders.pop())
