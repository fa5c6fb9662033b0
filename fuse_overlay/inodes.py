"""The inodes that the kernel knows, the names that reach them, and when they may be forgotten.

Knows nothing of what a backing file contains and makes no system call but close. `tree` and
what changes the upper directory keep it true, `overlay` counts the kernel's references in it.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from fuse_overlay.attributes import Attributes
from fuse_overlay.merge import UPPER, Kind

ROOT_NUMBER: Final = 1
_SPARE: Final = 1 << 62
"""Numbers from here on are given to those whose own is taken."""

_KEPT: Final = 10_000

Key = tuple[int, int, int]
"""A backing file: layer index, device, inode number."""


class Inode:
    """What files and directories have in common.

    `references` counts what the kernel holds (FUSE's nlookup). `descriptor` is one, perhaps O_PATH,
    kept for an inode that no known name reaches any more, else -1. `bare` says that it has no
    extended attributes, None that nobody has looked. `charged` is what it counts in the `quota`, in
    sectors.
    """

    __slots__ = ("bare", "charged", "descriptor", "number", "references")

    def __init__(self, number: int) -> None:
        self.number = number
        self.references = 0
        self.descriptor = -1
        self.bare: bool | None = None
        self.charged = 0

    @property
    def in_upper(self) -> bool:
        """Whether it is, or has, an upper one, which alone may be changed."""
        raise NotImplementedError


class Directory(Inode):
    """A directory.

    In each of its layers it lies at the path that its names in the overlay spell, for one that has
    a lower part is never moved without first being copied up whole.
    `upper_names` and `lower_names` are None until they are read (see `Tree.names`). `listing` is
    what readdir shows (see `Tree.listing`), None for a name that was removed; `positions` says
    where in it each name is. `attributes` are those of a directory without an upper one, which do
    not change, once somebody has asked.
    """

    __slots__ = (
        "attributes",
        "children",
        "in_upper",
        "listing",
        "listing_start",
        "lower_names",
        "lowers",
        "name",
        "parent",
        "positions",
        "removed",
        "upper_names",
    )

    in_upper: bool

    def __init__(
        self,
        number: int,
        parent: "Directory | None",
        name: bytes,
        *,
        in_upper: bool,
        lowers: tuple[int, ...],
    ) -> None:
        super().__init__(number)
        self.parent = parent
        self.name = name
        self.in_upper = in_upper
        self.lowers = lowers
        self.children: dict[bytes, Inode] = {}
        self.upper_names: dict[bytes, Kind] | None = None
        self.lower_names: dict[bytes, tuple[int, ...]] | None = None
        self.listing: list[bytes | None] | None = None
        self.listing_start = 0
        self.positions: dict[bytes, int] = {}
        self.removed = False
        self.attributes: Attributes | None = None

    def set_upper(self, name: bytes, kind: Kind | None) -> None:
        """Book that the upper directory has something else under a name, or nothing (None)."""
        assert self.upper_names is not None
        if kind is None:
            del self.upper_names[name]
        else:
            self.upper_names[name] = kind
        if self.listing is None:
            return
        if kind in (None, Kind.WHITEOUT):
            position = self.positions.pop(name, None)
            if position is not None:
                self.listing[position] = None
        elif name not in self.positions:
            self.positions[name] = len(self.listing)
            self.listing.append(name)

    @property
    def top(self) -> int:
        """The layer whose owner, mode, times and attributes count."""
        return UPPER if self.in_upper else self.lowers[0]


class File(Inode):
    """Anything but a directory.

    `type` is S_IFMT of its mode. `names` are those that are known (there may be more). `link_key`
    is set for a file with several names that was copied up (see `links`). `unsettled`: written, so
    that it may yet use more than the `quota` knows. `lost_names` counts names
    of a lower file that were removed from the overlay. `fd` is the backing file if it is open (see
    `Backing.data`), else -1. `mtime` is the modification time that the kernel knows, in
    nanoseconds (None: not known here), and `late` says that the backing file has another (see
    `Backing.keep_time`). Without `set_id` the backing file has no set-id bits.
    """

    __slots__ = (
        "fd",
        "keys",
        "late",
        "layer",
        "link_key",
        "lost_names",
        "mtime",
        "names",
        "set_id",
        "type",
        "unsettled",
        "writable",
    )

    def __init__(self, number: int, layer: int, type: int) -> None:  # noqa: A002
        super().__init__(number)
        self.layer = layer
        self.type = type
        self.names: list[tuple[Directory, bytes]] = []
        self.keys: list[Key] = []
        self.link_key: bytes | None = None
        self.lost_names = 0
        self.fd = -1
        self.writable = False
        self.unsettled = False
        self.mtime: int | None = None
        self.late = False
        self.set_id = False

    @property
    def in_upper(self) -> bool:
        return self.layer == UPPER


class InodeTable:
    """All live inodes by number, and those of files with several names by backing file."""

    def __init__(
        self,
        root: Directory,
        close_data: Callable[[File], None],
        gone: Callable[[Inode], None],
    ) -> None:
        """`gone` is called when an inode is freed, while it can still be reached."""
        self.root = root
        self._close_data = close_data
        self._gone = gone
        self._inodes: dict[int, Inode] = {root.number: root}
        self._by_key: dict[Key, File] = {}
        self._devices: dict[int, int] = {}
        self._spare: Iterator[int] = itertools.count(_SPARE)
        self._kept: dict[tuple[int, int], int] = {}

    def __getitem__(self, number: int) -> Inode:
        return self._inodes[number]

    def __len__(self) -> int:
        return len(self._inodes)

    def __iter__(self) -> Iterator[Inode]:
        return iter(self._inodes.values())

    def number_for(self, status: os.stat_result, number: int | None = None) -> int:
        """A number for a backing file without an inode: the same each time, unless it is taken.

        `number`: the one that is written on the file.
        """
        number = self._kept.get((status.st_dev, status.st_ino), number)
        if number is None:
            self.know_device(status.st_dev)
            device = self._devices[status.st_dev]
            number = _SPARE if status.st_ino >> 48 else device << 48 | status.st_ino
        free = number not in self._inodes and ROOT_NUMBER < number < _SPARE
        return number if free else next(self._spare)

    def keep_number(self, status: os.stat_result, number: int) -> None:
        """Show a backing file that its number cannot be written on under that number, also after it
        was forgotten. Of very many, only the last ones.
        """
        self._kept[status.st_dev, status.st_ino] = number
        if len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]

    def release_number(self, status: os.stat_result) -> None:
        """The backing file is gone: its inode number may come back as another file's."""
        self._kept.pop((status.st_dev, status.st_ino), None)

    def know_device(self, device: int) -> None:
        """Give a file system its part of the numbers; the order decides which."""
        self._devices.setdefault(device, len(self._devices))

    def find(self, key: Key) -> File | None:
        return self._by_key.get(key)

    def add_key(self, file: File, key: Key) -> None:
        if key not in file.keys:
            file.keys.append(key)
            self._by_key[key] = file

    def drop_keys(self, file: File) -> None:
        for key in file.keys:
            del self._by_key[key]
        file.keys.clear()

    def add(self, inode: Inode) -> None:
        self._inodes[inode.number] = inode

    def attach(self, inode: Inode, parent: Directory, name: bytes) -> None:
        """Make `name` in `parent` reach `inode`."""
        parent.children[name] = inode
        if isinstance(inode, Directory):
            inode.parent, inode.name = parent, name
        elif isinstance(inode, File):
            inode.names.append((parent, name))

    def detach(self, inode: Inode, parent: Directory, name: bytes) -> None:
        parent.children.pop(name, None)
        if isinstance(inode, File):
            inode.names.remove((parent, name))

    def forget(self, number: int, count: int) -> None:
        """The kernel gives `count` references back."""
        inode = self._inodes.get(number)
        if inode is not None:
            inode.references -= count
            self.drop_unused(inode)

    @contextmanager
    def held(self, inode: Inode) -> Iterator[None]:
        """Keep an inode for the time of an operation on it."""
        inode.references += 1
        try:
            yield
        finally:
            inode.references -= 1
            self.drop_unused(inode)

    def drop_unused(self, inode: Inode) -> None:
        """Free an inode that neither the kernel nor a child needs, and its parents likewise."""
        waiting = [inode]
        while waiting:
            inode = waiting.pop()
            if (
                inode is self.root
                or inode.references > 0
                or self._inodes.get(inode.number) is not inode
            ):
                continue
            if isinstance(inode, Directory):
                if inode.children:
                    continue
                if inode.parent is not None and not inode.removed:
                    waiting.append(inode.parent)
                    self.detach(inode, inode.parent, inode.name)
            elif isinstance(inode, File):
                self._gone(inode)
                if inode.fd >= 0:
                    self._close_data(inode)
                self.drop_keys(inode)
                for parent, name in tuple(inode.names):
                    waiting.append(parent)
                    self.detach(inode, parent, name)
            if inode.descriptor >= 0:
                if isinstance(inode, Directory):
                    self._gone(inode)
                os.close(inode.descriptor)
                inode.descriptor = -1
            del self._inodes[inode.number]
