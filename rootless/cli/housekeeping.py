"""Clearing up what nobody needs any more, after commands that have time for it.

Owns the order in which the stores are tidied; each knows its own garbage.
"""

from __future__ import annotations

from pathlib import Path

from rootless.cli.report import complain
from rootless.containers.remove import remove_leftovers
from rootless.containers.store import ContainerStore
from rootless.errors import RlError
from rootless.images.store import ImageStore
from rootless.kernel import userns


def tidy(root: Path) -> None:
    """Remove what killed processes left behind, and layers that neither image nor container uses.

    Does nothing while another process adds to the store: a later command will.
    A failure is said and no more: the command has done what it was asked for.
    """
    try:
        remove_leftovers(root)
        userns.call(ImageStore(root).sweep, ContainerStore(root).used_layers)
    except RlError as error:
        complain(f"cannot clear up {root}: {error}")
