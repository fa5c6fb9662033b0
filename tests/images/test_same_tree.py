"""The layers of a Debian give the tree that umoci unpacks from them."""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from rootless.images.store import ImageStore
from rootless.kernel import syscalls, userns
from rootless.trees import remove_tree
from tests.images.archives import TAR, Tree, feed, sha256, snapshot
from tests.support.oci import Layer, write_layout


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "place"
    place.mkdir()
    yield place
    userns.call(remove_tree, place)


def by_umoci(layout: Path, place: Path) -> Tree:
    """Unpack the image with umoci, as root of a user namespace, onto one directory."""
    command = ["umoci", "raw", "unpack", "--image", f"{layout}:latest", str(place / "umoci")]
    subprocess.run(command, check=True)
    return comparable(snapshot(place / "umoci"))


def by_store(layers: list[bytes], place: Path) -> Tree:
    """Unpack the layers into a store and have the kernel lay them over each other."""
    store = ImageStore(place / "store")
    paths = []
    for layer in layers:
        with store.shared(), store.unpack_layer(sha256(layer), TAR) as writer:
            feed(writer.fd, layer)
            writer.commit()
        paths.append(store.layer_path(sha256(layer)).relative_to(place))
    (place / "merged").mkdir()
    syscalls.unshare(syscalls.CLONE_NEWNS)
    os.chdir(place)
    lower = ":".join(map(str, reversed(paths)))
    syscalls.mount("overlay", "merged", "overlay", 0, f"lowerdir={lower},userxattr")
    return comparable(snapshot(place / "merged"))


def comparable(tree: Tree) -> Tree:
    """Leave out what is the file system's: space used, the links of directories, the root.

    A container's root directory is that of its own uppermost layer.
    """
    return {
        name: replace(node, blocks=0, nlink=1 if node.kind == stat.S_IFDIR else node.nlink)
        for name, node in tree.items()
        if name != b"."
    }


def tars(layout: Path) -> list[bytes]:
    """Return the layers of an image, bottom to top, decompressed."""

    def blob(digest: str) -> bytes:
        return (layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()

    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    decompress: dict[str, Callable[[bytes], bytes]] = {
        "": bytes,
        "gzip": gzip.decompress,
        "zstd": zstandard.decompress,
    }
    return [
        decompress[layer["mediaType"].partition("+")[2]](blob(layer["digest"]))
        for layer in json.loads(blob(entry["digest"]))["layers"]
    ]


def test_the_layers_of_a_debian_give_the_tree_that_umoci_gives(
    debian_layout: Path, place: Path
) -> None:
    layers = tars(debian_layout)
    # This umoci may be too old for zstd.
    write_layout(place / "layout", [Layer(layer, "gzip") for layer in layers])
    theirs = userns.call(by_umoci, place / "layout", place)
    ours = userns.call(by_store, layers, place)
    assert ours.keys() == theirs.keys()
    different = {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}
    assert different == {}
    assert len(ours) > 3000
