"""memory.low above containers: the kernel protects none by more than those above it have.

Owns memory.low of the cgroups that are ours above a container's: the sum of what is below. Called
when a reservation is set, and when a container that had one goes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from rootless.cgroups import tree
from rootless.files import read_text

_FILE = "memory.low"


def pass_up(path: str, bus: str | None = None) -> None:
    """Give all above a container's cgroup what those below have, as far as they are ours.

    ``bus`` is where systemd is asked to, for a container that is a scope.
    """
    directory = os.path.dirname(path)
    if tree.is_scope(path):
        if bus is not None:
            _pass_up_slices(directory, bus)
        return
    while tree.is_ours(directory):
        try:
            with _locked(directory):
                value = str(_sum(directory))
                if read_text(f"{directory}/{_FILE}").strip() not in ("", value):
                    tree.write(f"{directory}/{_FILE}", value)
        except FileNotFoundError:
            pass  # the last container took it along
        directory = os.path.dirname(directory)


def _pass_up_slices(directory: str, bus: str) -> None:
    from rootless.cgroups import systemd

    with systemd.connected(bus) as manager:
        while directory.endswith(".slice"):
            unit = os.path.basename(directory)
            # Of a slice that has a file its author has decided.
            if not manager.has_file(unit):
                with _locked(directory):
                    manager.limit(unit, [("MemoryLow", ("t", _sum(directory)))])
            directory = os.path.dirname(directory)


def drop(path: str) -> None:
    """Let a container that ends reserve nothing any more."""
    for directory in (tree.leaf(path), path):
        if read_text(f"{directory}/{_FILE}").strip() not in ("", "0"):
            tree.write(f"{directory}/{_FILE}", "0")


def reserves(path: str) -> bool:
    """Tell whether a container's cgroup has a reservation."""
    return read_text(f"{path}/{_FILE}").strip() not in ("", "0")


def _sum(directory: str) -> int:
    with os.scandir(directory) as entries:
        texts = [read_text(f"{one.path}/{_FILE}").strip() for one in entries if one.is_dir()]
    # "max", which a person may have written, is all that there is.
    numbers = (int(text) if text.isdecimal() else 1 << 62 for text in texts if text)
    return min(sum(numbers), 1 << 62)


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Let nobody add up in between: the last to write is to know of all."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
