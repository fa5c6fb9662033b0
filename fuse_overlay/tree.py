"""The union of the layers as it is now: which inode a name reaches, where its backing file lies,
what it looks like.

Reads only (but turns foreign whiteouts of the upper layer into devices). Every method works on
inodes, not numbers; `upper` changes what is found here, `overlay` is the interface to the outside.
"""

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from fuse_overlay.descriptors import DirectoryDescriptors, raise_limit
from fuse_overlay.inodes import ROOT_NUMBER, Directory, File, Inode, InodeTable
from fuse_overlay.layers import (
    DIRECTORY_FLAGS,
    OBJECT_FLAGS,
    descriptor_path,
    is_opaque,
    scan,
)
from fuse_overlay.links import Links, link_key
from fuse_overlay.merge import UPPER, WHITEOUT_PREFIX, Kind, is_reserved, merge
from fuse_overlay.workdir import make_whiteout

_DESCRIPTORS = 4096
"""Directories kept open at most; no more than a quarter of what the process may open."""
_NAMES = 500_000
"""Names kept in memory at most, over all directories that were read."""


class Attributes(NamedTuple):
    """What stat(2) shows of an inode. Times in nanoseconds, `blocks` of 512 bytes."""

    number: int
    mode: int
    links: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    block_size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


class Tree:
    """The layers `upper` (or None) and `lowers`, topmost first; paths are followed as the caller
    named them.
    """

    def __init__(self, lowers: Sequence[str], upper: str | None, links: Links | None) -> None:
        roots: dict[int, int] = {}
        if upper is not None:
            roots[UPPER] = os.open(upper, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        for layer, path in enumerate(lowers, UPPER + 1):
            roots[layer] = os.open(path, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        self._descriptors = DirectoryDescriptors(roots, min(_DESCRIPTORS, raise_limit() // 4))
        self._links = links
        self._read: OrderedDict[Directory, int] = OrderedDict()
        self._names = 0
        self.root = Directory(ROOT_NUMBER, None, b"", in_upper=upper is not None, lowers=())
        self.root.lowers = self._lowers_of(
            self.root, tuple(range(UPPER + 1, UPPER + 1 + len(lowers)))
        )
        self.inodes = InodeTable(self.root)

    # Names

    def names(
        self, directory: Directory
    ) -> tuple[dict[bytes, Kind], Mapping[bytes, tuple[int, ...]]]:
        """What the upper layer has in a directory, and what the lower ones show there together.
        Read once, kept.
        """
        if directory.upper_names is None or directory.lower_names is None:
            directory.upper_names = self._scan_upper(directory) if directory.in_upper else {}
            directory.lower_names = (
                merge(
                    [
                        (layer, scan(self.directory_fd(directory, layer)))
                        for layer in directory.lowers
                    ]
                )
                if directory.lowers
                else {}
            )
            count = len(directory.upper_names) + len(directory.lower_names)
            self._read[directory] = count
            self._names += count
        else:
            self._read.setdefault(directory, 0)
            self._read.move_to_end(directory)
        return directory.upper_names, directory.lower_names

    def visible_names(self, directory: Directory) -> list[bytes]:
        if directory.removed:
            return []
        upper, lower = self.names(directory)
        names = [name for name, kind in upper.items() if kind is not Kind.WHITEOUT]
        names += [name for name in lower if name not in upper]
        return names

    def _scan_upper(self, directory: Directory) -> dict[bytes, Kind]:
        fd = self.directory_fd(directory, UPPER)
        names = scan(fd)
        for name, kind in names.items():
            if kind is Kind.WHITEOUT:
                try:
                    os.stat(name, dir_fd=fd, follow_symlinks=False)
                except (
                    FileNotFoundError
                ):  # a `.wh.` file: one form of whiteout is enough for what changes them
                    make_whiteout(fd, name)
                    os.unlink(WHITEOUT_PREFIX + name, dir_fd=fd)
        return names

    def find(self, parent: Directory, name: bytes) -> tuple[Inode, os.stat_result]:
        """The inode that a name reaches and its backing file's status.

        Raises OSError(ENOENT). The inode may be unused: whoever does not hand it to the kernel
        calls `inodes.drop_unused`.
        """
        child = parent.children.get(name)
        if child is not None:
            return child, self.status(child)
        if parent.removed or is_reserved(name):
            raise _no_entry(name)
        upper, lower = self.names(parent)
        kind = upper.get(name)
        if kind is Kind.WHITEOUT:
            raise _no_entry(name)
        layers = lower.get(name, ())
        if kind is Kind.OTHER:
            layers = (UPPER,)
        elif kind is Kind.DIRECTORY:
            layers = (UPPER, *layers)
        if not layers:
            raise _no_entry(name)
        status = os.stat(name, dir_fd=self.directory_fd(parent, layers[0]), follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return self._find_directory(parent, name, layers, status), status
        return self._find_file(parent, name, layers[0], status)

    def _find_directory(
        self, parent: Directory, name: bytes, layers: tuple[int, ...], status: os.stat_result
    ) -> Directory:
        in_upper = layers[0] == UPPER
        directory = Directory(0, parent, name, in_upper=in_upper, lowers=())
        directory.lowers = self._lowers_of(directory, layers[1:] if in_upper else layers)
        if in_upper and directory.lowers:
            # The lower directory's number, which it had before it was copied up.
            lower = os.stat(descriptor_path(self.directory_fd(directory, directory.lowers[0])))
            directory.number = self.inodes.number_for(lower)
        else:
            directory.number = self.inodes.number_for(status)
        self.inodes.add(directory)
        self.inodes.attach(directory, parent, name)
        return directory

    def _lowers_of(self, directory: Directory, candidates: tuple[int, ...]) -> tuple[int, ...]:
        """Those of the candidate layers that are merged into a directory: down to the first that is
        opaque.
        """
        if not candidates or (
            directory.in_upper and is_opaque(self.directory_fd(directory, UPPER))
        ):
            return ()
        lowers: list[int] = []
        for layer in candidates:
            try:
                fd = self.directory_fd(directory, layer)
            except NotADirectoryError:
                break
            lowers.append(layer)
            if layer != candidates[-1] and is_opaque(fd):
                break
        return tuple(lowers)

    def _find_file(
        self, parent: Directory, name: bytes, layer: int, status: os.stat_result
    ) -> tuple[File, os.stat_result]:
        file = self.inodes.find((layer, status.st_dev, status.st_ino))
        if file is None:
            file = self._linked_copy(layer, status) or self.new_file(layer, status)
        elif file.descriptor >= 0:
            os.close(file.descriptor)
            file.descriptor = -1
        self.inodes.attach(file, parent, name)
        return file, (status if file.layer == layer else self.status(file))

    def new_file(self, layer: int, status: os.stat_result) -> File:
        """An inode, without a name yet, for a backing file that has none."""
        file = File(self.inodes.number_for(status), layer)
        self.inodes.add(file)
        if status.st_nlink > 1:
            self.inodes.add_key(file, (layer, status.st_dev, status.st_ino))
            if layer == UPPER and self._links is not None:
                file.link_key = self._links.key_of(status.st_ino)
        return file

    def new_directory(self, status: os.stat_result) -> Directory:
        """An inode, without a name yet, for an upper directory that was just made and hides what is
        below.
        """
        directory = Directory(self.inodes.number_for(status), None, b"", in_upper=True, lowers=())
        directory.upper_names, directory.lower_names = {}, {}
        self.inodes.add(directory)
        return directory

    def _linked_copy(self, layer: int, status: os.stat_result) -> File | None:
        """The copy that was made of a lower file through another of its names."""
        if self._links is None or layer == UPPER or status.st_nlink == 1:
            return None
        key = link_key(layer, status)
        if key not in self._links:
            return None
        copy = os.stat(self._links.name(key), dir_fd=self._links.fd, follow_symlinks=False)
        file = self.inodes.find((UPPER, copy.st_dev, copy.st_ino))
        if file is None:
            file = File(self.inodes.number_for(status), UPPER)
            file.link_key = key
            self.inodes.add(file)
            self.inodes.keep_number(copy, file.number)
            self.inodes.add_key(file, (UPPER, copy.st_dev, copy.st_ino))
        self.inodes.add_key(file, (layer, status.st_dev, status.st_ino))
        return file

    # Backing files

    def directory_fd(self, directory: Directory, layer: int) -> int:
        """An O_PATH descriptor of a directory in one layer, valid during this operation."""
        return self._descriptors.get(directory, layer)

    def discard_fds(self, directory: Directory) -> None:
        """A directory's layers are about to change."""
        for layer in (UPPER, *directory.lowers):
            self._descriptors.discard(directory, layer)

    def location(self, file: File) -> tuple[int, bytes]:
        """(directory descriptor, name) of a file's backing file. Raises OSError(ESTALE) if no name
        is known.
        """
        if file.link_key is not None and self._links is not None:
            return self._links.fd, self._links.name(file.link_key)
        if not file.names:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        parent, name = file.names[0]
        return self.directory_fd(parent, file.layer), name

    @contextmanager
    def path(self, inode: Inode) -> Iterator[str]:
        """A path that reaches an inode's backing file and ends there, also at a symlink or without
        any name.
        """
        if inode.descriptor >= 0:
            yield descriptor_path(inode.descriptor)
        elif isinstance(inode, File):
            fd = self.open_path(inode)
            try:
                yield descriptor_path(fd)
            finally:
                os.close(fd)
        elif isinstance(inode, Directory):
            yield descriptor_path(self.directory_fd(inode, inode.top))

    def open_path(self, file: File) -> int:
        """A new O_PATH descriptor of a file."""
        if file.descriptor >= 0:
            return os.dup(file.descriptor)
        directory, name = self.location(file)
        return os.open(name, OBJECT_FLAGS, dir_fd=directory)

    def open_data(self, file: File, flags: int) -> int:
        """Open a regular file for reading or writing. Raises OSError(ENXIO) for all else: it might
        block, or act.
        """
        fd = self.open_path(file)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            return os.open(descriptor_path(fd), flags | os.O_CLOEXEC | os.O_NOCTTY)
        finally:
            os.close(fd)

    def readlink(self, file: File) -> bytes:
        directory, name = (file.descriptor, b"") if file.descriptor >= 0 else self.location(file)
        return os.readlink(name, dir_fd=directory)

    # Attributes

    def status(self, inode: Inode) -> os.stat_result:
        if inode.descriptor >= 0:
            return os.fstat(inode.descriptor)
        if isinstance(inode, File):
            directory, name = self.location(inode)
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
        assert isinstance(inode, Directory)
        return os.fstat(self.directory_fd(inode, inode.top))

    def links(self, inode: Inode, status: os.stat_result) -> int:
        """The link count in the overlay; 1 for a merged directory, whose subdirectories nobody has
        counted.
        """
        if isinstance(inode, File):
            if inode.link_key is not None and self._links is not None:
                return status.st_nlink + self._links.difference(inode.link_key)
            return status.st_nlink - inode.lost_names
        assert isinstance(inode, Directory)
        if inode.removed:
            return 0
        return status.st_nlink if len(inode.lowers) + inode.in_upper == 1 else 1

    def attributes(self, inode: Inode, status: os.stat_result | None = None) -> Attributes:
        if status is None:
            status = self.status(inode)
        return Attributes(
            inode.number,
            status.st_mode,
            self.links(inode, status),
            status.st_uid,
            status.st_gid,
            status.st_rdev,
            status.st_size,
            status.st_blocks,
            status.st_blksize,
            status.st_atime_ns,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )

    # Upkeep

    def trim(self) -> None:
        """Keep memory and descriptors bounded. To be called between operations."""
        self._descriptors.trim()
        while self._names > _NAMES and len(self._read) > 1:
            directory, count = self._read.popitem(last=False)
            directory.upper_names = directory.lower_names = None
            self._names -= count

    def close(self) -> None:
        self._descriptors.close()


def _no_entry(name: bytes) -> OSError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
