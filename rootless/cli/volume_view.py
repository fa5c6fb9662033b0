"""Volumes as `rl volume ls` and `rl volume inspect` show them, in Docker's field names. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Final

from rootless import quota
from rootless.cli import filters
from rootless.cli.output import Row, label_method, label_text, label_title
from rootless.cli.template import Map
from rootless.volumes.store import Volume

TITLES: Final = {
    "Driver": "DRIVER",
    "Name": "VOLUME NAME",
    "Scope": "SCOPE",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "Label": label_title,
    "Links": "LINKS",
    "Size": "SIZE",
}
COLUMNS: Final = ("Driver", "Name")
FILTERS: Final = ("dangling", "driver", "label", "name")


def row(volume: Volume) -> Row:
    """Return one volume's row."""
    return {
        "Driver": "local",
        "Name": volume.name,
        "Scope": "local",
        "Mountpoint": str(volume.path),
        "Labels": label_text(volume.labels),
        "Label": label_method(volume.labels),
        # Docker's list does not count them either.
        "Links": "N/A",
        "Size": "N/A",
    }


def selected(volume: Volume, wanted: Mapping[str, list[str]], used: Container[str]) -> bool:
    """Tell whether the filters let a volume through; ``used`` are those that containers have."""
    dangling = [filters.truth("dangling", text) for text in wanted.get("dangling", ())]
    names = wanted.get("name")
    return (
        (not dangling or (volume.name not in used) in dangling)
        and ("driver" not in wanted or "local" in wanted["driver"])
        and (not names or bool(filters.any_pattern(names).search(volume.name)))
        and filters.labels_match(wanted.get("label", ()), volume.labels)
    )


def inspect(volume: Volume) -> dict[str, Any]:
    """Return everything about a volume, shaped as `docker volume inspect` prints it."""
    return {
        "CreatedAt": volume.created,
        "Driver": "local",
        "Labels": Map(volume.labels),
        "Mountpoint": str(volume.path),
        "Name": volume.name,
        "Options": Map(quota.describe(volume.limit)),
        "Scope": "local",
    }
