"""A container that goes while a command looks at it: gone, and nothing worse."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from rootless.containers import changes, enter
from rootless.containers.annotation import ANNOTATION
from rootless.containers.diff import differences
from rootless.containers.launch import Launch
from rootless.containers.state import Process, State
from rootless.containers.store import Container, ContainerStore, unless_removed
from rootless.errors import ContainerNotFound, RlError
from rootless.trees import remove_tree

_EXTRA = {
    "image": "", "image_id": "", "layers": [], "request": {"mounts": [], "network": "none"},
    "volumes": {}, "anonymous_volumes": [], "filled_volumes": [], "entrypoint": [], "command": [],
    "labels": {},
}  # fmt: skip


def container(path: Path, **state: Any) -> Container:
    config = {
        "process": {"env": [], "cwd": "/"},
        "mounts": [],
        "linux": {"seccomp": {}, "namespaces": []},
        "annotations": {ANNOTATION: json.dumps(_EXTRA)},
    }
    return Container("x", path, config, State(name="gone", created_at="", **state))


def test_what_is_gone_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "f").write_bytes(b"x" * 100)
    trees = {name: str(tmp_path / name) for name in ("there", "gone")}
    assert changes.tree_sizes(trees) == {"there": 100, "gone": 0}


def test_what_is_gone_has_no_differences(tmp_path: Path) -> None:
    with pytest.raises(ContainerNotFound):
        differences(container(tmp_path / "x"), [])


def test_no_state_is_recorded_of_what_is_gone(tmp_path: Path) -> None:
    gone = container(tmp_path / "containers" / "x")
    with pytest.raises(ContainerNotFound, match="no such container: gone"):
        ContainerStore(tmp_path).update(gone, name="other")


def test_nobody_enters_what_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ContainerNotFound):
        enter.plan(container(tmp_path / "x"), ["true"])


def test_failure_is_explained_by_the_end_of_the_container_and_by_nothing_else(
    tmp_path: Path,
) -> None:
    ours = Process.of(os.getpid())
    dead = Process(ours.pid, ours.start + 1, ours.boot)
    for path, init, said in (
        (tmp_path, ours, "odd"),
        (tmp_path, dead, "container gone is not running"),
        (tmp_path / "x", dead, "no such container: gone"),
    ):
        with pytest.raises(RlError, match=said), enter.while_running(container(path, init=init)):
            raise RlError("odd")
    # The reader's end of a pipe is another matter.
    with pytest.raises(BrokenPipeError), unless_removed(container(tmp_path / "x")):
        raise BrokenPipeError


def test_start_of_what_is_gone_is_refused(tmp_path: Path) -> None:
    launch = Launch()
    launch.supervise(tmp_path, "x" * 64, {})
    message, _ = launch.channel.receive()
    launch.end()
    assert message is not None
    assert message["error"] == f"no such container: {'x' * 12}"


def test_tree_may_be_removed_by_several_at_once(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(60):
        directory = tree / str(number % 7) / str(number)
        directory.mkdir(parents=True)
        for name in "abc":
            (directory / name).touch()
    failures: list[OSError] = []

    def remove() -> None:
        try:
            remove_tree(tree)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=remove) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not tree.exists()
