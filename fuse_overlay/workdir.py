"""The work directory: where things are made before they appear in the upper directory in one step.

Owns WORK/work (temporary objects, garbage whenever no server runs) and the lock on it. Nothing in
it is ever visible in the mount. Called by `copyup` and `changes`.
"""

import errno
import fcntl
import os
import stat

from fuse_overlay.layers import DIRECTORY_FLAGS, descriptor_path, open_directory
from fuse_overlay.merge import OPAQUE_ATTRIBUTE, OPAQUE_MARKER

_WHITEOUT = b"whiteout"


class WorkDirectory:
    """Opens WORK/work, locks it and empties it.

    Raises OSError: EBUSY when another server uses it.
    """

    def __init__(self, path: str) -> None:
        self.root = os.open(path, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        self.fd = make_directory(self.root, b"work")
        self._lock = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                errno.EBUSY, "the work directory is in use by another mount", path
            ) from None
        self._count = 0
        empty(self.fd)

    def check_same_file_system(self, upper: int) -> None:
        """Raise OSError(EXDEV) if nothing can be renamed from here to the directory `upper`."""
        if os.fstat(upper).st_dev != os.fstat(self.fd).st_dev:
            reason = "the work directory is not on the file system of the upper directory"
            raise OSError(errno.EXDEV, reason)

    def temporary(self) -> bytes:
        """A name in `fd` that is not in use."""
        self._count += 1
        return b"%x" % self._count

    def whiteout(self, directory: int | None = None, name: bytes | None = None) -> bytes:
        """Make a whiteout, here under a temporary name unless told where. Returns its name.

        All are links to one, as under the kernel's overlayfs: no inode is made for each.
        """
        directory = self.fd if directory is None else directory
        name = self.temporary() if name is None else name
        try:
            os.link(_WHITEOUT, name, src_dir_fd=self.fd, dst_dir_fd=directory)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EMLINK, errno.EPERM):
                raise
            self.remove(_WHITEOUT)
            make_whiteout(self.fd, _WHITEOUT)
            os.link(_WHITEOUT, name, src_dir_fd=self.fd, dst_dir_fd=directory)
        return name

    def remove(self, name: bytes) -> None:
        """Remove a temporary object of any type, if it is there, with all that it contains.

        What cannot be removed is garbage, like all that a killed server leaves: the next one tries
        again.
        """
        try:
            status = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
            _remove(self.fd, name, stat.S_ISDIR(status.st_mode))
        except OSError:
            pass

    def close(self) -> None:
        for fd in (self.fd, self.root, self._lock):  # whoever waits for the lock finds all closed
            os.close(fd)


def make_directory(parent: int, name: bytes) -> int:
    """Open a private directory of our own, made if need be, as an O_PATH descriptor."""
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        pass
    fd = open_directory(name, parent)
    os.chmod(descriptor_path(fd), 0o700)  # the kernel's overlayfs leaves WORK/work with mode 0
    return fd


def make_whiteout(directory: int, name: bytes) -> None:
    """Allowed to everyone since Linux 5.8."""
    os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)


def empty(directory: int) -> None:
    """Remove everything in a directory."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(fd) as entries:
            found = [
                (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries
            ]
        for name, is_directory in found:
            _remove(fd, name, is_directory)
    finally:
        os.close(fd)


def _remove(parent: int, name: bytes, is_directory: bool) -> None:
    if is_directory:
        fd = open_directory(name, parent)
        try:
            empty(fd)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent)
    else:
        os.unlink(name, dir_fd=parent)


def make_opaque(directory: int) -> None:
    """Mark an upper directory as hiding what is below."""
    try:
        os.setxattr(descriptor_path(directory), OPAQUE_ATTRIBUTE, b"y")
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        os.close(
            os.open(OPAQUE_MARKER, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=directory)
        )
