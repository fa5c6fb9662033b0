"""What the layers mean together: the rules of union, whiteout and opacity, as plain functions.

Never touches a file. Called by `layers` (what one directory says) and `tree` (what all of them say
together). The rules are those of the kernel's Documentation/filesystems/overlayfs.rst, with the OCI
image specification's `.wh.` names beside them.
"""

from collections.abc import Mapping, Sequence
from enum import Enum

UPPER = 0
"""The index of the upper layer; the lower ones are 1, 2, …, topmost first."""

WHITEOUT_PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
OPAQUE_ATTRIBUTE = "user.overlay.opaque"
OPAQUE_ATTRIBUTES = (OPAQUE_ATTRIBUTE, "trusted.overlay.opaque", "user.fuseoverlayfs.opaque")

NUMBER_ATTRIBUTE = "user.overlay.ino"
"""Ours: the inode number of what was copied up, in decimal. The kernel hides it like its own."""

_LAYER_ATTRIBUTES = (b"user.overlay.", b"trusted.overlay.", b"user.fuseoverlayfs.")
_PRIVATE_ATTRIBUTES = (
    *_LAYER_ATTRIBUTES,
    b"user.containers.override_stat",
    b"security.fuseoverlayfs.override_stat",
)


class Kind(Enum):
    """What a name in one directory of one layer stands for."""

    DIRECTORY = 1
    OTHER = 2
    WHITEOUT = 3


def merge(listings: Sequence[tuple[int, Mapping[bytes, Kind]]]) -> dict[bytes, tuple[int, ...]]:
    """Merge one directory's listings, (layer index, names) topmost first.

    Returns for each visible name the layers that hold it, topmost first: one for anything but a
    directory, and for a directory every layer down to the first that has something else or a
    whiteout there. Whether such a directory is opaque is not known here: it is written on the
    directory itself.
    """
    if len(listings) == 1:
        layer, names = listings[0]
        alone = (layer,)
        return {name: alone for name, kind in names.items() if kind is not Kind.WHITEOUT}
    merged: dict[bytes, tuple[int, ...]] = {}
    closed: set[bytes] = set()
    shared: dict[tuple[int, ...], tuple[int, ...]] = {}
    for layer, names in listings:
        for name, kind in names.items():
            if name in closed:
                continue
            if kind is not Kind.DIRECTORY:
                closed.add(name)
            above = merged.get(name)
            if above is None:
                if kind is not Kind.WHITEOUT:
                    merged[name] = shared.setdefault((layer,), (layer,))
            elif kind is Kind.DIRECTORY:
                layers = (*above, layer)
                merged[name] = shared.setdefault(layers, layers)
    return merged


def is_reserved(name: bytes) -> bool:
    """Whether programs may not make this name, because it would be read as a whiteout."""
    return name.startswith(WHITEOUT_PREFIX)


def is_private_attribute(name: bytes) -> bool:
    """Whether an extended attribute belongs to overlays: programs neither see nor set it."""
    return name.startswith(_PRIVATE_ATTRIBUTES)


def is_layer_attribute(name: bytes) -> bool:
    """Whether an extended attribute speaks of its layer only, and so is not copied up."""
    return name.startswith(_LAYER_ATTRIBUTES)
