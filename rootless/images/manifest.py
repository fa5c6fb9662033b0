"""Manifests, indexes and image configurations: hostile JSON becomes checked values.

Owns their parsing, the limits on them and the choice of a platform; never does
I/O. Called by the pull for a registry's answers and by the store to read back.

The rules are those of the OCI image specification 1.1 (manifest.md,
image-index.md, config.md) and of Docker's image manifest version 2, schema 2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from rootless.errors import RlError
from rootless.images.document import MAX_DOCUMENT, Reader, load
from rootless.images.platform import WORD, Platform

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"

INDEX_TYPES: Final = (OCI_INDEX, DOCKER_INDEX)
MANIFEST_TYPES: Final = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIG_TYPES: Final = (OCI_CONFIG, DOCKER_CONFIG)

# How each layer type is compressed. "foreign" and "nondistributable" layers
# differ only in who may push them.
LAYER_TYPES: Final = {
    "application/vnd.oci.image.layer.v1.tar": "tar",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
}

_OCI_NAMES: Final = {
    DOCKER_MANIFEST: OCI_MANIFEST,
    DOCKER_CONFIG: OCI_CONFIG,
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": (
        "application/vnd.oci.image.layer.v1.tar+gzip"
    ),
    "application/vnd.docker.image.rootfs.diff.tar.zstd": (
        "application/vnd.oci.image.layer.v1.tar+zstd"
    ),
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    ),
}

MAX_LAYERS: Final = 500
MAX_INDEX_ENTRIES: Final = 1000
# Each port of TCP and of UDP.
MAX_EXPOSED_PORTS: Final = 2 * 65535

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CREATED = re.compile(r"(?a)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def check_digest(text: str) -> str:
    """Return ``text`` if it is a digest we can verify, ``sha256:`` and 64 hex digits."""
    if not _DIGEST.fullmatch(text):
        raise RlError(f"{text[:100]!r} is not a digest we can verify (sha256:… wanted)")
    return text


class Descriptor(NamedTuple):
    """A reference to content: what it is, its digest and its size in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = {}
    platform: Platform | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form that an index has; the platform is left out."""
        value = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return value | ({"annotations": dict(self.annotations)} if self.annotations else {})


class Manifest(NamedTuple):
    """An image for one platform: its configuration and its layers, bottom to top."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


class Index(NamedTuple):
    """Images, usually one for each platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]


class ImageConfig(NamedTuple):
    """How a container of the image is run, and the diff IDs of its layers, bottom to top."""

    platform: Platform
    diff_ids: tuple[str, ...]
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    # Kept as it came: its fields are checked by whoever runs the check.
    healthcheck: Mapping[str, Any] | None = None
    # RFC 3339, or empty.
    created: str = ""
    history: tuple[Mapping[str, Any], ...] = ()


def parse_document(data: bytes) -> Manifest | Index:
    """Read a manifest or an index; RlError if it is neither.

    The document alone decides what it is, never the HTTP header that came with
    it: so a digest means one thing only (CVE-2021-41190).
    """
    top = Reader(load(data, "manifest"), "manifest")
    media_type = top.text("mediaType")
    if top.has("manifests") and (top.has("layers") or top.has("config")):
        top.fail("it is both an image and an index")
    if top.integer("schemaVersion", 0) == 1:
        top.fail("Docker's schema 1 is no longer supported (push the image again)")
    if top.has("manifests"):
        if media_type and media_type not in INDEX_TYPES:
            top.fail(f"an index cannot be of type {media_type!r}")
        entries = top.readers("manifests", MAX_INDEX_ENTRIES)
        return Index(media_type or OCI_INDEX, tuple(_descriptor(entry) for entry in entries))
    if media_type and media_type not in MANIFEST_TYPES:
        top.fail(f"type {media_type!r} is not known")
    return _manifest(top, media_type or OCI_MANIFEST)


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest; RlError if it is anything else."""
    document = parse_document(data)
    if isinstance(document, Index):
        raise RlError("invalid manifest: it is an index where one image was wanted")
    return document


def parse_index(data: bytes) -> Index:
    """Read an index; RlError if it is anything else."""
    document = parse_document(data)
    if isinstance(document, Manifest):
        raise RlError("invalid index: it is one image where an index was wanted")
    return document


def _manifest(top: Reader, media_type: str) -> Manifest:
    config = _descriptor(top.reader("config"))
    if config.media_type not in CONFIG_TYPES:
        top.fail(f"this is no container image (its configuration is {config.media_type!r})")
    layers = tuple(_descriptor(entry) for entry in top.readers("layers", MAX_LAYERS))
    for layer in layers:
        if layer.media_type not in LAYER_TYPES:
            top.fail(f"layer type {layer.media_type!r} is not supported")
    if config.size > MAX_DOCUMENT:
        top.fail(f"its configuration has {config.size} bytes, more than {MAX_DOCUMENT}")
    return Manifest(media_type, config, layers)


def parse_config(data: bytes) -> ImageConfig:
    """Read an image configuration; RlError if a field is not what the specification says."""
    top = Reader(load(data, "image configuration"), "image configuration")
    run = top.reader("config")
    rootfs = top.reader("rootfs")
    if rootfs.text("type", "layers") != "layers":
        top.fail("rootfs.type is not layers")
    diff_ids = rootfs.texts("diff_ids", MAX_LAYERS)
    for diff_id in diff_ids:
        check_digest(diff_id)
    created = top.text("created")
    return ImageConfig(
        platform=_platform(top),
        diff_ids=diff_ids,
        env=run.texts("Env"),
        entrypoint=run.texts("Entrypoint"),
        cmd=run.texts("Cmd"),
        working_dir=run.text("WorkingDir"),
        user=run.text("User"),
        stop_signal=run.text("StopSignal"),
        volumes=tuple(run.mapping("Volumes")),
        exposed_ports=tuple(run.mapping("ExposedPorts", MAX_EXPOSED_PORTS)),
        labels=run.labels("Labels"),
        healthcheck=run.mapping("Healthcheck") if run.has("Healthcheck") else None,
        created=created if _CREATED.fullmatch(created) else "",
        history=tuple(entry.value for entry in top.readers("history")),
    )


def check_layers(manifest: Manifest, config: ImageConfig) -> tuple[tuple[str, Descriptor], ...]:
    """Pair each layer with its diff ID, bottom to top; RlError if they are not as many."""
    if len(config.diff_ids) != len(manifest.layers):
        raise RlError(
            f"invalid image: the manifest has {len(manifest.layers)} layers, "
            f"the configuration {len(config.diff_ids)} diff IDs"
        )
    return tuple(zip(config.diff_ids, manifest.layers, strict=True))


def to_oci(manifest: Manifest) -> bytes:
    """Return the OCI form of a manifest: the same configuration and layers by OCI's type names.

    An OCI image layout holds no other: its readers pass Docker's manifests over.
    """
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _oci_descriptor(manifest.config).to_json(),
        "layers": [_oci_descriptor(layer).to_json() for layer in manifest.layers],
    }
    return json.dumps(value, indent=1).encode()


def _oci_descriptor(descriptor: Descriptor) -> Descriptor:
    return descriptor._replace(
        media_type=_OCI_NAMES.get(descriptor.media_type, descriptor.media_type)
    )


def choose(index: Index, platform: Platform) -> Descriptor:
    """Return the manifest of ``index`` that runs best on ``platform``.

    As containerd: the closest platform wins and among equals the first; an
    entry that names no platform is taken only when no other fits.
    """
    kinds = MANIFEST_TYPES + INDEX_TYPES
    entries = [entry for entry in index.manifests if entry.media_type in kinds]
    for candidate in (*platform.runs(), None):
        for entry in entries:
            if entry.platform == candidate:
                return entry
    offered = dict.fromkeys(str(entry.platform) for entry in entries if entry.platform)
    offered.pop("unknown/unknown", None)  # BuildKit's attestations
    raise RlError(f"no image for {platform} (there is: {', '.join(offered) or 'none'})")


def _descriptor(entry: Reader) -> Descriptor:
    digest = entry.text("digest")
    if not _DIGEST.fullmatch(digest):
        entry.fail(f"{digest[:100]!r} is not a digest we can verify (sha256:… wanted)")
    size = entry.integer("size", -1)
    if not 0 <= size < 1 << 63:
        entry.fail("a size is missing or out of range")
    return Descriptor(
        entry.text("mediaType"),
        digest,
        size,
        entry.labels("annotations"),
        _platform(entry.reader("platform")) if entry.has("platform") else None,
    )


def _platform(entry: Reader) -> Platform:
    words = [entry.text(key).lower() for key in ("os", "architecture", "variant")]
    if not all(WORD.fullmatch(word) for word in words):
        entry.fail("a platform has odd characters")
    return Platform.normalized(*words)
