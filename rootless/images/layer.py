"""The process that unpacks one layer: `python -m rootless.images.layer DIR DIFF-ID MEDIA-TYPE`.

Owns how an archive becomes a directory tree in overlay form. Reads the
compressed layer on stdin, gives up the rest of the file system before it looks
at the archive, and says in one line on stderr what was wrong with it. Started
by the store's LayerWriter, as root of a user namespace.

The rules are the OCI image specification's layer.md; where it is silent, those
of umoci and containers/storage. Whiteouts take the form that overlayfs mounted
with `userxattr` understands.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import stat
import sys
import tarfile
from collections.abc import Callable, Iterable
from typing import Final, NoReturn, TypeVar, cast

from rootless.errors import RlError
from rootless.images.metadata import (
    SIZE_XATTR,
    is_kept,
    root_is_alone,
    set_owner,
    set_xattrs,
    shown,
    times,
)
from rootless.images.stream import LayerStream
from rootless.trees import remove_tree

T = TypeVar("T")

# For the interpreter, zstd's window (at most 128 MiB) and the names of some
# hundred thousand directories and whiteouts.
_MAX_MEMORY: Final = 768 << 20

_WHITEOUT: Final = ".wh."
_METADATA: Final = ".wh..wh."  # aufs's own files, but for the next
_OPAQUE: Final = ".wh..wh..opq"
_OPAQUE_XATTR: Final = "user.overlay.opaque"


def main(arguments: list[str]) -> NoReturn:
    """Unpack stdin into a directory; exit with 0, or 1 and a line on stderr."""
    directory, diff_id, media_type = arguments
    status = 1
    try:
        unpack(0, directory, diff_id, media_type)
        status = 0
    except RlError as error:
        _say(diff_id, str(error))
    except MemoryError:
        _say(diff_id, "it needs too much memory to unpack")
    except Exception as error:
        _say(diff_id, f"{type(error).__name__}: {error}")
    # Not by way of exit(): the end of a thread may load libgcc_s.so, here from the layer.
    os._exit(status)


def _say(diff_id: str, reason: str) -> None:
    line = f"cannot unpack layer {diff_id[:19]}: {' '.join(reason.split())}\n"
    os.write(2, line[:4000].encode(errors="backslashreplace"))


def unpack(fd: int, directory: str, diff_id: str, media_type: str) -> None:
    """Unpack the layer that arrives on ``fd`` and confine this process to ``directory`` for ever.

    Returns when all is on disk and the diff ID was found right; RlError otherwise.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    stream = LayerStream(fd, media_type)
    _confine(directory)
    size = _unpack_entries(stream)
    found = stream.drain()
    if found != diff_id:
        raise RlError(f"its content is {found}, not what the image's configuration says")
    with contextlib.suppress(OSError):  # only shown; not every file system takes it
        os.setxattr(".", SIZE_XATTR, str(size).encode())
    # The rename that follows makes the layer valid for good, so its files must not be
    # lost in a crash after it. One syncfs does for thousands of fsyncs.
    root = os.open(".", os.O_RDONLY)
    if libc.syncfs(root) != 0:
        raise RlError(f"cannot write it to the disk: {os.strerror(ctypes.get_errno())}")


def _confine(directory: str) -> None:
    """Leave this process nothing but the layer's directory, a bounded memory and its pipes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_MAX_MEMORY, _MAX_MEMORY))
    os.umask(0)
    root_is_alone()
    os.chdir(directory)
    for name in ("system.posix_acl_default", "system.posix_acl_access"):
        try:  # inherited from the user's directories, they would go on to every file
            os.removexattr(".", name)
        except OSError:
            pass
    os.chroot(".")
    # Any module imported from now on would be the layer's.
    sys.path.clear()
    sys.meta_path.clear()
    # A layer that says nothing of its root has the usual one.
    os.chmod(".", 0o755)


def _unpack_entries(stream: LayerStream) -> int:
    """Make all entries, and return how many bytes their files hold."""
    if stream.at_end():
        return 0
    unpacker = _Unpacker(stream)
    name = "the first entry"
    try:
        # tarfile's typing wants a whole file; it uses read, seek and tell of it.
        archive = tarfile.TarFile(
            fileobj=stream,  # type: ignore[arg-type]
            encoding="utf-8",
            errors="surrogateescape",
        )
        while entry := archive.next():
            name = shown(entry.name)
            unpacker.apply(entry)
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
        if stream.last_header.strip(b"\0"):
            raise RlError("the header after it is damaged")
        name = "whiteouts"
        unpacker.finish()
        return unpacker.size
    except RlError as error:
        raise RlError(f"{name}: {error}") from None
    except OSError as error:
        raise RlError(f"{name}: {_reason(error)}") from None
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise RlError(f"the archive is damaged after {name}: {error}") from None


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror} (free some, or keep images elsewhere with RL_ROOT or --root)"
    return error.strerror or str(error)


def inside(name: str) -> str:
    """Return a name of the archive as a path below the layer's root, "" for the root itself.

    Absolute names begin at the root. RlError if ``..`` would lead above it.
    """
    if "\0" in name:
        raise RlError("a NUL byte in a name")
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                raise RlError(f"{shown(name)} leads out of the layer")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


class _Unpacker:
    """Makes a layer's entries in the root directory, which is the layer's.

    All paths are relative to it and the kernel resolves their symbolic links
    there: nothing can lead out.
    """

    def __init__(self, stream: LayerStream) -> None:
        self.size = 0
        self._stream = stream
        # Set last: making what is in a directory changes its time.
        self._mtimes: dict[str, int] = {}
        # Made last: they are about lower layers and must not touch what this one
        # brings, in whatever order it does.
        self._whiteouts: list[str] = []
        self._opaques: list[str] = []

    def apply(self, entry: tarfile.TarInfo) -> None:
        """Make one entry; a later one of the same name replaces an earlier one."""
        path = inside(entry.name)
        if _WHITEOUT in path and self._note_whiteout(path):
            return
        if entry.isdir():
            self._make_directory(path, entry)
        elif not path:
            raise RlError("the layer's root can only be a directory")
        elif entry.isreg():
            self._make_file(path, entry)
        elif entry.issym():
            self._make(path, os.symlink, entry.linkname)
            set_owner(path, entry)
            os.utime(path, ns=times(entry), follow_symlinks=False)
        elif entry.islnk():
            self._make_link(path, inside(entry.linkname))
        elif entry.isfifo():
            self._make(path, lambda to: os.mkfifo(to, 0o600))
            set_owner(path, entry)
            os.chmod(path, entry.mode & 0o7777)
            os.utime(path, ns=times(entry))
        elif entry.isdev():
            # Nobody without root can make one, and a container has its own /dev. A
            # 0:0 device, which anybody can make, would be a whiteout.
            remove_tree(path)
        else:
            raise RlError(f"entries of type {entry.type!r} are not supported")

    def finish(self) -> None:
        """Make the whiteouts, then set the times of directories."""
        # The shallow first: what is below a whiteout is gone already.
        for path in sorted(self._whiteouts, key=lambda path: path.count("/")):
            self._make_whiteout(path)
        for path in self._opaques:
            self._make_opaque(path)
        for path, mtime in self._mtimes.items():
            # A later entry may have put another file in its place.
            if _mode(path, stat.S_IFDIR):
                os.utime(path or ".", ns=(mtime, mtime))

    def _note_whiteout(self, path: str) -> bool:
        """Remember what ``.wh.`` names mean; False if none of them is in ``path``."""
        *parents, name = path.split("/")
        if any(part.startswith(_METADATA) for part in parents):
            return True
        if any(part.startswith(_WHITEOUT) for part in parents):
            raise RlError("a whiteout cannot have entries below it")
        if not name.startswith(_WHITEOUT):
            return False
        if name == _OPAQUE:
            self._opaques.append("/".join(parents))
        elif not name.startswith(_METADATA):
            hidden = name.removeprefix(_WHITEOUT)
            if hidden in ("", ".", ".."):
                raise RlError("a whiteout of no name")
            self._whiteouts.append("/".join((*parents, hidden)))
        return True

    def _make_whiteout(self, path: str) -> None:
        try:
            self._make(path, lambda to: os.mknod(to, stat.S_IFCHR, 0), replace=False)
        except FileExistsError:
            # This layer brings the name itself. A directory must not be merged with
            # the one below; any other file hides what is below anyway.
            if _mode(path, stat.S_IFDIR):
                os.setxattr(path, _OPAQUE_XATTR, b"y")
        except NotADirectoryError:
            pass  # a parent is a whiteout, or a file: nothing below it is left to hide

    def _make_opaque(self, path: str) -> None:
        try:
            if path:
                self._make(path, _make_parent, replace=False)
        except (FileExistsError, NotADirectoryError):
            pass
        if _mode(path, stat.S_IFDIR):
            os.setxattr(path or ".", _OPAQUE_XATTR, b"y")

    def _make_directory(self, path: str, entry: tarfile.TarInfo) -> None:
        if path and not _mode(path, stat.S_IFDIR):
            self._make(path, os.mkdir)
        elif path in self._mtimes:
            for name in filter(is_kept, os.listxattr(path or ".")):
                os.removexattr(path or ".", name)
        at = path or "."
        set_owner(at, entry)
        os.chmod(at, entry.mode & 0o7777)
        set_xattrs(at, entry)
        self._mtimes[path] = times(entry)[0]

    def _make_file(self, path: str, entry: tarfile.TarInfo) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = self._make(path, lambda to: os.open(to, flags, 0o600))
        self.size += entry.size
        try:
            if entry.sparse is None:
                self._write(fd, entry.size)
            else:
                end = 0
                for offset, size in cast("Iterable[tuple[int, int]]", entry.sparse):
                    if offset < end or not 0 <= size <= entry.size - offset:
                        raise RlError("its sparse map makes no sense")
                    end = os.lseek(fd, offset, os.SEEK_SET) + size
                    self._write(fd, size)
                os.ftruncate(fd, entry.size)
            # In this order: a new owner clears setuid and capabilities.
            set_owner(fd, entry)
            os.fchmod(fd, entry.mode & 0o7777)
            set_xattrs(fd, entry)
            os.utime(fd, ns=times(entry))
        finally:
            os.close(fd)

    def _write(self, fd: int, size: int) -> None:
        for chunk in self._stream.chunks(size):
            rest = chunk
            while rest:
                rest = rest[os.write(fd, rest) :]

    def _make_link(self, path: str, target: str) -> None:
        if path == target:
            raise RlError("a hard link to itself")
        if not target or not _mode(target):
            raise RlError(f"a hard link to {shown(target)}, which is not in this layer")
        self._make(path, lambda to: os.link(target, to, follow_symlinks=False))

    def _make(self, path: str, make: Callable[..., T], *before: str, replace: bool = True) -> T:
        """Call ``make(*before, path)``; what it finds missing or in its way is seen to."""
        try:
            return make(*before, path)
        except FileNotFoundError:
            self._make_parents(path)
        except FileExistsError:
            if not replace:
                raise
            remove_tree(path)
        return make(*before, path)

    def _make_parents(self, path: str) -> None:
        """Make the directories above ``path`` that the archive did not bring."""
        parts = path.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            parent = "/".join(parts[:count])
            try:
                _make_parent(parent)
            except FileExistsError:
                if not os.path.isdir(parent) and _mode(parent, stat.S_IFLNK):
                    raise RlError(
                        f"its parent is a symbolic link to {shown(os.readlink(parent))}, "
                        "which is no directory of this layer"
                    ) from None


def _make_parent(path: str) -> None:
    os.mkdir(path)
    # A set-group-ID directory above would give it its group and that bit.
    os.chown(path, 0, 0)
    os.chmod(path, 0o755)


def _mode(path: str, kind: int = 0) -> int:
    """Return the mode of what is at ``path``, 0 if it is nothing, or not of that kind."""
    try:
        mode = os.lstat(path or ".").st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return mode if not kind or stat.S_IFMT(mode) == kind else 0


if __name__ == "__main__":
    main(sys.argv[1:])
