"""Layers side by side, and a pull that is stopped in the middle of one."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.images.fake import Request, digest
from tests.images.pulling import Lying, files, unfinished, visible
from tests.support import leaks, oci
from tests.support.oci import Layer, tar_of
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE, wait_until

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
