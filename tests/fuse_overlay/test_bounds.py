"""Descriptors and memory of the server are bounded, whatever programs do."""

from __future__ import annotations

import errno
import os
import resource
import stat
from pathlib import Path

import pytest

import fuse_overlay.backing
import fuse_overlay.tree
from tests.fuse_overlay.made import GID, UID, Made, content, create, look, names, refused, write
from tests.fuse_overlay.support import fill, in_namespace, remove


def test_directories_open_at_once_are_bounded(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuse_overlay.backing, "_DIRECTORIES", 8)
    monkeypatch.setattr(fuse_overlay.backing, "_FILES", 8)
    fill(made.bottom, {f"d{i}/e/f": "" for i in range(100)})
    with made.overlay() as overlay:
        before = len(os.listdir("/proc/self/fd"))
        for i in range(100):
            write(overlay, look(overlay, f"d{i}/e/f").number, b"x")
        for i in range(100):
            overlay.unlink(look(overlay, f"d{i}/e").number, b"f")
            overlay.rmdir(look(overlay, f"d{i}").number, b"e")
            overlay.forget(look(overlay, f"d{i}").number, 99)
            overlay.trim()
        assert len(os.listdir("/proc/self/fd")) < before + 250  # the removed ones, still referenced
        for number in [inode.number for inode in overlay._inodes]:
            overlay.forget(number, 99)
        assert len(os.listdir("/proc/self/fd")) < before + 20


def test_paths_may_be_deeper_than_descriptors_are_kept(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuse_overlay.backing, "_DIRECTORIES", 8)
    with made.overlay() as overlay:
        chain = [1]
        for _ in range(1500):
            chain.append(overlay.mkdir(chain[-1], b"sub", 0o755, UID, GID).number)
        overlay.mkdir(1, b"other", 0o755, UID, GID)
        create(overlay, chain[-1], b"file")
        overlay.rename(chain[-1], b"file", chain[700], b"moved")
        assert look(overlay, "sub/" * 700 + "moved").links == 1
    with made.overlay() as overlay:
        assert stat.S_ISDIR(look(overlay, "/".join(["sub"] * 1500)).mode)
    remove(made.upper)


@in_namespace
def test_a_tree_of_more_directories_than_descriptors_can_be_renamed(tmp_path: Path) -> None:
    made = Made(tmp_path)
    fill(made.bottom, {f"t/a{i}/b/c": str(i) for i in range(200)})
    resource.setrlimit(resource.RLIMIT_NOFILE, (240, 240))
    with made.overlay() as overlay:
        overlay.rename(1, b"t", 1, b"new")
        assert names(overlay) == ["new"]
        assert content(overlay, "new/a199/b/c") == b"199"


@in_namespace
def test_very_many_open_files_leave_descriptors_for_all_other_operations(tmp_path: Path) -> None:
    made = Made(tmp_path)
    fill(made.bottom, {f"low/{i}": str(i) for i in range(400)})
    fill(made.bottom, {f"d{i}/e/f": "" for i in range(100)})
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
    with made.overlay() as overlay:
        low = look(overlay, "low").number
        opened = [look(overlay, f"low/{i}").number for i in range(400)]
        for i, number in enumerate(opened):
            assert overlay.read(number, 0, 9) == b"%d" % i
            overlay.trim()
        overlay.write(opened[0], 0, b"new")
        for i in range(100):  # fills what is kept of directories
            overlay.mkdir(look(overlay, f"d{i}/e").number, b"new", 0o755, UID, GID)
            overlay.trim()
        overlay.rename(1, b"d0", 1, b"renamed")
        held = 0
        with refused(errno.ENFILE):
            for i in range(400):  # known to the kernel, and so perhaps open, without a name
                overlay.unlink(low, b"%d" % i)
                held += 1
        assert held > 60
        overlay.mkdir(1, b"after", 0o755, UID, GID)
        assert overlay.read(opened[0], 0, 9) == b"new"
        for number in opened[:held]:
            assert overlay.getattr(number).links == 0
            overlay.forget(number, 1)
        overlay.unlink(low, b"%d" % held)
        assert content(overlay, "low/399") == b"399"


@in_namespace
def test_very_many_removed_and_held_directories_leave_descriptors_for_others(
    tmp_path: Path,
) -> None:
    made = Made(tmp_path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    with made.overlay() as overlay:
        held: list[int] = []
        with refused(errno.ENFILE):
            for _ in range(400):
                held.append(overlay.mkdir(1, b"d", 0o755, UID, GID).number)
                overlay.rmdir(1, b"d")
        overlay.mkdir(1, b"other", 0o755, UID, GID)
        overlay.setattr(held[0], mode=0o700)
        for number in held[:100]:
            overlay.forget(number, 1)
        overlay.rmdir(1, b"other")


def test_names_kept_in_memory_are_bounded(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuse_overlay.tree, "_NAMES", 50)
    fill(made.bottom, {f"d{i}/f{j}": "" for i in range(10) for j in range(20)})
    with made.overlay() as overlay:
        for _ in range(2):
            for i in range(10):
                directory = look(overlay, f"d{i}").number
                assert len(names(overlay, directory)) == 20
                overlay.trim()
                kept = [i for i in overlay._inodes if getattr(i, "lower_names", None)]
                assert len(kept) <= 4
        for _ in range(100):
            number = overlay.mkdir(1, b"new", 0o755, UID, GID).number
            create(overlay, number, b"f")
            overlay.unlink(number, b"f")
            overlay.rmdir(1, b"new")
            overlay.forget(number, 1)
            overlay.trim()
        assert len(overlay._tree._read) <= 8


def test_a_listing_that_was_dropped_from_memory_misses_no_name(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(made.bottom, {f"f{i}": "" for i in range(100)} | {"other/x": ""})
    with made.overlay() as overlay:
        seen = set()
        offset = 0
        monkeypatch.setattr(fuse_overlay.tree, "_NAMES", 5)
        while entry := next(overlay.readdir(1, offset), None):
            name, _, offset = entry
            if name.startswith(b"f"):
                overlay.unlink(1, name)
                seen.add(name)
            if len(seen) == 50:
                names(overlay, look(overlay, "other").number)
                overlay.trim()
        assert len(seen) == 100


def test_unnamed_files_leave_descriptors_for_others(made: Made) -> None:
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
            with made.overlay() as overlay:
                with refused(errno.ENFILE):
                    for _ in range(400):
                        overlay.tmpfile(1, 0o600, UID, GID)
                        overlay.trim()
                create(overlay, 1, b"other")
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
