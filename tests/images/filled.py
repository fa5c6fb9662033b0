"""A store that is filled by hand.

Used by the tests of the store.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from pathlib import Path

from rootless.images import manifest
from rootless.images.manifest import Descriptor
from rootless.images.reference import Reference
from rootless.images.store import Image, ImageStore
from rootless.kernel import userns
from tests.images.archives import TAR, archive, directory, entry, feed, sha256

LAYER = archive(directory("bin", uid=3), entry("bin/sh", b"#!", mode=0o4755, uid=7))
OTHER = archive(entry("other"))


def put_blob(store: ImageStore, data: bytes, media_type: str) -> Descriptor:
    return Descriptor(media_type, store.put_blob(data), len(data))


def put_layer(store: ImageStore, data: bytes) -> None:
    """Unpack a layer, as root of a user namespace."""
    with store.shared(), store.unpack_layer(sha256(data), TAR + "+gzip") as layer:
        feed(layer.fd, gzip.compress(data, mtime=0))
        layer.commit()


def add(
    store: ImageStore,
    name: str,
    *layers: bytes,
    env: str = "A=b",
    docker: bool = False,
    extra_digest: str | None = None,
) -> Image:
    """Put an image into the store as a pull does, and name it."""
    docker_types = (manifest.DOCKER_MANIFEST, manifest.DOCKER_CONFIG)
    oci_types = (manifest.OCI_MANIFEST, manifest.OCI_CONFIG)
    manifest_type, config_type = docker_types if docker else oci_types
    layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip" if docker else TAR + "+gzip"
    with store.shared():
        blobs = [put_blob(store, gzip.compress(layer, mtime=0), layer_type) for layer in layers]
        for layer in layers:
            userns.call(put_layer, store, layer)
        config = {
            "os": "linux",
            "architecture": "amd64",
            "config": {"Env": [env]},
            "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
            "history": [{"created_by": "a test"} for _ in layers],
        }
        described = put_blob(store, json.dumps(config).encode(), config_type)
        document = {
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": described.to_json(),
            "layers": [blob.to_json() for blob in blobs],
        }
        descriptor = put_blob(store, json.dumps(document).encode(), manifest_type)
        return store.add(Reference.parse(name), descriptor, extra_digest)


def sweep(store: ImageStore, *used: str) -> None:
    userns.call(store.sweep, lambda: used)


def files(store: ImageStore) -> dict[str, set[str]]:
    parts = {"blobs": "images/blobs/sha256", "layers": "layers", "tmp": "tmp"}
    return {part: set(os.listdir(store.root / path)) for part, path in parts.items()}


def blobs_of(store: ImageStore, image: Image) -> list[Path]:
    document = manifest.parse_manifest(store.read_blob(image.digest, 1 << 20))
    digests = [image.digest, image.id, *(layer.digest for layer in document.layers)]
    return [store.blob_path(digest) for digest in digests]


def skopeo(*arguments: str | Path) -> str:
    command = ["skopeo", "--insecure-policy", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
