"""The union of the layers as it is now: which inode a name reaches, and what it looks like.

Reads only (but turns foreign whiteouts of the upper layer into devices). Works on inodes, not on
numbers; `changes`, `copyup` and `rename` change what is found here, `overlay` shows it outside.
"""

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fuse_overlay.attributes import Attributes
from fuse_overlay.backing import Backing
from fuse_overlay.inodes import ROOT_NUMBER, Directory, File, Inode, InodeTable
from fuse_overlay.layers import (
    descriptor_path,
    is_opaque,
    scan,
)
from fuse_overlay.links import link_key
from fuse_overlay.merge import (
    NUMBER_ATTRIBUTE,
    UPPER,
    WHITEOUT_PREFIX,
    Kind,
    is_reserved,
    merge,
)
from fuse_overlay.quota import Quota
from fuse_overlay.syscalls import start_writing
from fuse_overlay.workdir import make_whiteout

if TYPE_CHECKING:
    from fuse_overlay.ownership import Ownership

_NAMES = 500_000
"""Names kept in memory at most, over all directories that were read."""
_UPPER_ONLY = (UPPER,)
_TOMBSTONES = 1000
"""Removed names that a listing may hold beyond as many as there are visible ones."""
_DIRECTORY = 8
"""What a directory itself counts among them, so that empty and removed ones are bounded too."""


class Tree:
    """The union of the `layers` lower layers of `backing`, and of its upper one if `writable`."""

    def __init__(
        self, backing: Backing, layers: int, owners: "Ownership | None" = None, *, writable: bool
    ) -> None:
        self.backing = backing
        self.owners = owners
        self._links = backing.links
        self._read: OrderedDict[Directory, int] = OrderedDict()
        self._names = 0
        self._layers = layers
        self.root = Directory(ROOT_NUMBER, None, b"", in_upper=writable, lowers=())
        self.root.lowers = self._lowers_of(self.root, tuple(range(UPPER + 1, UPPER + 1 + layers)))
        self.inodes = InodeTable(self.root, backing.close_data, self._gone)
        self.quota: Quota | None = None
        for layer in self.root.lowers:
            self.inodes.know_device(os.fstat(backing.directory_fd(self.root, layer)).st_dev)

    # Names

    def names(
        self, directory: Directory
    ) -> tuple[dict[bytes, Kind], Mapping[bytes, tuple[int, ...]]]:
        """What the upper layer has in a directory, and what the lower ones show there together.

        Read once, and kept while there is room.
        """
        if directory.upper_names is None or directory.lower_names is None:
            directory.upper_names = self._scan_upper(directory) if directory.in_upper else {}
            directory.lower_names = (
                merge(
                    [
                        (layer, scan(self.backing.directory_fd(directory, layer)))
                        for layer in directory.lowers
                    ]
                )
                if directory.lowers
                else {}
            )
        count = _DIRECTORY + len(directory.upper_names) + len(directory.lower_names)
        self._names += count - self._read.get(directory, 0)
        self._read[directory] = count
        self._read.move_to_end(directory)
        return directory.upper_names, directory.lower_names

    def shows(self, directory: Directory, name: bytes) -> bool:
        """Whether a name is there."""
        upper, lower = self.names(directory)
        kind = upper.get(name)
        return name in lower if kind is None else kind is not Kind.WHITEOUT

    def visible_names(self, directory: Directory) -> list[bytes]:
        if directory.removed:
            return []
        upper, lower = self.names(directory)
        if not upper:
            return list(lower)
        names = [name for name, kind in upper.items() if kind is not Kind.WHITEOUT]
        names += [name for name in lower if name not in upper]
        return names

    def listing(self, directory: Directory) -> tuple[int, list[bytes | None]]:
        """The names as readdir shows them, None where one was removed, and the first one's offset.

        A name keeps its offset while it is there, so that whoever reads while names come and go
        misses none of the others, and meets none twice. (When most are gone the list is made anew,
        with higher offsets: a reader may then meet a name again.)
        """
        listing = directory.listing
        if listing is not None and len(listing) > 2 * len(directory.positions) + _TOMBSTONES:
            self._drop_listing(directory)
            listing = None
        if listing is None:
            listing = directory.listing = [*self.visible_names(directory)]
            directory.positions = {name: position for position, name in enumerate(listing) if name}
        return directory.listing_start, listing

    def _drop_listing(self, directory: Directory) -> None:
        """Forget a listing. Whoever reads it meets names again, and misses none."""
        if directory.listing is not None:
            directory.listing_start += len(directory.listing)
            directory.listing, directory.positions = None, {}

    def _scan_upper(self, directory: Directory) -> dict[bytes, Kind]:
        fd = self.backing.directory_fd(directory, UPPER)
        names = scan(fd)
        for name, kind in names.items():
            if kind is Kind.WHITEOUT:
                try:
                    os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    # A `.wh.` file: one form of whiteout is enough for what changes them.
                    make_whiteout(fd, name)
                    try:
                        os.unlink(WHITEOUT_PREFIX + name, dir_fd=fd)
                    except IsADirectoryError:
                        pass  # hides nothing more than the device does
        return names

    def find(self, parent: Directory, name: bytes) -> tuple[Inode, os.stat_result]:
        """As `seek`. Raises OSError(ENOENT)."""
        found = self.seek(parent, name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return found

    def seek(self, parent: Directory, name: bytes) -> tuple[Inode, os.stat_result] | None:
        """The inode that a name reaches and its backing file's status, or None.

        The inode may be unused: whoever does not hand it to the kernel calls
        `inodes.drop_unused`.
        """
        child = parent.children.get(name)
        if child is not None:
            return child, self.backing.status(child)
        if parent.removed or is_reserved(name):
            return None
        upper, lower = self.names(parent)
        kind = upper.get(name)
        if kind is None:
            layers = lower.get(name)
            if layers is None:
                return None
        elif kind is Kind.OTHER:
            layers = _UPPER_ONLY
        elif kind is Kind.DIRECTORY:
            layers = (UPPER, *lower.get(name, ()))
        else:
            return None
        layer = layers[0]
        status = os.stat(
            name, dir_fd=self.backing.directory_fd(parent, layer), follow_symlinks=False
        )
        if stat.S_ISDIR(status.st_mode):
            return self._find_directory(parent, name, layers, status), status
        return self._find_file(parent, name, layer, status)

    def _find_directory(
        self, parent: Directory, name: bytes, layers: tuple[int, ...], status: os.stat_result
    ) -> Directory:
        in_upper = layers[0] == UPPER
        directory = Directory(0, parent, name, in_upper=in_upper, lowers=())
        directory.lowers = self._lowers_of(directory, layers[1:] if in_upper else layers)
        if in_upper and directory.lowers:
            # The lower directory's number, which it had before it was copied up.
            lower = os.stat(
                descriptor_path(self.backing.directory_fd(directory, directory.lowers[0]))
            )
            directory.number = self.inodes.number_for(lower)
        else:
            number = self._copied_number(directory, b".", status) if in_upper else None
            directory.number = self.inodes.number_for(status, number)
        if in_upper:
            directory.charged = status.st_blocks
        self.inodes.add(directory)
        self.inodes.attach(directory, parent, name)
        return directory

    def _lowers_of(self, directory: Directory, candidates: tuple[int, ...]) -> tuple[int, ...]:
        """Those of the candidate layers that are merged: down to the first that is opaque."""
        if not candidates or (
            directory.in_upper and is_opaque(self.backing.directory_fd(directory, UPPER))
        ):
            return ()
        if not directory.in_upper and len(candidates) == 1:
            return candidates
        lowers: list[int] = []
        for layer in candidates:
            try:
                fd = self.backing.directory_fd(directory, layer)
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
            file = self._linked_copy(layer, status)
            if file is None:
                number = self._copied_number(parent, name, status) if layer == UPPER else None
                file = self.new_file(layer, status, number)
        elif file.descriptor >= 0:
            os.close(file.descriptor)
            file.descriptor = -1
        self.inodes.attach(file, parent, name)
        return file, (status if file.layer == layer else self.backing.status(file))

    def _copied_number(
        self, directory: Directory, name: bytes, status: os.stat_result
    ) -> int | None:
        """The number that an upper file or directory had before it was copied up."""
        if self._layers == 0 or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            return None
        path = b"/proc/self/fd/%d/%b" % (self.backing.directory_fd(directory, UPPER), name)
        try:
            return int(os.getxattr(path, NUMBER_ATTRIBUTE, follow_symlinks=False))
        except (OSError, ValueError):
            return None

    def new_file(self, layer: int, status: os.stat_result, number: int | None = None) -> File:
        """An inode, without a name yet, for a backing file that has none.

        `number`: the one to show it under if it can be had.
        """
        file = File(self.inodes.number_for(status, number), layer, stat.S_IFMT(status.st_mode))
        if layer == UPPER:
            file.charged = status.st_blocks
        file.mtime = status.st_mtime_ns
        file.set_id = bool(status.st_mode & (stat.S_ISUID | stat.S_ISGID))
        self.inodes.add(file)
        if status.st_nlink > 1:
            self.inodes.add_key(file, (layer, status.st_dev, status.st_ino))
            if self._links is not None and layer == UPPER:
                file.link_key = self._links.key_of(status.st_ino)
            elif self._links is not None:
                file.lost_names = self._links.lost(link_key(layer, status))
        return file

    def new_directory(self, status: os.stat_result) -> Directory:
        """An inode, without a name yet, for an upper directory that was just made and hides what is
        below.
        """
        directory = Directory(self.inodes.number_for(status), None, b"", in_upper=True, lowers=())
        directory.charged = status.st_blocks
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
            file = File(self.inodes.number_for(status), UPPER, stat.S_IFMT(status.st_mode))
            file.link_key = key
            file.charged = copy.st_blocks
            file.set_id = bool(copy.st_mode & (stat.S_ISUID | stat.S_ISGID))
            self.inodes.add(file)
            self.inodes.add_key(file, (UPPER, copy.st_dev, copy.st_ino))
        self.inodes.add_key(file, (layer, status.st_dev, status.st_ino))
        return file

    # Attributes

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
            if isinstance(inode, Directory) and inode.attributes is not None:
                return inode.attributes
            status = self.backing.status(inode)
        if self.owners is None:
            mode, uid, gid = status.st_mode, status.st_uid, status.st_gid
        else:
            path, follow = self.backing.path(inode)
            mode, uid, gid = self.owners.shown(status, path, follow=follow)
        shown = Attributes(inode.number, mode, self.links(inode, status), uid, gid, status)
        if isinstance(inode, Directory) and not inode.in_upper:
            inode.attributes = shown
        return shown

    # The disk limit

    def check_room(self, blocks: int = 0, inodes: int = 0) -> None:
        """Raise OSError(ENOSPC) if a name cannot be made, of something that takes so much."""
        if self.quota is not None:
            self.quota.check(blocks + 1, inodes)

    def take(self, sectors: int, inodes: int) -> None:
        """Count what is about to be used, or, negative, what is used no more. Raises
        LimitReached.
        """
        if self.quota is not None:
            if sectors > 0 or inodes > 0:
                self.quota.check(sectors * 512 // self.quota.block + 1, inodes)
            self.quota.give(-sectors, -inodes)

    def appeared(self, inode: Inode) -> None:
        """Count a new upper inode, of which `charged` is set."""
        if self.quota is not None:
            self.quota.give(-inode.charged, -1)

    def changed(self, inode: Inode, status: os.stat_result | None = None) -> None:
        """Count what an upper inode uses now."""
        if self.quota is not None:
            self.quota.settle(inode, status or self.backing.status(inode))

    def _gone(self, inode: Inode) -> None:
        """Settle what an inode uses that is about to be freed."""
        if self.quota is None or not inode.in_upper:
            return
        if inode.descriptor >= 0 and os.fstat(inode.descriptor).st_nlink == 0:
            self.quota.give(inode.charged, 1)
        elif isinstance(inode, File) and inode.unsettled:
            # Blocks that say where the data is are allocated with it, which may be now.
            fd = self.backing.data(inode, write=False)
            start_writing(fd)
            self.quota.settle(inode, os.fstat(fd))

    # Upkeep

    def trim(self) -> None:
        """Keep memory and descriptors bounded. To be called between operations."""
        self.backing.trim()
        while self._names > _NAMES and len(self._read) > 1:
            directory, count = self._read.popitem(last=False)
            directory.upper_names = directory.lower_names = None
            self._drop_listing(directory)
            self._names -= count
