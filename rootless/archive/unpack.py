"""A tar archive as files, below one directory and nowhere else.

Owns what of an archive is made, and in which order. Both the archive and what is in the directory
already are hostile: a name never leads above the directory, no link is followed to make a file, and
nothing that exists is written to but replaced. Called by `carrier`, in the process that sees the
directory, and to fill a volume.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Callable
from typing import IO, Final, NamedTuple, cast

from rootless.errors import RlError
from rootless.images.metadata import set_owner, set_xattrs, shown, times
from rootless.kernel import mounts

_CHUNK: Final = 1 << 20
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PARENT: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Rules(NamedTuple):
    """What is taken over: ``keep`` owners (or they are root's, or ours), set-id bits (``setid``).

    ``as_root``: we may give files to others.
    """

    keep: bool
    as_root: bool
    setid: bool


class Place(NamedTuple):
    """The directory ``base``; for an archive from elsewhere, with links in its names, the
    directory ``path`` in ``root``, where they are followed.
    """

    base: int
    root: int = -1
    path: str = ""


def unpack(source: IO[bytes], place: Place, rules: Rules) -> list[str]:
    """Make all that an archive (compressed or not) holds; return the devices, which we cannot."""
    unpacker = _Unpacker(place, rules)
    name = ""
    try:
        # Both read only forwards, whatever tarfile's typing says.
        with tarfile.open(
            fileobj=source, mode="r|*", encoding="utf-8", errors="surrogateescape"
        ) as archive:
            reader = _Reader(cast("IO[bytes]", archive.fileobj))
            archive.fileobj = reader  # type: ignore[assignment]
            while entry := archive.next():
                name = shown(entry.name)
                unpacker.apply(entry, reader)
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            if name and (len(reader.last) < tarfile.BLOCKSIZE or reader.last.strip(b"\0")):
                # tarfile takes any nonsense for the end, and nothing at all.
                raise RlError(f"the archive is damaged after {name}")
        unpacker.finish()
        # What is after the end is no part of it, but whoever writes it is not to fail.
        while source.read(_CHUNK):
            pass
    except OSError as error:
        raise RlError(f"cannot write {name or 'anything'}: {error.strerror or error}") from None
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        where = f" after {name}" if name else ""
        raise RlError(f"the archive is damaged{where}: {error}") from None
    return unpacker.devices


class _Reader:
    """What tarfile reads from, which remembers ``last`` what was read: the header that ended it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.last = b""
        self._stream = stream
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close

    def read(self, size: int) -> bytes:
        self.last = self._stream.read(size)
        return self.last


class _Unpacker:
    def __init__(self, place: Place, rules: Rules) -> None:
        self.devices: list[str] = []
        self._place = place
        self._rules = rules
        self._parent_name: tuple[str, ...] | None = None
        self._parent = -1
        self._count = 0
        self._mark = os.urandom(8).hex()
        # Set last: what is made in a directory needs its permission and changes its time.
        self._directories: dict[tuple[str, ...], tarfile.TarInfo] = {}

    def apply(self, entry: tarfile.TarInfo, data: _Reader) -> None:
        """Make one entry, in place of what has its name, unless one of both is a directory."""
        names = _names(entry.name)
        if not names:
            if not entry.isdir():
                raise RlError(f"{shown(entry.name)} is no name of a file")
            # The directory itself stays as it is.
            return
        parent, name = self._open_parent(names[:-1]), names[-1]
        if entry.isdir():
            self._make_directory(parent, names, entry)
        elif entry.isreg():
            self._make_file(parent, name, entry, data)
        elif entry.issym():
            self._put(parent, name, lambda new: self._make_symlink(parent, new, entry))
        elif entry.islnk():
            first = _names(entry.linkname)
            if not first:
                raise RlError(f"{shown(entry.name)} is a link to no file")
            holder = os.dup(self._open_parent(first[:-1]))
            try:
                parent = self._open_parent(names[:-1])
                self._put(
                    parent,
                    name,
                    lambda new: os.link(
                        first[-1],
                        new,
                        src_dir_fd=holder,
                        dst_dir_fd=parent,
                        follow_symlinks=False,
                    ),
                )
            finally:
                os.close(holder)
        elif entry.isfifo():
            self._put(parent, name, lambda new: self._make_fifo(parent, new, entry))
        elif entry.isdev():
            self.devices.append(entry.name)
        else:
            raise RlError(f"{shown(entry.name)} is of type {entry.type!r}, which is not supported")

    def finish(self) -> None:
        """Give directories their final modes and times, the deepest first."""
        for names, entry in sorted(self._directories.items(), key=lambda item: -len(item[0])):
            fd = os.open(
                names[-1],
                os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                dir_fd=self._open_parent(names[:-1]),
            )
            try:
                self._describe(fd, entry)
            finally:
                os.close(fd)
        self._forget_parent()

    def _make_directory(self, parent: int, names: tuple[str, ...], entry: tarfile.TarInfo) -> None:
        try:
            os.mkdir(names[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            found = os.stat(names[-1], dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                raise RlError(
                    f"cannot overwrite {shown('/'.join(names))}, which is no directory, with one"
                ) from None
        self._directories[names] = entry

    def _make_file(self, parent: int, name: str, entry: tarfile.TarInfo, data: _Reader) -> None:
        fd = -1

        def make(new: str) -> None:
            nonlocal fd
            fd = os.open(new, _NEW_FILE, 0o600, dir_fd=parent)
            _write(fd, entry, data)
            self._describe(fd, entry)

        try:
            self._put(parent, name, make, fill=lambda mounted: _refill(mounted, fd))
        finally:
            if fd >= 0:
                os.close(fd)

    def _make_symlink(self, parent: int, new: str, entry: tarfile.TarInfo) -> None:
        os.symlink(entry.linkname, new, dir_fd=parent)
        self._set_owner(f"/proc/self/fd/{parent}/{new}", entry)
        os.utime(new, ns=times(entry), dir_fd=parent, follow_symlinks=False)

    def _make_fifo(self, parent: int, new: str, entry: tarfile.TarInfo) -> None:
        os.mkfifo(new, entry.mode & 0o777, dir_fd=parent)
        self._set_owner(f"/proc/self/fd/{parent}/{new}", entry)
        os.utime(new, ns=times(entry), dir_fd=parent, follow_symlinks=False)

    def _put(
        self,
        parent: int,
        name: str,
        make: Callable[[str], None],
        fill: Callable[[int], None] | None = None,
    ) -> None:
        """Have ``make`` make a file under a new name, and let it take the place of ``name``.

        On a mount nothing can take its place; ``fill`` changes what is mounted, if it can be.
        """
        self._count += 1
        new = f".rl-cp-{self._mark}-{self._count}"
        try:
            make(new)
            try:
                os.rename(new, name, src_dir_fd=parent, dst_dir_fd=parent)
            except IsADirectoryError:
                raise RlError(
                    f"cannot overwrite the directory {shown(name)} with what is none"
                ) from None
            except OSError as error:
                if error.errno != errno.EBUSY or fill is None:
                    raise
                flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                mounted = os.open(name, flags, dir_fd=parent)
                try:
                    fill(mounted)
                finally:
                    os.close(mounted)
        finally:
            try:
                # It is still there after a failure, or if it is another name of the same file.
                os.unlink(new, dir_fd=parent)
            except OSError:
                pass

    def _describe(self, fd: int, entry: tarfile.TarInfo) -> None:
        # In this order: a new owner clears set-id bits and capabilities.
        self._set_owner(fd, entry)
        os.fchmod(fd, entry.mode & (0o7777 if self._rules.setid else 0o1777))
        if self._rules.as_root:
            set_xattrs(fd, entry)
        os.utime(fd, ns=times(entry))

    def _set_owner(self, target: int | str, entry: tarfile.TarInfo) -> None:
        if self._rules.as_root:
            if not self._rules.keep:
                entry.uid = entry.gid = 0
            set_owner(target, entry)

    def _open_parent(self, names: tuple[str, ...]) -> int:
        """Return a descriptor of a directory, ours to close; made where it is missing."""
        held = self._parent_name
        if names != held:
            if held and names[: len(held)] == held and self._place.root < 0:
                parent = _descend(self._parent, names[len(held) :])
            else:
                parent = self._walk(names)
            self._forget_parent()
            self._parent, self._parent_name = parent, names
        return self._parent

    def _forget_parent(self) -> None:
        if self._parent_name is not None:
            os.close(self._parent)
            self._parent_name = None

    def _walk(self, names: tuple[str, ...]) -> int:
        place = self._place
        if place.root >= 0:
            return mounts.make_directories(place.root, "/".join((place.path, *names)))
        return _descend(place.base, names)


def _descend(directory: int, names: tuple[str, ...]) -> int:
    """Return a descriptor of a directory below, through no link; made where it is missing."""
    current = os.dup(directory)
    for name in names:
        try:
            try:
                following = os.open(name, _PARENT, dir_fd=current)
            except FileNotFoundError:
                os.mkdir(name, 0o755, dir_fd=current)
                following = os.open(name, _PARENT, dir_fd=current)
        finally:
            os.close(current)
        current = following
    return current


def _names(path: str) -> tuple[str, ...]:
    """Return the names that a path is made of; RlError if it could lead out."""
    names = tuple(name for name in path.split("/") if name not in ("", "."))
    if ".." in names or "\0" in path:
        raise RlError(f"{shown(path)} leads out of the directory")
    return names


def _write(fd: int, entry: tarfile.TarInfo, data: _Reader) -> None:
    parts = [(0, entry.size)]
    if entry.sparse is not None:
        parts = cast("list[tuple[int, int]]", entry.sparse)
    done = 0
    for offset, size in parts:
        if offset < done or not 0 <= size <= entry.size - offset:
            raise RlError(f"the table of holes of {shown(entry.name)} makes no sense")
        os.lseek(fd, offset, os.SEEK_SET)
        done = offset + size
        left = size
        while left:
            chunk = data.read(min(left, _CHUNK))
            if not chunk:
                raise RlError(f"the archive ends within {shown(entry.name)}")
            left -= len(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(fd, view) :]
    os.ftruncate(fd, entry.size)


def _refill(mounted: int, fd: int) -> None:
    """Write what the new file holds into one that cannot be replaced."""
    if not stat.S_ISREG(os.fstat(mounted).st_mode):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    source = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(mounted, 0)
        offset = 0
        while count := os.sendfile(mounted, source, offset, _CHUNK):
            offset += count
    finally:
        os.close(source)
