"""A pull brings what the registry has, once, or brings nothing and says why."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.images.store import ImageStore
from tests.images.pulling import fails, files, image, push, tree, unfinished
from tests.support import leaks, oci
from tests.support.oci import Layer, tar_of
from tests.support.registry import Registry
from tests.support.runner import Rl

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
