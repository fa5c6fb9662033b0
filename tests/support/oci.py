"""OCI image layouts written by hand, so that a test decides about every byte of an image.

Knows the image specification (image-layout.md, manifest.md, config.md) and nothing of rootless.
Used by the fixtures and by tests that need an image of their own.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Compression = Literal["gzip", "zstd", "none"]

_SUFFIX = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
_KIND = "application/vnd.oci.image"
_CREATED = "2020-01-01T00:00:00Z"
_HISTORY = {"created": _CREATED, "created_by": "a test"}


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
    described = [_put_layer(directory, layer) for layer in layers]
    return _finish(
        directory,
        {
            "architecture": architecture
            or _ARCHITECTURE.get(machine := platform.machine(), machine),
            "os": "linux",
            "created": _CREATED,
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [_diff_id(layer) for layer in layers]},
            # Podman builds on no image whose history and layers are not of one length.
            "history": [_HISTORY for _ in layers],
        },
        described,
        tag,
    )


def derive_layout(base: Path, directory: Path, layer: Layer, config: Mapping[str, Any]) -> str:
    """Write the image in the layout ``base`` with one more layer and another configuration."""
    shutil.copytree(base / "blobs", directory / "blobs", copy_function=os.symlink)

    def read(descriptor: Mapping[str, Any]) -> Any:
        blob = base / "blobs" / descriptor["digest"].replace(":", "/")
        return json.loads(blob.read_bytes())

    manifest = read(json.loads((base / "index.json").read_text())["manifests"][0])
    image = read(manifest["config"])
    image["config"] |= config
    image["rootfs"]["diff_ids"].append(_diff_id(layer))
    image["history"].append(_HISTORY)
    return _finish(directory, image, [*manifest["layers"], _put_layer(directory, layer)], "latest")


def _finish(
    directory: Path, image: Mapping[str, Any], layers: Sequence[Mapping[str, Any]], tag: str
) -> str:
    """Write the configuration, the manifest and the index; return the manifest's digest."""
    config = _put(directory, json.dumps(image).encode(), f"{_KIND}.config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_KIND}.manifest.v1+json",
        "config": config,
        "layers": layers,
    }
    entry = _put(directory, json.dumps(manifest).encode(), f"{_KIND}.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    index = {"schemaVersion": 2, "mediaType": f"{_KIND}.index.v1+json", "manifests": [entry]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(entry["digest"])


def _put(directory: Path, data: bytes, media_type: str) -> dict[str, Any]:
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _put_layer(directory: Path, layer: Layer) -> dict[str, Any]:
    suffix = _SUFFIX[layer.compression]
    return _put(directory, _compressed(layer), f"{_KIND}.layer.v1.tar{suffix}")


def _diff_id(layer: Layer) -> str:
    return "sha256:" + hashlib.sha256(layer.tar).hexdigest()


def _compressed(layer: Layer) -> bytes:
    if layer.compression == "gzip":
        return gzip.compress(layer.tar, compresslevel=1, mtime=0)
    if layer.compression == "zstd":
        import zstandard

        return zstandard.compress(layer.tar)
    return layer.tar
