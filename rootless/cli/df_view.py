"""`rl system df` as Docker shows it. Pure: from what is in the stores to rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from rootless.cli import container_view, image_view
from rootless.cli.output import Row, render
from rootless.cli.units import size, size_of
from rootless.containers import disk
from rootless.containers.store import Container
from rootless.images.store import Image
from rootless.images.usage import layer_part
from rootless.volumes.store import Volume

TITLES: Final = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}
COLUMNS: Final = tuple(TITLES)

_IMAGES: Final = {
    **image_view.TITLES,
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "Containers": "CONTAINERS",
}
_IMAGE_COLUMNS: Final = (
    "Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers",
)  # fmt: skip
_CONTAINER_COLUMNS: Final = (
    "ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names",
)  # fmt: skip
_VOLUMES: Final = {"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}


class Found(NamedTuple):
    """What is in the stores, and the bytes of it.

    ``parts`` of an image, by its digest: what it is made of on disk, shared or not. ``written`` by
    container, ``held`` by volume; ``users`` are the volumes that containers have.
    """

    images: Sequence[Image]
    parts: Mapping[str, Mapping[str, int]]
    containers: Sequence[Container]
    written: Mapping[str, int]
    volumes: Sequence[Volume]
    held: Mapping[str, int]
    users: Collection[str]


def summary(found: Found) -> list[Row]:
    """Return a row for images, containers and volumes."""
    used = {container.extra.image_id for container in found.containers}
    active = [image for image in found.images if image.id in used]
    everything = _together(found, found.images)
    needed = _together(found, active)
    idle = [container for container in found.containers if not container.active]
    unused = [volume for volume in found.volumes if volume.name not in found.users]
    return [
        _row(
            "Images",
            (len(found.images), len(active)),
            sum(everything.values()),
            sum(size for part, size in everything.items() if part not in needed),
        ),
        _row(
            "Containers",
            (len(found.containers), len(found.containers) - len(idle)),
            sum(found.written.values()),
            sum(found.written[container.id] for container in idle),
        ),
        _row(
            "Local Volumes",
            (len(found.volumes), len(found.volumes) - len(unused)),
            sum(found.held.values()),
            sum(found.held[volume.name] for volume in unused),
        ),
    ]


def _together(found: Found, images: Sequence[Image]) -> dict[str, int]:
    return {part: size for image in images for part, size in found.parts[image.digest].items()}


def _row(kind: str, counts: tuple[int, int], total: int, reclaimable: int) -> Row:
    percent = f" ({100 * reclaimable // total}%)" if total else ""
    return {
        "Type": kind,
        "TotalCount": str(counts[0]),
        "Active": str(counts[1]),
        "Size": size(total),
        "Reclaimable": f"{size(reclaimable)}{percent}",
    }


def details(found: Found) -> str:
    """Return the tables of -v: each image, each container, each volume."""
    return "\n".join(
        (
            "Images space usage:\n",
            render(_image_rows(found), _IMAGES, _IMAGE_COLUMNS, None),
            "Containers space usage:\n",
            render(_container_rows(found), container_view.TITLES, _CONTAINER_COLUMNS, None),
            "Local Volumes space usage:\n",
            render(_volume_rows(found), _VOLUMES, tuple(_VOLUMES), None),
        )
    )


def _image_rows(found: Found) -> list[Row]:
    holders = Counter(part for parts in found.parts.values() for part in parts)
    containers = Counter(container.extra.image_id for container in found.containers)
    rows = []
    for image in found.images:
        # As everywhere an image's size is shown: its unpacked layers, not the archives beside them.
        parts = found.parts[image.digest]
        layers = map(layer_part, image.layers)
        unique = sum(parts[layer] for layer in layers if holders[layer] == 1)
        extra = {
            "SharedSize": size(image.size - unique),
            "UniqueSize": size(unique),
            "Containers": str(containers[image.id]),
        }
        rows += [
            row | extra for row in image_view.rows(image, patterns=[], digests=False, truncate=True)
        ]
    return rows


def _container_rows(found: Found) -> list[Row]:
    now = datetime.now(UTC)
    return [
        container_view.row(container, truncate=True, now=now)
        | {"Size": size_of(found.written[container.id], disk.of(container).size)}
        for container in found.containers
    ]


def _volume_rows(found: Found) -> list[Row]:
    links = Counter(
        name for container in found.containers for name in set(container.extra.volumes.values())
    )
    return [
        {
            "Name": volume.name,
            "Links": str(links[volume.name]),
            "Size": size_of(found.held[volume.name], volume.limit.size),
        }
        for volume in found.volumes
    ]
