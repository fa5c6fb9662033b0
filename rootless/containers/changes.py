"""What a container has written: how much it is.

Reads upper directories and volumes as root of the user's namespace, since their
files may belong to subordinate ids. Called by `rl ps -s` and the prune commands.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

from rootless.containers.store import Container
from rootless.kernel import userns


def sizes(containers: Iterable[Container]) -> dict[str, int]:
    """Return for each ID the bytes of all files that the container has written or changed."""
    return tree_sizes({container.id: str(container.path / "upper") for container in containers})


def tree_sizes(trees: dict[str, str]) -> dict[str, int]:
    """Return the bytes of all files in each of these directories."""
    return userns.call(_sizes, trees) if trees else {}


def _sizes(trees: dict[str, str]) -> dict[str, int]:
    return {name: _size(tree) for name, tree in trees.items()}


def _size(tree: str) -> int:
    """Return what is there: a container that runs, or goes, changes the tree meanwhile."""
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for size in _file_sizes(tree):
            total += size
    return total


def _file_sizes(tree: str) -> Iterator[int]:
    counted: set[tuple[int, int]] = set()
    for directory, _, names, held in os.fwalk(tree, onerror=lambda _: None):
        del directory
        for name in names:
            try:
                found = os.stat(name, dir_fd=held, follow_symlinks=False)
            except OSError:
                continue
            identity = (found.st_dev, found.st_ino)
            if found.st_nlink > 1 and identity in counted:
                continue
            counted.add(identity)
            # Holes are not written.
            yield min(found.st_size, found.st_blocks * 512)
