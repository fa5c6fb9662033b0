"""Pulls by the command, and a registry that lies; what of an image is visible afterwards.

Used by the tests of pulls.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rootless.images.store import Image, ImageStore
from tests.images.fake import Request, digest
from tests.support import oci
from tests.support.oci import Layer, tar_of
from tests.support.registry import Registry
from tests.support.runner import Rl

OCI = "application/vnd.oci.image"


def image(rl: Rl, name: str) -> Image:
    return ImageStore(rl.root).find(name)


def tree(rl: Rl, name: str) -> dict[str, str]:
    """Return what an image's layers have as text files: the path in each layer, its content."""
    store = ImageStore(rl.root)
    return {
        str(file.relative_to(store.layer_path(layer))): file.read_text(errors="replace")
        for layer in image(rl, name).layers
        for file in store.layer_path(layer).rglob("*")
        if file.is_file() and not file.is_symlink()
    }


def unfinished(rl: Rl) -> list[str]:
    return os.listdir(rl.root / "tmp")


def fails(rl: Rl, name: str, *options: str) -> str:
    """Return the one line that a pull of ``name`` fails with, and check that it left nothing."""
    done = rl("pull", "-q", *options, name, check=False)
    assert done.returncode == 125
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("rl: cannot pull ")
    assert unfinished(rl) == []
    return line


def push(registry: Registry, area: Path, name: str, *layers: Layer, **options: Any) -> None:
    layout = area / "layouts" / re.sub(r"\W", "-", name)
    oci.write_layout(layout, layers, **options)
    registry.push(f"oci:{layout}:latest", name if "/" in name else f"library/{name}")


def files(**content: str) -> bytes:
    return tar_of(content)


class Lying:
    """A registry that serves layouts, except where a test decides otherwise."""

    def __init__(self, directory: Path) -> None:
        self.layout = directory
        self.host = ""
        self.instead: dict[str, Callable[[Request], None]] = {}

    @property
    def name(self) -> str:
        return f"{self.host}/app"

    def write(self, *layers: Layer, **options: Any) -> dict[str, Any]:
        """Put an image under the tag ``latest`` and return its manifest."""
        manifest: dict[str, Any] = self.document(oci.write_layout(self.layout, layers, **options))
        return manifest

    def document(self, wanted: str) -> Any:
        return json.loads(self.blob(wanted).read_bytes())

    def blob(self, wanted: str) -> Path:
        return self.layout / "blobs/sha256" / wanted.removeprefix("sha256:")

    def put(self, document: Any, media_type: str = f"{OCI}.manifest.v1+json") -> dict[str, Any]:
        """Store a document and return its descriptor; it is what ``latest`` means from now on."""
        data = json.dumps(document).encode()
        described = {"mediaType": media_type, "digest": digest(data), "size": len(data)}
        self.blob(digest(data)).parent.mkdir(parents=True, exist_ok=True)
        self.blob(digest(data)).write_bytes(data)
        (self.layout / "index.json").write_text(json.dumps({"manifests": [described]}))
        return described

    def __call__(self, request: Request) -> None:
        wanted = request.path.rpartition("/")[2]
        if wanted in self.instead:
            return self.instead[wanted](request)
        if wanted == "latest":
            index = json.loads((self.layout / "index.json").read_text())
            wanted = index["manifests"][0]["digest"]
        if not self.blob(wanted).exists():
            return request.answer(404)
        return request.serve(self.blob(wanted).read_bytes())


def visible(rl: Rl) -> list[str]:
    """Return the layers in the store, and the names of images."""
    names = [name for found in ImageStore(rl.root).images() for name in found.names]
    return os.listdir(rl.root / "layers") + names
