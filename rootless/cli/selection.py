"""Which containers a --filter means: for ps and start.

Looks up what the conditions name; how they choose is container_view's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rootless.cli import container_view, filters
from rootless.containers.store import Container, ContainerStore
from rootless.errors import RlError


def choose(root: Path, conditions: Sequence[str]) -> tuple[list[Container], bool]:
    """Return the containers that the conditions let through, the newest first.

    And whether the conditions ask for those that do not run, too.
    """
    wanted = filters.parse(conditions, container_view.FILTERS)
    ancestors = _image_ids(root, wanted["ancestor"]) if "ancestor" in wanted else frozenset()
    store = ContainerStore(root)
    before = [store.get(name).created for name in wanted.get("before", ())]
    since = [store.get(name).created for name in wanted.get("since", ())]
    containers = [
        container
        for container in store.list()
        if container_view.selected(container, wanted, ancestors)
        and all(container.created < moment for moment in before)
        and all(container.created > moment for moment in since)
    ]
    return containers, container_view.shows_all(wanted)


def _image_ids(root: Path, names: list[str]) -> frozenset[str]:
    """Return the IDs of the images that ``names`` mean; a name that means none is no error."""
    from rootless.images.store import ImageStore

    found = set()
    for name in names:
        try:
            found.add(ImageStore(root).find(name).id)
        except RlError:
            continue
    return frozenset(found)
