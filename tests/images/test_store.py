"""The image store: what is visible is whole, what is shared stays, and what was killed is swept."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rootless.errors import ImageNotFound, RlError
from rootless.images import manifest
from rootless.images.manifest import Descriptor
from rootless.images.reference import Reference
from rootless.images.store import Image, ImageStore
from rootless.kernel import syscalls, userns
from rootless.trees import remove_tree
from tests.images.archives import TAR, archive, directory, entry, feed, sha256, snapshot
from tests.support.oci import Layer, write_layout

LAYER = archive(directory("bin", uid=3), entry("bin/sh", b"#!", mode=0o4755, uid=7))
OTHER = archive(entry("other"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    yield ImageStore(tmp_path / "root")
    userns.call(remove_tree, tmp_path / "root")


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


def skopeo(*arguments: str | Path) -> str:
    command = ["skopeo", "--insecure-policy", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.parametrize("docker", [False, True])
def test_skopeo_reads_the_store_as_an_oci_layout(
    store: ImageStore, tmp_path: Path, docker: bool
) -> None:
    image = add(store, "alpine", LAYER, OTHER, docker=docker)
    source = f"oci:{store.root}/images:docker.io/library/alpine:latest"
    inspected: dict[str, Any] = json.loads(skopeo("inspect", source))
    assert inspected["Digest"] == image.digest
    assert inspected["Env"] == ["A=b"]
    assert inspected["Layers"] == [sha256(gzip.compress(one, mtime=0)) for one in (LAYER, OTHER)]
    skopeo("copy", "-q", source, f"docker-archive:{tmp_path}/image.tar:x/y:z")
    assert (tmp_path / "image.tar").stat().st_size > len(LAYER)


def test_an_image_is_found_by_every_name_and_id(store: ImageStore) -> None:
    extra = sha256(b"the digest of an index")
    image = add(store, "alpine", LAYER, extra_digest=extra)
    other = add(store, "quay.io/a/b:c", LAYER, env="C=d")
    assert image.names == ("docker.io/library/alpine:latest", f"docker.io/library/alpine@{extra}")
    for name in ("alpine", "docker.io/library/alpine:latest", f"alpine@{extra}"):
        assert store.find(name) == image
    for name in (image.id, image.id[7:], image.id[7:19]):
        assert store.find(name) == image
    assert store.find("quay.io/a/b:c") == other
    assert store.images() == [image, other]
    assert image.config.env == ("A=b",)
    assert image.layers == (sha256(LAYER),)
    assert image.size == sum(file.stat().st_size for file in blobs_of(store, image))


def blobs_of(store: ImageStore, image: Image) -> list[Path]:
    document = manifest.parse_manifest(store.read_blob(image.digest, 1 << 20))
    digests = [image.digest, image.id, *(layer.digest for layer in document.layers)]
    return [store.blob_path(digest) for digest in digests]


@pytest.mark.parametrize("name", ["nothing", "alpine:other", "0123456789ab", "sha256:" + "0" * 64])
def test_what_is_not_there_is_not_found(store: ImageStore, name: str) -> None:
    with pytest.raises(ImageNotFound):
        store.find(name)
    add(store, "alpine")
    with pytest.raises(ImageNotFound):
        store.find(name)


def test_the_beginning_of_several_ids_is_refused(store: ImageStore) -> None:
    images = [add(store, f"image:{number}", env=f"N={number}") for number in range(20)]
    digits = [image.id[7] for image in images]
    common = max(digits, key=digits.count)
    with pytest.raises(ImageNotFound, match="several image IDs"):
        store.find(common)


def test_a_name_that_moves_leaves_the_old_image_without_one(store: ImageStore) -> None:
    old = add(store, "alpine", env="V=1")
    new = add(store, "alpine", env="V=2")
    assert store.find("alpine") == new
    assert {image.id: image.names for image in store.images()} == {old.id: (), new.id: new.names}
    again = add(store, "alpine", env="V=1")
    assert {image.id: image.names for image in store.images()} == {new.id: (), old.id: again.names}


def test_a_layer_is_unpacked_once_for_all_images(store: ImageStore) -> None:
    add(store, "one", LAYER)
    before = (store.layer_path(sha256(LAYER)) / "bin").stat().st_ino
    add(store, "two", LAYER, OTHER)
    assert (store.layer_path(sha256(LAYER)) / "bin").stat().st_ino == before
    assert len(files(store)["layers"]) == 2


def test_nobody_else_can_reach_the_setuid_files_of_a_layer(store: ImageStore) -> None:
    add(store, "alpine", LAYER)
    for path in (store.root, store.root / "layers", store.root / "images", store.root / "tmp"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


# What does not match is never visible


def test_a_blob_is_visible_when_it_is_committed_and_not_before(store: ImageStore) -> None:
    data = os.urandom(100_000)
    with store.shared(), store.write_blob(Descriptor("", sha256(data), len(data))) as blob:
        for start in range(0, len(data), 30_000):
            assert blob.offset == start
            blob.write(data[start : start + 30_000])
        assert not store.has_blob(sha256(data))
        blob.commit()
        assert store.has_blob(sha256(data))
    assert store.read_blob(sha256(data), len(data)) == data
    assert files(store)["tmp"] == set()


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (b"short", "ended after 5 of 8 bytes"),
        (b"muchtoolong", "longer than the 8 bytes"),
        (b"eightbyt", "what was received for .* is sha256:"),
    ],
)
def test_a_blob_that_is_not_what_was_announced_is_refused(
    store: ImageStore, written: bytes, reason: str
) -> None:
    def write() -> None:
        with store.shared(), store.write_blob(Descriptor("", sha256(b"expected"), 8)) as blob:
            blob.write(written)
            blob.commit()

    with pytest.raises(RlError, match=reason):
        write()
    assert files(store) == {"blobs": set(), "layers": set(), "tmp": set()}


def test_a_blob_that_someone_changed_is_not_returned(store: ImageStore) -> None:
    with store.shared():
        digest = store.put_blob(b"data")
    store.blob_path(digest).write_bytes(b"DATA")
    with pytest.raises(RlError, match="damaged"):
        store.read_blob(digest, 100)


@pytest.mark.parametrize(
    "digest", ["sha256:../../x", "sha512:" + "0" * 128, "", "sha256:" + "A" * 64]
)
def test_a_digest_is_never_a_path(store: ImageStore, digest: str) -> None:
    for ask in (store.has_blob, store.blob_path, store.has_layer, store.layer_path):
        with pytest.raises(RlError):
            ask(digest)


def leave_uncommitted(store: ImageStore) -> None:
    with store.shared(), store.unpack_layer(sha256(LAYER), TAR) as layer:
        feed(layer.fd, LAYER)


def test_a_layer_that_is_not_committed_leaves_nothing(store: ImageStore) -> None:
    userns.call(leave_uncommitted, store)
    assert files(store) == {"blobs": set(), "layers": set(), "tmp": set()}


def test_an_image_whose_layer_is_missing_gets_no_name(store: ImageStore) -> None:
    add(store, "one", LAYER)
    userns.call(remove_tree, store.layer_path(sha256(LAYER)))
    image = store.find("one")
    size = store.blob_path(image.digest).stat().st_size
    with pytest.raises(RlError, match="missing from the store"):
        store.add(
            Reference.parse("two"), Descriptor(manifest.OCI_MANIFEST, image.digest, size), None
        )
    with pytest.raises(ImageNotFound):
        store.find("two")


def on_a_full_disk(store: ImageStore, size: int) -> tuple[list[str], list[str]]:
    """Fail to store ``size`` bytes as a layer and as a blob on a disk of one megabyte.

    Return the reasons given, and what is left in tmp/.
    """
    store.root.mkdir()
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("tmpfs", str(store.root), "tmpfs", 0, "size=1m")
    reasons = []
    data = archive(entry("big", bytes(size)))
    try:
        put_layer(store, data)
    except RlError as error:
        reasons.append(str(error))
    try:
        with store.shared(), store.write_blob(Descriptor("", sha256(data), len(data))) as blob:
            blob.write(data)
    except RlError as error:
        reasons.append(str(error))
    return reasons, os.listdir(store.root / "tmp")


def test_a_full_disk_is_named_and_nothing_stays(store: ImageStore) -> None:
    reasons, left = userns.call(on_a_full_disk, store, 3_000_000)
    assert left == []
    assert len(reasons) == 2
    assert "'big': No space left on device (free some" in reasons[0]
    assert reasons[1].endswith("No space left on device")


def test_looking_an_image_up_imports_nothing_heavy(store: ImageStore) -> None:
    add(store, "alpine", LAYER)
    program = (
        "import sys; from pathlib import Path; from rootless.images.store import ImageStore; "
        "ImageStore(Path(sys.argv[1])).find('alpine'); print(*sys.modules)"
    )
    command = [sys.executable, "-c", program, str(store.root)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], check=True, stdout=subprocess.PIPE, text=True
    )
    heavy = {"hashlib", "tarfile", "subprocess", "trio", "httpx", "zstandard", "asyncio", "ctypes"}
    assert heavy & set(done.stdout.split()) == set()


# Side by side


def race(store: ImageStore, number: int) -> None:
    with store.shared():
        blob = put_blob(store, LAYER, "x")
        with store.write_blob(blob) as writer:
            writer.write(LAYER)
            writer.commit()
        put_layer(store, LAYER)
        add_named(store, f"race:{number}")


def add_named(store: ImageStore, name: str) -> None:
    config = json.dumps({"os": "linux", "rootfs": {"diff_ids": []}}).encode()
    described = put_blob(store, config, manifest.OCI_CONFIG)
    document = {"schemaVersion": 2, "config": described.to_json(), "layers": []}
    data = json.dumps(document).encode()
    store.add(Reference.parse(name), put_blob(store, data, manifest.OCI_MANIFEST))


def in_children(store: ImageStore, count: int) -> list[int]:
    """Run ``race`` in many processes at once, all root of one user namespace."""
    children = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                race(store, number)
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    return [os.waitpid(pid, 0)[1] for pid in children]


def test_many_processes_write_the_same_blob_layer_and_index_at_once(store: ImageStore) -> None:
    assert userns.call(in_children, store, 12) == [0] * 12
    (image,) = store.images()
    assert len(image.names) == 12
    assert files(store)["layers"] == {sha256(LAYER)[7:]}
    assert files(store)["tmp"] == set()


KILLED = """
import sys
from pathlib import Path
from tests.images.test_store import ImageStore, race, userns
store = ImageStore(Path(sys.argv[1]))
for number in range(1000):
    race(store, number)
    store.sweep(lambda: ())
"""


def kill_some(root: Path, rounds: int) -> None:
    """Kill writers at random moments, as root of one user namespace; seeded, but time is not."""
    moments = random.Random(7)
    for _ in range(rounds):
        victim = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(root)], cwd=Path(__file__).parents[2]
        )
        time.sleep(0.15 + moments.random() * 0.6)
        victim.send_signal(signal.SIGKILL)
        assert victim.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_store_that_works(store: ImageStore) -> None:
    kept = add(store, "kept", LAYER)
    tree = userns.call(snapshot, store.layer_path(sha256(LAYER)))
    userns.call(kill_some, store.root, 25)
    assert store.find("kept") == kept
    assert userns.call(snapshot, store.layer_path(sha256(LAYER))) == tree
    for image in store.images():
        for path in blobs_of(store, image):
            assert sha256(path.read_bytes()) == f"sha256:{path.name}"
    add(store, "after", LAYER, OTHER)
    wait_for_lock(store)
    sweep(store)
    assert files(store)["tmp"] == set()
    assert files(store)["layers"] == {sha256(LAYER)[7:], sha256(OTHER)[7:]}


def wait_for_lock(store: ImageStore) -> None:
    with open(store.root / "lock", "rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


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
