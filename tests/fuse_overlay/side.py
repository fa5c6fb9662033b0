"""One of the two mounts that the differential test compares, and what is open there.

Used by `test_differential`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.fuse_overlay import operations
from tests.fuse_overlay.generated import LONG_AGO
from tests.fuse_overlay.operations import Node, Seen
from tests.fuse_overlay.support import kernel_mounted, mounted


class Side:
    """One of the two mounts, and what is open there."""

    def __init__(self, lowers: list[Path], directory: Path, *, ours: bool) -> None:
        self.lowers = lowers
        self.ours = ours
        self.upper, self.work, self.at = (directory / name for name in ("upper", "work", "at"))
        for path in (self.upper, self.work, self.at):
            path.mkdir(parents=True)
        os.utime(self.upper, ns=(LONG_AGO, LONG_AGO))
        self.handles: dict[int, int] = {}
        self._root = -1
        self._shown = self.upper
        self._mount = ExitStack()

    def mount(self, of: Side | None = None) -> None:
        """Mount our own upper directory or that of the other side."""
        of = of or self
        self._shown = of.upper
        mount = mounted if self.ours else kernel_mounted
        self._mount.enter_context(mount(self.lowers, of.upper, of.work, self.at))
        self._root = os.open(self.at, os.O_RDONLY | os.O_CLOEXEC)

    def unmount(self) -> None:
        for fd in self.handles.values():
            os.close(fd)
        self.handles.clear()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1
        os.chdir("/")
        self._mount.close()

    def do(self, user: int, function: Callable[..., object], *arguments: object) -> object:
        """Do something in the mount. Returns the result, or the error's name."""
        os.fchdir(self._root)
        try:
            return operations.as_user(user, function, *arguments)
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    def do_open(self, user: int, slot: int, function: Callable[..., int], *args: object) -> object:
        """Let a function open something in a slot."""
        self.close(slot)
        opened = self.do(user, function, *args)
        if not isinstance(opened, int):
            return opened
        self.handles[slot] = opened
        return "open"

    def do_with(self, slot: int, function: Callable[..., object], *arguments: object) -> object:
        """Do something with what is open in a slot."""
        fd = self.handles.get(slot)
        return "closed" if fd is None else self.do(0, function, fd, *arguments)

    def close(self, slot: int) -> None:
        fd = self.handles.pop(slot, None)
        if fd is not None:
            os.close(fd)

    def look(self, path: str, *, follow: bool = False) -> Seen | str:
        found = self.do(0, operations.follow if follow else operations.look, path)
        assert isinstance(found, Seen | str)
        return found

    def is_upper(self, path: str) -> bool:
        """Whether what a path leads to lies in the upper directory."""
        found = os.path.relpath(os.path.realpath(self.at / path), self.at)
        return os.path.lexists(self._shown / found)

    def tree(self) -> dict[str, Node]:
        os.fchdir(self._root)
        return operations.tree(None if self.ours else self._shown)

    def numbers(self) -> dict[str, int]:
        os.fchdir(self._root)
        return operations.numbers()

    def has_directory_open(self) -> bool:
        return any(stat.S_ISDIR(os.fstat(fd).st_mode) for fd in self.handles.values())
