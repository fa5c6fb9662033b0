"""An overlay without a mount, its operations called as the protocol calls them.

Used by the tests of single operations.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fuse_overlay.attributes import Attributes
from fuse_overlay.jobs import Pending
from fuse_overlay.overlay import Overlay
from tests.fuse_overlay.support import layers

UID, GID = os.getuid(), os.getgid()


class Made:
    """Two lower layers, an upper one, and the overlay of them, reached by path."""

    def __init__(self, directory: Path) -> None:
        self.top, self.bottom, self.upper, self.work = layers(
            directory, "top", "bottom", "upper", "work"
        )

    @contextmanager
    def overlay(self) -> Iterator[Overlay]:
        lowers = [str(self.top), str(self.bottom)]
        with closing(Patient(lowers, str(self.upper), str(self.work))) as overlay:
            yield overlay


class Patient(Overlay):
    """An overlay whose operations wait for what they are waiting for, as a server does."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return patient(found) if name in _MAY_WAIT else found


_MAY_WAIT = ("setattr", "write", "setxattr", "removexattr", "link", "rename", "fallocate")


def patient(operation: Callable[..., Any]) -> Callable[..., Any]:
    def until_done(*args: Any, **kwargs: Any) -> Any:
        while True:
            try:
                return operation(*args, **kwargs)
            except Pending as pending:
                wait([pending.job])

    return until_done


def look(overlay: Overlay, path: str) -> Attributes:
    """Look a path up, one name after the other, and keep all references."""
    attributes = overlay.getattr(1)
    for name in path.split("/"):
        found = overlay.lookup(attributes.number, os.fsencode(name))
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        attributes = found
    return attributes


def names(overlay: Overlay, number: int = 1) -> list[str]:
    return sorted(os.fsdecode(entry[0]) for entry in overlay.readdir(number, 0))[2:]


def content(overlay: Overlay, path: str) -> bytes:
    return overlay.read(look(overlay, path).number, 0, 1 << 20)


def write(overlay: Overlay, number: int, data: bytes) -> None:
    overlay.write(number, 0, data)


def create(overlay: Overlay, parent: int, name: bytes, mode: int = 0o644) -> Attributes:
    return overlay.mknod(parent, name, stat.S_IFREG | mode, 0, UID, GID)


@contextmanager
def refused(*numbers: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is the point
        yield
    assert caught.value.errno in numbers, caught.value
