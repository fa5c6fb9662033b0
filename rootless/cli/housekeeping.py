"""Clearing up what nobody needs any more, after commands that have time for it.

Owns the order in which the stores are tidied; each knows its own garbage.
"""

from __future__ import annotations

from pathlib import Path

from rootless.containers.remove import remove_leftovers
from rootless.containers.store import ContainerStore
from rootless.images.store import ImageStore
from rootless.kernel import userns


def tidy(root: Path) -> None:
    """Remove what killed processes left behind, and layers that neither image nor container uses.

    Does nothing while another process adds to the store: a later command will.
    """
    remove_leftovers(root)

    def used_layers() -> list[str]:
        return [
            layer for container in ContainerStore(root).list() for layer in container.extra.layers
        ]

    userns.call(ImageStore(root).sweep, used_layers)
