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
from pathlib import Path
from typing import Any

import pytest

from rootless.errors import ImageNotFound, RlError
from rootless.images import manifest
from rootless.images.manifest import Descriptor
from rootless.images.reference import Reference
from rootless.images.store import ImageStore
from rootless.kernel import syscalls, userns
from rootless.trees import remove_tree
from tests.images.archives import TAR, archive, entry, feed, sha256, snapshot
from tests.images.filled import (
    LAYER,
    OTHER,
    add,
    blobs_of,
    files,
    put_blob,
    put_layer,
    skopeo,
    sweep,
)


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
