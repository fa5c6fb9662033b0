"""Manifests, indexes and image configurations: hostile JSON becomes checked values.

Owns their parsing, the limits on them and the choice of a platform; never does
I/O. Called by the pull for a registry's answers and by the store to read back.

The rules are those of the OCI image specification 1.1 (manifest.md,
image-index.md, config.md) and of Docker's image manifest version 2, schema 2.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sized
from typing import Any, Final, NamedTuple, NoReturn

from rootless.errors import RlError

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

# The distribution specification asks registries to take manifests of 4 MiB;
# containers/image holds configurations to the same size.
MAX_DOCUMENT: Final = 4 << 20
MAX_LAYERS: Final = 500
MAX_INDEX_ENTRIES: Final = 1000
# Each port of TCP and of UDP.
MAX_EXPOSED_PORTS: Final = 2 * 65535

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# NUL, and the halves of surrogate pairs that JSON can write one without the other.
_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_PLATFORM_WORD = re.compile(r"[a-z0-9_.-]*")
_CREATED = re.compile(r"(?a)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def check_digest(text: str) -> str:
    """Return ``text`` if it is a digest we can verify, ``sha256:`` and 64 hex digits."""
    if not _DIGEST.fullmatch(text):
        raise RlError(f"{text[:100]!r} is not a digest we can verify (sha256:… wanted)")
    return text


class Platform(NamedTuple):
    """An operating system and a processor, in containerd's normal form (amd64, arm64, arm/v7…)."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``os/arch[/variant]``, ``arch`` or ``os``, as the --platform option takes it."""
        words = text.lower().split("/")
        if not 1 <= len(words) <= 3 or not all(w and _PLATFORM_WORD.fullmatch(w) for w in words):
            raise RlError(f"invalid platform {text!r} (os/arch[/variant] wanted: linux/arm64)")
        if len(words) == 1:
            host = cls.host()
            if words[0] == host.os:
                return host
            words.insert(0, host.os)
        return cls.normalized(*words)

    @classmethod
    def host(cls) -> Platform:
        """Return the platform of this machine."""
        machine = os.uname().machine.lower()
        # A 32-bit userland on an ARMv8 kernel says armv8l.
        arm = re.fullmatch(r"armv(\d)\w*", machine)
        if arm:
            return cls.normalized("linux", "arm", arm[1])
        if re.fullmatch(r"i\d86", machine):
            machine = "386"
        elif machine == "loongarch64":
            machine = "loong64"
        elif machine.startswith("mips") and sys.byteorder == "little":
            machine += "le"
        return cls.normalized("linux", machine)

    @classmethod
    def normalized(cls, system: str, architecture: str, variant: str = "") -> Platform:
        """Give every processor its one name (containerd's platforms/database.go)."""
        aliases = {
            "i386": ("386", ""),
            "x86_64": ("amd64", variant),
            "x86-64": ("amd64", variant),
            "aarch64": ("arm64", variant),
            "armhf": ("arm", "v7"),
            "armel": ("arm", "v6"),
        }
        architecture, variant = aliases.get(architecture, (architecture, variant))
        if variant.isascii() and variant.isdigit():
            variant = "v" + variant
        defaults = {"amd64": "v1", "arm64": "v8"}
        if defaults.get(architecture) == variant:
            variant = ""
        elif architecture == "arm" and not variant:
            variant = "v7"
        return cls(system, architecture, variant)

    def runs(self) -> Iterator[Platform]:
        """Yield the platforms whose programs run on this one, the best first.

        A newer variant runs the older ones, amd64 runs 386 and arm64 runs arm
        (containerd's platforms.Only).
        """
        yield self
        number = int(self.variant[1:]) if re.fullmatch("v[0-9]{1,2}", self.variant) else 0
        if self.architecture == "amd64":
            for older in range(number - 1, 0, -1):
                yield Platform.normalized(self.os, "amd64", f"v{older}")
            yield Platform(self.os, "386")
        elif self.architecture == "arm":
            for older in range(number - 1, 4, -1):
                yield Platform(self.os, "arm", f"v{older}")
        elif self.architecture == "arm64":
            for older in range(number - 1, 7, -1):
                yield Platform.normalized(self.os, "arm64", f"v{older}")
            for older in range(8, 4, -1):
                yield Platform(self.os, "arm", f"v{older}")

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


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
    top = _Reader(_load(data, "manifest"), "manifest")
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


def _manifest(top: _Reader, media_type: str) -> Manifest:
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
    top = _Reader(_load(data, "image configuration"), "image configuration")
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


def _descriptor(entry: _Reader) -> Descriptor:
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


def _platform(entry: _Reader) -> Platform:
    words = [entry.text(key).lower() for key in ("os", "architecture", "variant")]
    if not all(_PLATFORM_WORD.fullmatch(word) for word in words):
        entry.fail("a platform has odd characters")
    return Platform.normalized(*words)


def _load(data: bytes, what: str) -> Any:
    if len(data) > MAX_DOCUMENT:
        raise RlError(f"invalid {what}: {len(data)} bytes, more than {MAX_DOCUMENT}")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RlError(f"invalid {what}: not JSON ({reason})") from None


class _Reader:
    """A JSON object whose fields are checked as they are read; null is absent, as Go writes it."""

    def __init__(self, value: Any, what: str) -> None:
        self.what = what
        if not isinstance(value, dict):
            self.fail("an object was wanted")
        self.value: dict[str, Any] = value

    def fail(self, reason: str) -> NoReturn:
        raise RlError(f"invalid {self.what}: {reason}")

    def has(self, key: str) -> bool:
        return self.value.get(key) is not None

    def text(self, key: str, default: str = "") -> str:
        value = self.value.get(key)
        return default if value is None else self._checked(key, value)

    def integer(self, key: str, default: int) -> int:
        value = self.value.get(key)
        if value is None:
            return default
        if type(value) is not int:
            self.fail(f"{key} is not an integer")
        return value

    def texts(self, key: str, limit: int | None = None) -> tuple[str, ...]:
        return tuple(self._checked(key, item) for item in self._list(key, limit))

    def mapping(self, key: str, limit: int | None = None) -> dict[str, Any]:
        value = self.value.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fail(f"{key} is not an object")
        self._check_count(key, value, limit)
        return {self._checked(key, name): item for name, item in value.items()}

    def labels(self, key: str) -> dict[str, str]:
        return {name: self._checked(key, item) for name, item in self.mapping(key).items()}

    def reader(self, key: str) -> _Reader:
        return _Reader(self.mapping(key), self.what)

    def readers(self, key: str, limit: int | None = None) -> list[_Reader]:
        return [_Reader(item, self.what) for item in self._list(key, limit)]

    def _list(self, key: str, limit: int | None) -> list[Any]:
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.fail(f"{key} is not a list")
        self._check_count(key, value, limit)
        return value

    def _check_count(self, key: str, value: Sized, limit: int | None) -> None:
        if limit is not None and len(value) > limit:
            self.fail(f"{key} has {len(value)} entries, more than {limit}")

    def _checked(self, key: str, value: Any) -> str:
        """Return ``value`` if it is text that can be an argument, a variable or a name."""
        if not isinstance(value, str):
            self.fail(f"{key} is not text")
        if _UNUSABLE.search(value):
            self.fail(f"{key} has a character that no program takes")
        return value
