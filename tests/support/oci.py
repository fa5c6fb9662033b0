"""OCI image layouts written by hand, so that a test decides about every byte of an image.

Knows the image specification (image-layout.md, manifest.md, config.md) and nothing of rootless.
Used by the fixtures and by tests that need an image of their own.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Compression = Literal["gzip", "zstd", "none"]

_SUFFIX = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Layer:
    """A tar archive, and how the blob that carries it is compressed."""

    tar: bytes
    compression: Compression = "gzip"


def tar_of(
    files: Mapping[str, bytes | str | tarfile.TarInfo], *, owner: int = 0, mode: int = 0o644
) -> bytes:
    """Return a tar archive of regular files, or of entries as they are given.

    A name that ends in ``/`` is a directory. Entries come in the mapping's order; a TarInfo
    stands for itself (its own name counts) and has no content.
    """
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.uid = entry.gid = owner
            if name.endswith("/"):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
                continue
            data = content.encode() if isinstance(content, str) else content
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


def write_layout(
    directory: Path,
    layers: Sequence[Layer],
    config: Mapping[str, Any] | None = None,
    *,
    tag: str = "latest",
    architecture: str = "",
) -> str:
    """Write an image of these layers as an OCI layout; return the manifest's digest.

    ``config`` is the container part of the image configuration (Env, Cmd, User …).
    """
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    kind = "application/vnd.oci.image"
    described = [
        put(_compressed(layer), f"{kind}.layer.v1.tar{_SUFFIX[layer.compression]}")
        for layer in layers
    ]
    image_config = {
        "architecture": architecture or _ARCHITECTURE.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": dict(config or {}),
        "rootfs": {
            "type": "layers",
            "diff_ids": ["sha256:" + hashlib.sha256(layer.tar).hexdigest() for layer in layers],
        },
        # Podman builds on no image whose history and layers are not of one length.
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "a test"} for _ in layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": put(json.dumps(image_config).encode(), f"{kind}.config.v1+json"),
        "layers": described,
    }
    entry = put(json.dumps(manifest).encode(), f"{kind}.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    index = {"schemaVersion": 2, "mediaType": f"{kind}.index.v1+json", "manifests": [entry]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(entry["digest"])


def _compressed(layer: Layer) -> bytes:
    if layer.compression == "gzip":
        return gzip.compress(layer.tar, compresslevel=1, mtime=0)
    if layer.compression == "zstd":
        import zstandard

        return zstandard.compress(layer.tar)
    return layer.tar
