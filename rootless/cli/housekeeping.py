"""Clearing up what nobody needs any more, after commands that have time for it.

Owns the order in which the stores are tidied; each knows its own garbage.
"""

from __future__ import annotations

from collections.abc import Collection
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


def collect(root: Path, fresh: Collection[str]) -> None:
    """Remove images, those first that were not used for longest, until the rest is allowed.

    Done after a pull, where the configuration has a limit. Never those that a container has, nor
    those with an ID of ``fresh``. What was removed is said.
    """
    from rootless import config
    from rootless.sizes import parse_size

    given = config.section("images")
    if unknown := given.keys() - {"limit"}:
        raise RlError(f"the configuration's [images] has no {min(unknown)}: limit")
    if "limit" not in given:
        return
    limit = parse_size(str(given["limit"]))
    from rootless.cli import pruning
    from rootless.cli.units import size
    from rootless.images import usage

    store = ImageStore(root)
    kept = {container.extra.image_id for container in ContainerStore(root).list()} | set(fresh)
    doomed = usage.superfluous(store, store.images(), kept, limit)
    if doomed:
        for line in pruning.remove_images(root, doomed).lines:
            complain(f"{line} (not used for longest; images may take {size(limit)})")
    taken = sum(usage.together(store, store.images()).values())
    if taken > limit:
        complain(
            f"warning: images take {size(taken)}, more than {size(limit)}: containers have them"
        )
