"""A pull brings what the registry has, once, or brings nothing and says why."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rootless.images.manifest import Platform
from rootless.images.store import Image, ImageStore
from tests.images import fake
from tests.images.fake import Request, digest
from tests.support import leaks, oci
from tests.support.oci import Layer, tar_of
from tests.support.registry import Registry
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE, wait_until

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


# From the real registry


def test_an_image_arrives_as_it_is(registry: Registry, alpine: str, fresh_rl: Rl) -> None:
    done = fresh_rl("pull", "--quiet", alpine)
    assert (done.stdout, done.stderr) == ("docker.io/library/alpine:latest\n", "")
    assert tree(fresh_rl, alpine)["etc/motd"] == "hello from busybox\n"
    found = image(fresh_rl, alpine)
    names = ("docker.io/library/alpine:latest", f"docker.io/library/alpine@{found.digest}")
    assert found.names == names
    assert unfinished(fresh_rl) == []


def test_a_second_pull_fetches_no_blob(registry: Registry, alpine: str, fresh_rl: Rl) -> None:
    fresh_rl("pull", alpine)
    before = len(registry.requests())
    done = fresh_rl("pull", alpine)
    assert registry.requests()[before:] == ["GET /v2/library/alpine/manifests/latest 200"]
    assert done.stderr.splitlines() == [
        "latest: Pulling from library/alpine",
        f"Digest: {image(fresh_rl, alpine).digest}",
        "Status: Image is up to date for alpine:latest",
    ]


def push(registry: Registry, area: Path, name: str, *layers: Layer, **options: Any) -> None:
    layout = area / "layouts" / re.sub(r"\W", "-", name)
    oci.write_layout(layout, layers, **options)
    registry.push(f"oci:{layout}:latest", name if "/" in name else f"library/{name}")


def files(**content: str) -> bytes:
    return tar_of(content)


def test_layers_that_images_share_are_fetched_once(
    registry: Registry, area: Path, fresh_rl: Rl
) -> None:
    base, one, two = Layer(files(base="b")), Layer(files(one="1")), Layer(files(two="2"))
    push(registry, area, "share/one", base, one)
    push(registry, area, "share/two", base, two)
    fresh_rl("pull", "share/one")
    before = len(registry.requests())
    done = fresh_rl("pull", "share/two")
    # The configuration and the other layer.
    assert sum("/blobs/" in request for request in registry.requests()[before:]) == 2
    assert [line[13:] for line in done.stderr.splitlines() if line[12:13] == ":"] == [
        " Already exists",
        " Pulling fs layer",
        " Download complete",
        " Pull complete",
    ]
    assert tree(fresh_rl, "share/one") == {"base": "b", "one": "1"}
    assert tree(fresh_rl, "share/two") == {"base": "b", "two": "2"}


def test_every_compression_gives_the_same_layer(
    registry: Registry, area: Path, fresh_rl: Rl
) -> None:
    archive = files(name="value")
    push(registry, area, "pack/none", Layer(archive, "none"))
    push(registry, area, "pack/zstd", Layer(archive, "zstd"))
    push(registry, area, "pack/gzip", Layer(archive, "gzip"))
    for name in ("pack/none", "pack/zstd", "pack/gzip"):
        fresh_rl("pull", name)
        assert tree(fresh_rl, name) == {"name": "value"}
    assert len(os.listdir(fresh_rl.root / "layers")) == 1


def test_a_layer_that_an_image_has_several_times_is_fetched_once(
    registry: Registry, area: Path, fresh_rl: Rl
) -> None:
    empty, other = Layer(tar_of({})), Layer(files(a="a"))
    push(registry, area, "repeated", empty, other, empty, empty)
    before = len(registry.requests())
    fresh_rl("pull", "repeated")
    assert sum("/blobs/" in request for request in registry.requests()[before:]) == 3
    assert len(image(fresh_rl, "repeated").layers) == 4


def test_an_image_without_layers_is_an_image(registry: Registry, area: Path, fresh_rl: Rl) -> None:
    push(registry, area, "scratch-like")
    fresh_rl("pull", "scratch-like")
    assert image(fresh_rl, "scratch-like").layers == ()


def test_an_image_that_docker_would_push_arrives(
    registry: Registry, area: Path, fresh_rl: Rl
) -> None:
    """Docker's schema 2, as skopeo converts it."""
    layout = area / "layouts/schema2"
    oci.write_layout(layout, [Layer(files(a="a"))])
    target = f"docker://{registry.host}/library/schema2"
    options = ["--insecure-policy", "--dest-tls-verify=false", "--format=v2s2"]
    subprocess.run(["skopeo", "copy", "-q", *options, f"oci:{layout}:latest", target], check=True)
    fresh_rl("pull", "schema2")
    assert tree(fresh_rl, "schema2") == {"a": "a"}


def test_the_store_is_a_layout_that_skopeo_reads(alpine: str, fresh_rl: Rl) -> None:
    fresh_rl("pull", alpine)
    copy = fresh_rl.directory / "copy"
    source = f"oci:{fresh_rl.root}/images:docker.io/library/alpine:latest"
    command = ["skopeo", "--insecure-policy", "copy", "-q", source, f"oci:{copy}:x"]
    subprocess.run(command, check=True)
    (entry,) = json.loads((copy / "index.json").read_text())["manifests"]
    assert entry["digest"] == image(fresh_rl, alpine).digest


def test_a_tag_that_moved_is_followed_and_the_old_image_stays(
    registry: Registry, area: Path, fresh_rl: Rl
) -> None:
    push(registry, area, "moving", Layer(files(version="1")))
    fresh_rl("pull", "moving")
    old = image(fresh_rl, "moving")
    push(registry, area, "moving", Layer(files(version="2")))
    done = fresh_rl("pull", "moving")
    assert "Status: Downloaded newer image for moving:latest" in done.stderr
    assert tree(fresh_rl, "moving") == {"version": "2"}
    fresh_rl("pull", f"moving@{old.digest}")
    assert tree(fresh_rl, f"moving@{old.digest}") == {"version": "1"}
    assert image(fresh_rl, f"moving@{old.digest}").id == old.id


def test_many_pulls_of_one_image_at_once_all_succeed_and_fetch_it_once(
    registry: Registry, area: Path, fresh_rl: Rl
) -> None:
    push(registry, area, "crowd", Layer(files(a=os.urandom(5 << 20).hex())), Layer(files(b="b")))
    before = len(registry.requests())
    pulls = [
        fresh_rl.start("pull", "crowd", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(8)
    ]
    said = [process.communicate() for process in pulls]
    assert [process.returncode for process in pulls] == [0] * len(pulls), said
    assert tree(fresh_rl, "crowd")["b"] == "b"
    assert unfinished(fresh_rl) == []
    assert len(ImageStore(fresh_rl.root).images()) == 1
    asked = registry.requests()[before:]
    config = image(fresh_rl, "crowd").id
    blobs = [request for request in asked if "/blobs/" in request and config not in request]
    assert len(blobs) == 2


def test_a_blob_that_is_there_is_unpacked_without_the_registry(
    registry: Registry, area: Path, fresh_rl: Rl
) -> None:
    push(registry, area, "half", Layer(files(a="a")))
    fresh_rl("pull", "half")
    leaks.remove_tree(fresh_rl.root / "layers")
    os.mkdir(fresh_rl.root / "layers")
    before = len(registry.requests())
    fresh_rl("pull", "half")
    assert registry.requests()[before:] == ["GET /v2/library/half/manifests/latest 200"]
    assert tree(fresh_rl, "half") == {"a": "a"}


# Authentication


# What `htpasswd -B` makes of the password `s:ecret`.
PASSWORD = "s:ecret"
HTPASSWD = "me:$2y$05$aaaaaaaaaaaaaaaaaaaaaOJ1UW2slYB04l8WiJyyndxikZ7X5icM.\n"


@pytest.fixture(scope="module")
def guarded(area: Path, registry: Registry, alpine: str) -> Iterator[str]:
    """Return the host of a registry with the same images, which only ``me`` may read."""
    directory = area / "guarded"
    directory.mkdir()
    (directory / "htpasswd").write_text(HTPASSWD)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(registry.directory / "storage")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        "auth": {"htpasswd": {"realm": "r", "path": str(directory / "htpasswd")}},
    }
    (directory / "config.yml").write_text(json.dumps(configuration))
    with (directory / "log").open("wb") as log:
        command = ["docker-registry", "serve", str(directory / "config.yml")]
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            assert server.poll() is None, (directory / "log").read_text()
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def log_in(rl: Rl, host: str, password: str) -> None:
    pair = base64.b64encode(f"me:{password}".encode()).decode()
    (rl.directory / "auth.json").write_text(json.dumps({"auths": {host: {"auth": pair}}}))


def test_a_registry_with_a_password_lets_in_who_has_it(guarded: str, fresh_rl: Rl) -> None:
    name = f"{guarded}/library/alpine"
    reason = fails(fresh_rl, name)
    assert f"{guarded}: it asks for a user name and a password" in reason
    assert f"podman login {guarded}" in reason
    log_in(fresh_rl, guarded, "wrong")
    assert "access denied" in fails(fresh_rl, name)
    log_in(fresh_rl, guarded, PASSWORD)
    fresh_rl("pull", name)
    assert tree(fresh_rl, name)["etc/motd"] == "hello from busybox\n"


# From a registry that lies


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


@pytest.fixture
def lying(tmp_path: Path) -> Iterator[Lying]:
    behaviour = Lying(tmp_path / "lying")
    with fake.serve(behaviour) as server:
        behaviour.host = server.host
        yield behaviour


def visible(rl: Rl) -> list[str]:
    """Return the layers in the store, and the names of images."""
    names = [name for found in ImageStore(rl.root).images() for name in found.names]
    return os.listdir(rl.root / "layers") + names


def test_a_layer_with_other_bytes_than_its_digest_is_never_visible(
    lying: Lying, fresh_rl: Rl
) -> None:
    layer = lying.write(Layer(files(a="a"), "none"))["layers"][0]
    wrong = lying.blob(layer["digest"]).read_bytes().replace(b"a", b"b")
    lying.blob(layer["digest"]).write_bytes(wrong)
    assert f"what was received for {layer['digest']} is {digest(wrong)}" in fails(
        fresh_rl, lying.name
    )
    assert visible(fresh_rl) == []
    assert not ImageStore(fresh_rl.root).has_blob(layer["digest"])


def test_a_layer_with_another_content_than_its_diff_id_is_never_visible(
    lying: Lying, fresh_rl: Rl
) -> None:
    manifest = lying.write(Layer(files(a="a")))
    config = lying.document(manifest["config"]["digest"])
    config["rootfs"]["diff_ids"] = [digest(b"other")]
    manifest["config"] = lying.put(config, f"{OCI}.config.v1+json")
    lying.put(manifest)
    found = digest(files(a="a"))
    assert f"its content is {found}" in fails(fresh_rl, lying.name)
    assert visible(fresh_rl) == []


def test_a_damaged_archive_is_never_visible(lying: Lying, fresh_rl: Rl) -> None:
    lying.write(Layer(os.urandom(3_000_000), "gzip"), Layer(files(good="1")))
    assert "cannot unpack layer sha256:" in fails(fresh_rl, lying.name)
    assert all(name == digest(files(good="1"))[7:] for name in visible(fresh_rl))


def test_a_configuration_with_another_digest_is_refused(lying: Lying, fresh_rl: Rl) -> None:
    config = lying.write(Layer(files(a="a")))["config"]
    lying.blob(config["digest"]).write_bytes(b"x" * config["size"])
    assert "its configuration is not what its digest" in fails(fresh_rl, lying.name)


def test_a_configuration_with_fewer_layers_than_the_manifest_is_refused(
    lying: Lying, fresh_rl: Rl
) -> None:
    manifest = lying.write(Layer(files(a="a")))
    lying.put({**manifest, "layers": manifest["layers"] * 2})
    assert "the manifest has 2 layers, the configuration 1" in fails(fresh_rl, lying.name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schemaVersion": 1, "mediaType": None, "config": None}, "schema 1 is no longer"),
        ({"config": {"mediaType": "application/vnd.x+json"}}, "no container image"),
        ({"layers": [{"mediaType": "text/plain"}]}, "layer type 'text/plain' is not supported"),
        ({"layers": [{"digest": "md5:abc"}]}, "not a digest we can verify"),
        ({"layers": [{"digest": "sha256:../../../etc/passwd"}]}, "not a digest we can verify"),
        ({"layers": [{"size": -1}]}, "out of range"),
    ],
)
def test_a_manifest_that_is_no_image_of_ours_is_refused(
    lying: Lying, fresh_rl: Rl, change: dict[str, Any], reason: str
) -> None:
    manifest = lying.write(Layer(files(a="a")))
    if "layers" in change:
        change = {"layers": [manifest["layers"][0] | change["layers"][0]]}
    if change.get("config"):
        change = {"config": manifest["config"] | change["config"]}
    lying.put(manifest | change)
    assert reason in fails(fresh_rl, lying.name)
    assert visible(fresh_rl) == []


def test_a_store_that_cannot_be_written_is_named(lying: Lying, fresh_rl: Rl) -> None:
    lying.write(Layer(files(a="a")))
    fresh_rl("pull", lying.name)
    lying.write(Layer(files(b="b")))
    (fresh_rl.root / "pull.lock").unlink()
    (fresh_rl.root / "pull.lock").mkdir()
    assert f"{fresh_rl.root}/pull.lock: Is a directory" in fails(fresh_rl, lying.name)


def test_a_layer_that_the_registry_does_not_have_is_named(lying: Lying, fresh_rl: Rl) -> None:
    layer = lying.write(Layer(files(a="a")))["layers"][0]
    lying.blob(layer["digest"]).unlink()
    assert f"{layer['digest']}, a part of the image, is missing" in fails(fresh_rl, lying.name)


# Platforms


def index_of(lying: Lying, **layers: str) -> dict[str, Any]:
    """Put an index with an image for each architecture; its layer holds the text."""
    entries = []
    for architecture, text in layers.items():
        manifest = lying.write(Layer(files(text=text)), architecture=architecture)
        entries.append(lying.put(manifest))
        entries[-1]["platform"] = {"os": "linux", "architecture": architecture}
    index = {"schemaVersion": 2, "manifests": entries}
    return lying.put(index, f"{OCI}.index.v1+json")


def test_of_an_index_the_platform_of_this_machine_or_the_one_asked_for_is_taken(
    lying: Lying, fresh_rl: Rl
) -> None:
    here = Platform.host().architecture
    top = index_of(lying, s390x="there", **{here: "here"})
    done = fresh_rl("pull", lying.name)
    assert f"Digest: {top['digest']}" in done.stderr
    assert tree(fresh_rl, lying.name) == {"text": "here"}
    assert tree(fresh_rl, f"{lying.name}@{top['digest']}") == {"text": "here"}
    fresh_rl("pull", "--platform", "linux/s390x", lying.name)
    assert tree(fresh_rl, lying.name) == {"text": "there"}


def test_a_platform_that_is_not_offered_is_refused_with_those_that_are(
    lying: Lying, fresh_rl: Rl
) -> None:
    index_of(lying, s390x="there", riscv64="there")
    reason = "(there is: linux/s390x, linux/riscv64)"
    assert reason in fails(fresh_rl, lying.name)
    assert reason in fails(fresh_rl, lying.name, "--platform", "linux/ppc64le")


def test_one_image_for_another_platform_is_taken_but_not_when_asked_for_ours(
    lying: Lying, fresh_rl: Rl
) -> None:
    lying.write(Layer(files(a="a")), architecture="s390x")
    here = Platform.host()
    assert f"for linux/s390x only, not for {here}" in fails(
        fresh_rl, lying.name, "--platform", str(here)
    )
    fresh_rl("pull", lying.name)
    assert str(image(fresh_rl, lying.name).config.platform) == "linux/s390x"


def test_indexes_without_end_are_given_up(lying: Lying, fresh_rl: Rl) -> None:
    inner = lying.put({"schemaVersion": 2, "manifests": []}, f"{OCI}.index.v1+json")
    for _ in range(5):
        document = {"schemaVersion": 2, "manifests": [inner]}
        inner = lying.put(document, f"{OCI}.index.v1+json")
    assert "indexes without end" in fails(fresh_rl, lying.name)


# Side by side


def test_three_layers_are_fetched_at_once_and_no_more(lying: Lying, fresh_rl: Rl) -> None:
    layers = lying.write(*[Layer(files(**{f"f{n}": "x"})) for n in range(7)])["layers"]
    lock, three = threading.Lock(), threading.Barrier(3)
    now, most = 0, 0

    def counted(request: Request) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            order = sum("/blobs/" in path for path in seen)
            seen.append(request.path)
        if order < 3:
            three.wait(PATIENCE)
            time.sleep(0.2)  # in which a fourth would come
        with lock:
            # It is over before the client can know it.
            now -= 1
        request.serve(lying.blob(request.path.rpartition("/")[2]).read_bytes())

    seen: list[str] = []
    lying.instead = {layer["digest"]: counted for layer in layers}
    fresh_rl("pull", lying.name)
    assert len(seen) == 7
    assert most == 3


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_layer_is_unpacked_while_the_rest_of_it_is_still_on_the_way(
    lying: Lying, fresh_rl: Rl, compression: oci.Compression
) -> None:
    archive = tar_of({"first": b"1", "filler": os.urandom(8 << 20), "last": b"2"})
    (layer,) = lying.write(Layer(archive, compression))["layers"]
    data = lying.blob(layer["digest"]).read_bytes()
    found: list[bool] = []

    def slowly(request: Request) -> None:
        request.begin(200, len(data))
        request.send(data[: len(data) // 2])
        found.append(appears(lambda: any(fresh_rl.root.glob("tmp/layer-*/first"))))
        assert not any(fresh_rl.root.glob("layers/*"))
        request.send(data[len(data) // 2 :])

    lying.instead = {layer["digest"]: slowly}
    fresh_rl("pull", lying.name)
    assert found == [True]
    assert (fresh_rl.root / "layers" / digest(archive)[7:] / "last").read_text() == "2"


def appears(condition: Callable[[], bool]) -> bool:
    """Wait until something is so."""
    wait_until(condition)
    return True


# When it is stopped


@pytest.fixture
def stuck(lying: Lying, fresh_rl: Rl) -> Iterator[Lying]:
    """Return a registry that stops in the middle of a layer until the test is over."""
    archive = tar_of({"first": b"1", "filler": os.urandom(8 << 20)})
    (layer,) = lying.write(Layer(archive, "none"))["layers"]
    over = threading.Event()

    def stop(request: Request) -> None:
        request.begin(200, len(archive))
        request.send(archive[: len(archive) // 2])
        over.wait()

    lying.instead = {layer["digest"]: stop}
    yield lying
    over.set()


def started(rl: Rl, name: str, **options: Any) -> subprocess.Popen[bytes]:
    """Return a pull that is in the middle of a layer."""
    process = rl.start("pull", name, stderr=subprocess.PIPE, process_group=0, **options)
    assert appears(lambda: any(rl.root.glob("tmp/layer-*/first")))
    return process


def test_an_interrupt_leaves_no_process_and_no_file(stuck: Lying, fresh_rl: Rl) -> None:
    process = started(fresh_rl, stuck.name)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode != 0
    assert b"Traceback" not in stderr
    assert leaks.wait_for_none(fresh_rl.directory) == []
    assert unfinished(fresh_rl) == []
    assert visible(fresh_rl) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_pull_that_is_killed_leaves_no_process_and_a_store_that_works(
    stuck: Lying, fresh_rl: Rl, number: signal.Signals
) -> None:
    process = started(fresh_rl, stuck.name)
    process.send_signal(number)
    process.communicate()
    assert leaks.wait_for_none(fresh_rl.directory) == []
    assert visible(fresh_rl) == []
    stuck.instead.clear()
    fresh_rl("pull", stuck.name)
    assert len(visible(fresh_rl)) == 3


# What is seen


def test_every_step_is_a_line_where_there_is_no_terminal(
    registry: Registry, area: Path, fresh_rl: Rl
) -> None:
    push(registry, area, "team/steps:1.0", Layer(files(a="a")))
    done = fresh_rl("pull", "team/steps:1.0")
    assert done.stdout == "docker.io/team/steps:1.0\n"
    first, *steps, last_but_one, last = done.stderr.splitlines()
    assert first == "1.0: Pulling from team/steps"
    assert [re.sub("^[0-9a-f]{12}: ", "", step) for step in steps] == [
        "Pulling fs layer",
        "Download complete",
        "Pull complete",
    ]
    assert last_but_one == f"Digest: {image(fresh_rl, 'team/steps:1.0').digest}"
    assert last == "Status: Downloaded newer image for team/steps:1.0"


def test_a_terminal_shows_bars_and_gets_its_cursor_back(alpine: str, fresh_rl: Rl) -> None:
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen:
        process = fresh_rl.start("pull", alpine, stderr=theirs, stdout=subprocess.PIPE)
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while chunk := screen.read(65536):
                shown += chunk
        stdout, _ = process.communicate()
    assert process.returncode == 0
    assert stdout == b"docker.io/library/alpine:latest\n"
    assert shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h") == 1
    assert b"done" in shown
    assert b"Status: Downloaded newer image for alpine:latest" in shown
