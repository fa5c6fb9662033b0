"""What is removed from the store, by name, by ID and by a sweep, and what stays."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from rootless.errors import RlError
from rootless.images import manifest
from rootless.images.reference import Reference
from rootless.images.store import ImageStore
from rootless.kernel import userns
from tests.images.archives import sha256
from tests.images.filled import LAYER, OTHER, add, blobs_of, files, put_blob, skopeo, sweep
from tests.support.oci import Layer, write_layout

# Removal


def test_the_last_name_takes_the_image_with_it(store: ImageStore) -> None:
    extra = sha256(b"index")
    image = add(store, "alpine", LAYER, extra_digest=extra)
    add(store, "alpine:3", LAYER, extra_digest=extra)
    removal = store.remove("alpine:3")
    assert (removal.untagged, removal.deleted) == (("docker.io/library/alpine:3",), ())
    assert store.find("alpine").names == image.names
    removal = store.remove("alpine")
    assert (removal.untagged, removal.deleted) == (image.names, (image.id,))
    assert store.images() == []
    sweep(store)
    assert files(store) == {"blobs": set(), "layers": set(), "tmp": set()}


def test_by_id_an_image_goes_with_all_names_of_one_repository(store: ImageStore) -> None:
    image = add(store, "a:1")
    add(store, "a:2")
    removal = store.remove(image.id[7:19])
    assert removal.untagged == ("docker.io/library/a:1", "docker.io/library/a:2")
    assert removal.deleted == (image.id,)


def test_by_id_names_of_several_repositories_need_force(store: ImageStore) -> None:
    image = add(store, "a")
    add(store, "quay.io/b/c")
    with pytest.raises(RlError, match=r"docker.io/library/a, quay.io/b/c"):
        store.remove(image.id)
    assert len(store.find("a").names) == 2
    assert store.remove(image.id, force=True).deleted == (image.id,)


def test_an_image_without_a_name_goes_by_its_id(store: ImageStore) -> None:
    old = add(store, "a", env="V=1")
    new = add(store, "a", env="V=2")
    removal = store.remove(old.id)
    assert (removal.untagged, removal.deleted) == ((), (old.id,))
    assert store.images() == [new]


def test_an_image_that_a_container_uses_goes_only_by_force_and_its_layers_stay(
    store: ImageStore,
) -> None:
    image = add(store, "alpine", LAYER)
    add(store, "alpine:3", LAYER)
    in_use = {image.id: "happy_turing"}
    assert store.remove("alpine:3", in_use).deleted == ()
    with pytest.raises(RlError, match="happy_turing"):
        store.remove("alpine", in_use)
    assert store.find("alpine").names == ("docker.io/library/alpine:latest",)
    assert store.remove("alpine", in_use, force=True).deleted == (image.id,)
    sweep(store, *image.layers)
    assert files(store)["layers"] == {sha256(LAYER)[7:]}
    assert files(store)["blobs"] == set()


def test_an_image_that_runs_stays_even_by_force(store: ImageStore) -> None:
    image = add(store, "alpine", LAYER)
    used = {image.id: "happy_turing"}
    with pytest.raises(RlError, match="is being used by running container happy_turing"):
        store.remove("alpine", used, force=True, running=used)
    assert store.find("alpine") == image


def test_manifests_of_one_configuration_go_together_by_id(store: ImageStore) -> None:
    image = add(store, "a:1", LAYER)
    document = json.loads(store.read_blob(image.digest, 1 << 20)) | {"annotations": {"x": "y"}}
    with store.shared():
        second = put_blob(store, json.dumps(document).encode(), manifest.OCI_MANIFEST)
        assert store.add(Reference.parse("a:2"), second).id == image.id
    assert len(store.images()) == 2
    assert store.remove("a:1").deleted == ()
    assert store.find("a:2").id == image.id
    add(store, "a:1", LAYER)
    removal = store.remove(image.id)
    assert set(removal.untagged) == {"docker.io/library/a:1", "docker.io/library/a:2"}
    assert removal.deleted == (image.id,)
    assert store.images() == []


def test_a_damaged_index_is_named_with_the_remedy(store: ImageStore) -> None:
    add(store, "alpine")
    index = store.root / "images/index.json"
    index.write_text("{")
    with pytest.raises(RlError, match=rf"^{index} is damaged: .*\(move it away and pull"):
        store.images()


# Sweeping


def test_a_sweep_keeps_what_images_share(store: ImageStore) -> None:
    add(store, "a", LAYER, OTHER)
    kept = add(store, "b", LAYER)
    store.remove("a")
    sweep(store)
    assert files(store)["layers"] == {sha256(LAYER)[7:]}
    assert files(store)["blobs"] == {path.name for path in blobs_of(store, kept)}
    assert store.find("b") == kept


def test_no_sweep_touches_what_is_being_added(store: ImageStore) -> None:
    with store.shared():
        digest = store.put_blob(b"for an image that has no name yet")
        (store.root / "tmp/unfinished").write_text("x")
        sweep(store)
        assert store.has_blob(digest)
        assert files(store)["tmp"] == {"unfinished"}
    sweep(store)
    assert not store.has_blob(digest)
    assert files(store)["tmp"] == set()


def test_a_sweep_asks_for_the_layers_in_use_when_nobody_can_add_any(store: ImageStore) -> None:
    def used() -> tuple[str, ...]:
        with open(store.root / "lock", "rb+") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return ()

    add(store, "a")
    userns.call(store.sweep, used)


def make_deep(path: Path) -> None:
    """Make a tree much deeper than any path or stack may be, with modes that hinder."""
    path.mkdir(parents=True)
    os.chdir(path)
    for number in range(5000):
        Path("file").touch()
        Path("link").symlink_to("/")
        Path("d" * (1 + number % 100)).mkdir()
        os.chdir("d" * (1 + number % 100))
        os.chmod("..", 0)
        os.chown("..", 1 + number % 50, 1)


def test_garbage_of_any_depth_and_mode_is_removed(store: ImageStore, tmp_path: Path) -> None:
    add(store, "a")
    (tmp_path / "outside").mkdir()
    userns.call(make_deep, store.root / "tmp/deep")
    sweep(store)
    assert files(store)["tmp"] == set()
    assert (tmp_path / "outside").exists()


def test_an_image_whose_documents_someone_damaged_is_mended_by_adding_it_again(
    store: ImageStore,
) -> None:
    kept = add(store, "kept", OTHER)
    image = add(store, "broken", LAYER)
    for digest in (image.digest, image.id):
        store.blob_path(digest).write_bytes(b"{")
        assert store.images() == [kept]
        sweep(store)
        assert not store.blob_path(digest).exists()
        assert store.find("kept") == kept
        assert add(store, "broken", LAYER) == image
        store.blob_path(digest).write_bytes(b"{")
        assert add(store, "broken", LAYER) == image


def test_an_index_that_skopeo_put_there_is_kept_whole(store: ImageStore, tmp_path: Path) -> None:
    write_layout(tmp_path / "source", [Layer(OTHER)])
    add(store, "a", LAYER)
    skopeo("copy", "-q", f"oci:{tmp_path}/source:latest", f"oci:{store.root}/images:added/by:hand")
    sweep(store)
    skopeo("inspect", f"oci:{store.root}/images:added/by:hand")
    assert len(store.images()) == 2
