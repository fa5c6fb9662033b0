"""How much disk images take, and when they were last used.

A layer's unpacked size was recorded when it was unpacked. The time of an image's last use is that
of its manifest's file, which has no other meaning. Called by the commands that show or clear up,
and by create.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable

from rootless.images import manifest
from rootless.images.document import MAX_DOCUMENT
from rootless.images.metadata import SIZE_XATTR
from rootless.images.store import Image, ImageStore


def unpacked(store: ImageStore, image: Image) -> Image:
    """Return an image with the size of its unpacked layers, which is what Docker shows."""
    sizes = [_layer_size(store, diff_id) for diff_id in image.layers]
    known = [size for size in sizes if size is not None]
    return image._replace(size=sum(known)) if len(known) == len(sizes) else image


def sizes(store: ImageStore) -> dict[str, int]:
    """Return the unpacked size of each image by its ID."""
    return {image.id: unpacked(store, image).size for image in store.images()}


def parts(store: ImageStore, image: Image) -> dict[str, int]:
    """Return the bytes on disk of each blob and each unpacked layer of an image."""
    document = manifest.parse_manifest(store.read_blob(image.digest, MAX_DOCUMENT))
    found = {blob.digest: blob.size for blob in (document.config, *document.layers)}
    found[image.digest] = store.blob_path(image.digest).stat().st_size
    for diff_id in image.layers:
        found[layer_part(diff_id)] = _layer_size(store, diff_id) or 0
    return found


def layer_part(diff_id: str) -> str:
    """Return how ``parts`` names an unpacked layer, which is not the blob of that digest."""
    return f"layer {diff_id}"


def together(store: ImageStore, images: Iterable[Image]) -> dict[str, int]:
    """Return the parts of all these images; what they share is there once."""
    found: dict[str, int] = {}
    for image in images:
        found |= parts(store, image)
    return found


def mark_used(store: ImageStore, image: Image) -> None:
    """Note that an image is used now."""
    with contextlib.suppress(OSError):
        os.utime(store.blob_path(image.digest))


def superfluous(
    store: ImageStore, images: Collection[Image], kept: Collection[str], limit: int
) -> list[Image]:
    """Return which images have to go for the others to take no more than ``limit`` bytes.

    Those that were not used for longest go first; those with an ID of ``kept`` never.
    """

    def last_used(image: Image) -> float:
        return store.blob_path(image.digest).stat().st_mtime

    staying = list(images)
    going = []
    for image in sorted((one for one in images if one.id not in kept), key=last_used):
        if sum(together(store, staying).values()) <= limit:
            break
        staying.remove(image)
        going.append(image)
    return going


def _layer_size(store: ImageStore, diff_id: str) -> int | None:
    try:
        return int(os.getxattr(store.layer_path(diff_id), SIZE_XATTR))
    except (OSError, ValueError):
        return None
