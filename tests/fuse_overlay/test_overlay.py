"""The overlay without a mount: its operations, called as the protocol calls them."""

from __future__ import annotations

import errno
import functools
import itertools
import os
import resource
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import fuse_overlay.backing
import fuse_overlay.tree
from fuse_overlay.attributes import Attributes
from fuse_overlay.jobs import Pending
from fuse_overlay.overlay import Overlay
from tests.fuse_overlay.support import fill, in_namespace, layers, remove, tree, whiteout

UID, GID = os.getuid(), os.getgid()


class Made:
    """Two lower layers, an upper one, and the overlay of them, reached by path."""

    def __init__(self, directory: Path) -> None:
        self.top, self.bottom, self.upper, self.work = layers(
            directory, "top", "bottom", "upper", "work"
        )

    @contextmanager
    def overlay(self) -> Iterator[Overlay]:
        lowers = [str(self.top), str(self.bottom)]
        with closing(Patient(lowers, str(self.upper), str(self.work))) as overlay:
            yield overlay


class Patient(Overlay):
    """An overlay whose operations wait for what they are waiting for, as a server does."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return _patient(found) if name in _MAY_WAIT else found


_MAY_WAIT = ("setattr", "write", "setxattr", "removexattr", "link", "rename", "fallocate")


def _patient(operation: Callable[..., Any]) -> Callable[..., Any]:
    def until_done(*args: Any, **kwargs: Any) -> Any:
        while True:
            try:
                return operation(*args, **kwargs)
            except Pending as pending:
                wait([pending.job])

    return until_done


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def look(overlay: Overlay, path: str) -> Attributes:
    """Look a path up, one name after the other, and keep all references."""
    attributes = overlay.getattr(1)
    for name in path.split("/"):
        found = overlay.lookup(attributes.number, os.fsencode(name))
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        attributes = found
    return attributes


def names(overlay: Overlay, number: int = 1) -> list[str]:
    return sorted(os.fsdecode(entry[0]) for entry in overlay.readdir(number, 0))[2:]


def content(overlay: Overlay, path: str) -> bytes:
    return overlay.read(look(overlay, path).number, 0, 1 << 20)


def write(overlay: Overlay, number: int, data: bytes) -> None:
    overlay.write(number, 0, data)


def create(overlay: Overlay, parent: int, name: bytes, mode: int = 0o644) -> Attributes:
    return overlay.mknod(parent, name, stat.S_IFREG | mode, 0, UID, GID)


@contextmanager
def refused(*numbers: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is the point
        yield
    assert caught.value.errno in numbers, caught.value


def test_upper_layers_hide_lower_ones_and_directories_merge(made: Made) -> None:
    fill(made.bottom, {"d/low": "low", "d/both": "bottom", "f": "file", "x/y": "y"})
    fill(made.top, {"d/both": "top", "f/": "", "x": "file"})
    fill(made.upper, {"d/up": "up"})
    with made.overlay() as overlay:
        assert names(overlay) == ["d", "f", "x"]
        assert names(overlay, look(overlay, "d").number) == ["both", "low", "up"]
        assert content(overlay, "d/both") == b"top"
        assert names(overlay, look(overlay, "f").number) == []
        assert content(overlay, "x") == b"file"


def test_all_forms_of_whiteouts_and_opaque_marks_are_read(made: Made) -> None:
    fill(
        made.bottom,
        dict.fromkeys(("aufs", "device", "a/1", "b/1", "c/1", "e/1", "same"), "hidden"),
    )
    fill(made.top, {".wh.aufs": "", "a/.wh..wh..opq": "", "b/": "", "c/": "", "e/2": "2"})
    fill(made.top, {".wh..wh.plnk": "", "same": "kept", ".wh.same": ""})
    whiteout(made.top / "device")
    os.setxattr(made.top / "b", "user.overlay.opaque", b"y")
    os.setxattr(made.top / "c", "user.fuseoverlayfs.opaque", b"y")
    os.setxattr(made.top / "e", "user.overlay.opaque", b"x")
    with made.overlay() as overlay:
        assert names(overlay) == ["a", "b", "c", "e", "same"]
        for name in "abc":
            assert names(overlay, look(overlay, name).number) == []
        assert names(overlay, look(overlay, "e").number) == ["1", "2"]
        assert content(overlay, "same") == b"kept"
        for hidden in (b".wh.aufs", b"aufs", b"device"):
            assert overlay.lookup(1, hidden) is None


def test_an_upper_layer_with_aufs_whiteouts_can_be_changed(made: Made) -> None:
    fill(made.bottom, {"f": "low", "d/x": "low", "g": "low"})
    fill(made.upper, {".wh.f": "", ".wh.d": "", ".wh.g": ""})
    with made.overlay() as overlay:
        assert names(overlay) == []
        number = overlay.mkdir(1, b"d", 0o755, UID, GID).number
        assert names(overlay, number) == []
        write(overlay, create(overlay, 1, b"f").number, b"new")
    with made.overlay() as overlay:
        assert names(overlay) == ["d", "f"]
        assert content(overlay, "f") == b"new"
        assert names(overlay, look(overlay, "d").number) == []


def test_without_an_upper_directory_every_change_is_refused(made: Made) -> None:
    fill(made.bottom, {"f": "low", "d/": ""})
    with closing(Overlay([str(made.bottom)])) as overlay:
        number = look(overlay, "f").number
        changes: list[Callable[[], object]] = [
            lambda: overlay.write(number, 0, b"x"),
            lambda: overlay.setattr(number, mode=0o600),
            lambda: overlay.setattr(number, size=0),
            lambda: overlay.setxattr(number, b"user.x", b""),
            lambda: create(overlay, 1, b"new"),
            lambda: overlay.mkdir(1, b"new", 0o755, UID, GID),
            lambda: overlay.symlink(1, b"new", b"x", UID, GID),
            lambda: overlay.mknod(1, b"new", stat.S_IFIFO | 0o600, 0, UID, GID),
            lambda: overlay.link(number, 1, b"new"),
            lambda: overlay.rename(1, b"f", 1, b"new"),
            lambda: overlay.unlink(1, b"f"),
            lambda: overlay.rmdir(1, b"d"),
        ]
        for change in changes:
            with refused(errno.EROFS):
                change()
        assert content(overlay, "f") == b"low"


def test_inode_numbers_survive_copy_up_and_being_forgotten(made: Made) -> None:
    fill(made.bottom, {"d/f": "low", "d/e/": "", "d/l": "-> x"})
    os.mkfifo(made.bottom / "d/p")
    fill(made.top, {"d/": ""})
    paths = ("d", "d/f", "d/e", "d/l", "d/p")
    with made.overlay() as overlay:
        before = [look(overlay, path).number for path in paths]
        write(overlay, before[1], b"x")
        for number in before[2:]:
            overlay.setattr(number, mtime_ns=1)
        assert [look(overlay, path).number for path in paths] == before
        for number in reversed(before):
            overlay.forget(number, 99)
        assert [look(overlay, path).number for path in paths] == before


def test_a_new_file_never_gets_the_number_of_one_that_is_still_known(made: Made) -> None:
    with made.overlay() as overlay:
        known: set[int] = set()
        for index in range(50):  # the backing file system gives the same inode again and again
            number = create(overlay, 1, b"f").number
            assert number not in known
            known.add(number)
            overlay.unlink(1, b"f")
            assert overlay.getattr(number).links == 0, index


def test_forgotten_inodes_are_freed(made: Made) -> None:
    fill(made.bottom, {f"a/b{i}/c{j}": "" for i in range(5) for j in range(5)})
    with made.overlay() as overlay:
        numbers = [
            number
            for i in range(5)
            for j in range(5)
            for number in (look(overlay, f"a/b{i}/c{j}").number, look(overlay, f"a/b{i}").number)
        ]
        for number in numbers:  # parents before children too
            overlay.forget(number, 99)
        overlay.forget(look(overlay, "a").number, 99)
        assert len(overlay._inodes) == 1
        list(overlay.readdir(1, 0))
        assert len(overlay._inodes) == 1


def test_hard_links_stay_linked_when_one_is_copied_up(made: Made) -> None:
    fill(made.bottom, {"a": "low", "d/": ""})
    os.link(made.bottom / "a", made.bottom / "d/b")
    os.link(made.bottom / "a", made.bottom / "c")
    with made.overlay() as overlay:
        number = look(overlay, "a").number
        write(overlay, number, b"changed")
        for path in ("a", "d/b", "c"):
            assert look(overlay, path)[0::2][:2] == (number, 3)
            assert content(overlay, path) == b"changed"
    with made.overlay() as overlay:  # after a remount, the other name first
        assert content(overlay, "d/b") == b"changed"
        assert look(overlay, "d/b").number == look(overlay, "a").number
        assert look(overlay, "c").links == 3
        overlay.unlink(1, b"a")
        assert look(overlay, "c").links == 2
        overlay.rename(1, b"c", 1, b"e")
        assert content(overlay, "e") == b"changed"
        overlay.link(look(overlay, "e").number, 1, b"g")
        assert look(overlay, "d/b").links == 3
    with made.overlay() as overlay:
        assert names(overlay) == ["d", "e", "g"]
        assert look(overlay, "g")[0::2][:2] == (look(overlay, "d/b").number, 3)
        overlay.unlink(look(overlay, "d").number, b"b")
        overlay.unlink(1, b"e")
        assert look(overlay, "g").links == 1
        overlay.unlink(1, b"g")
        assert os.listdir(made.work / "links") == []


def test_the_link_count_of_a_lower_file_falls_with_its_names(made: Made) -> None:
    fill(made.bottom, {"a": "low"})
    os.link(made.bottom / "a", made.bottom / "b")
    with made.overlay() as overlay:
        number = look(overlay, "a").number
        overlay.unlink(1, b"a")
        assert overlay.getattr(number).links == 1
        assert look(overlay, "b")[0::2][:2] == (number, 1)
        write(overlay, number, b"upper")
        assert overlay.getattr(number).links == 1
        overlay.unlink(1, b"b")
        assert overlay.getattr(number).links == 0
        assert names(overlay) == []


def test_the_link_count_of_a_lower_file_is_right_after_a_remount(made: Made) -> None:
    fill(made.bottom, {"a": "low"})
    for name in "bcd":
        os.link(made.bottom / "a", made.bottom / name)
    for left, removed in ((3, b"a"), (2, b"b")):
        with made.overlay() as overlay:
            overlay.unlink(1, removed)
            assert look(overlay, "d").links == left
        with made.overlay() as overlay:
            assert look(overlay, "d").links == left
    with made.overlay() as overlay:
        write(overlay, look(overlay, "c").number, b"NEW")
        assert look(overlay, "d").links == 2
        overlay.unlink(1, b"c")
    with made.overlay() as overlay:
        assert look(overlay, "d").links == 1
        overlay.unlink(1, b"d")
        assert os.listdir(made.work / "links") == []


def test_nothing_is_kept_of_a_lower_file_whose_names_were_all_removed(made: Made) -> None:
    fill(made.bottom, {"a": "low"})
    os.link(made.bottom / "a", made.bottom / "b")
    for name in (b"a", b"b"):
        with made.overlay() as overlay:
            overlay.unlink(1, name)
    assert os.listdir(made.work / "links") == []


def _link_below(made: Made) -> None:
    """Make a file with three names: one hidden by a layer, one in a directory."""
    fill(made.bottom, {"a": "low", "d/": ""})
    os.link(made.bottom / "a", made.bottom / "d/b")
    os.link(made.bottom / "a", made.bottom / "hidden")
    whiteout(made.top / "hidden")


def test_the_copy_of_a_linked_file_goes_with_its_last_name_whenever_each_is_removed(
    made: Made,
) -> None:
    _link_below(made)
    os.link(made.bottom / "a", made.bottom / "d/c")
    with made.overlay() as overlay:
        overlay.unlink(look(overlay, "d").number, b"c")  # before there is a copy
    with made.overlay() as overlay:
        write(overlay, look(overlay, "a").number, b"new")
        overlay.unlink(1, b"a")
    for _ in "12":  # is found, and is found again
        with made.overlay() as overlay:
            assert content(overlay, "d/b") == b"new"
            assert os.lstat(made.upper / "d/b").st_nlink == 2
    with made.overlay() as overlay:
        overlay.unlink(look(overlay, "d").number, b"b")
    with made.overlay() as overlay:
        assert os.listdir(made.work / "links") == []
        assert names(overlay, look(overlay, "d").number) == []


def test_a_copy_is_kept_while_its_lower_file_cannot_be_found(made: Made) -> None:
    _link_below(made)
    with made.overlay() as overlay:
        write(overlay, look(overlay, "a").number, b"new")
        overlay.unlink(1, b"a")
    os.rename(made.bottom / "d/b", made.work / "elsewhere")
    for path in (made.bottom / "hidden", made.top / "hidden"):
        path.rename(made.work / f"hidden-{path.parent.name}")
    with made.overlay():
        assert len(os.listdir(made.work / "links")) == 1
    fill(made.work / "links", {"foreign": "", "foreign.1": "", "1-2-3.x": ""})
    os.rename(made.work / "elsewhere", made.bottom / "d/b")
    with made.overlay():
        assert len(os.listdir(made.work / "links")) == 4


_CHANGING = "link mkdir mknod open rename rmdir setxattr symlink unlink utime".split()
"""The functions of `os` that may change a directory."""


def _killed_at(step: int, function: Callable[[], None]) -> bool:
    """Do something in a process that ends instead of changing anything for the `step`th time.

    Returns whether it was done before.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    counting = itertools.count()

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if next(counting) == step:
                os._exit(0)
            return function(*args, **kwargs)

        return counted

    for name in _CHANGING:
        setattr(os, name, dying(getattr(os, name)))
    function()
    os._exit(1)


def test_linked_files_survive_a_kill_between_any_two_steps(made: Made, tmp_path: Path) -> None:
    for step in itertools.count():
        here = Made(tmp_path / str(step))
        _link_below(here)
        os.link(here.bottom / "a", here.bottom / "d/e")
        with here.overlay() as overlay:
            directory = look(overlay, "d").number
            finished = _killed_at(step, functools.partial(_change_linked, overlay, directory))
        with here.overlay() as overlay:
            assert names(overlay) in (["a", "d"], ["d"], ["c", "d"])
            directory = look(overlay, "d").number
            paths = [name for name in names(overlay) if name != "d"]
            paths += [f"d/{name}" for name in names(overlay, directory)]
            assert {content(overlay, path) for path in paths} in ({b"low"}, {b"NEW"}, set())
            for path in paths:
                parent = directory if path.startswith("d/") else 1
                overlay.unlink(parent, os.fsencode(path.removeprefix("d/")))
        with here.overlay() as overlay:
            assert _copies(here) == []
            assert names(overlay) == ["d"]
        if finished:
            break
    assert step > 10


def _change_linked(overlay: Overlay, directory: int) -> None:
    overlay.unlink(directory, b"e")
    write(overlay, look(overlay, "a").number, b"NEW")
    overlay.unlink(1, b"a")
    overlay.rename(directory, b"b", 1, b"c")
    overlay.unlink(1, b"c")


def _copies(made: Made) -> list[str]:
    return [name for name in os.listdir(made.work / "links") if "lost" not in name]


def test_a_server_that_is_killed_while_it_starts_leaves_linked_files_whole(
    made: Made, tmp_path: Path
) -> None:
    def start() -> None:
        with here.overlay():
            pass

    for step in itertools.count():
        here = Made(tmp_path / str(step))
        _link_below(here)
        os.link(here.bottom / "a", here.bottom / "d/e")
        with here.overlay() as overlay:
            write(overlay, look(overlay, "a").number, b"NEW")
            overlay.unlink(1, b"a")
        finished = _killed_at(step, start)
        with here.overlay() as overlay:
            directory = look(overlay, "d").number
            assert names(overlay, directory) == ["b", "e"]
            for name in ("b", "e"):
                assert content(overlay, f"d/{name}") == b"NEW"
                overlay.unlink(directory, name.encode())
        with here.overlay():
            assert _copies(here) == []
        if finished:
            break
    assert step > 5


def test_files_that_two_layers_share_on_disk_are_not_linked_in_the_overlay(made: Made) -> None:
    fill(made.bottom, {"a": "shared"})
    os.link(made.bottom / "a", made.top / "b")
    with made.overlay() as overlay:
        write(overlay, look(overlay, "a").number, b"CHANGED")
        assert content(overlay, "b") == b"shared"
        assert look(overlay, "a").number != look(overlay, "b").number


def test_a_name_found_again_after_another_was_removed_is_the_same_file(made: Made) -> None:
    with made.overlay() as overlay:
        number = create(overlay, 1, b"a").number
        overlay.link(number, 1, b"b")
    with made.overlay() as overlay:
        number = look(overlay, "a").number
        overlay.unlink(1, b"a")  # "b" was never looked up: no known name reaches the inode
        assert overlay.getattr(number).links == 1
        overlay.setattr(number, mode=0o600)
        assert look(overlay, "b").number == number
        assert look(overlay, "b").mode == stat.S_IFREG | 0o600


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


def test_a_symlink_in_the_place_of_a_directory_is_never_followed(
    made: Made, tmp_path: Path
) -> None:
    fill(tmp_path, {"secret/file": "secret"})
    fill(made.bottom, {"low/dir/file": "low"})
    with made.overlay() as overlay:
        directory = overlay.mkdir(1, b"d", 0o755, UID, GID).number
        inner = overlay.mkdir(directory, b"e", 0o755, UID, GID).number
        low = look(overlay, "low/dir").number
        overlay._backing._descriptors._limit = 0  # forget the descriptors of directories
        overlay._tree.trim()
        (made.upper / "d/e").rmdir()
        (made.upper / "d/e").symlink_to(tmp_path / "secret")
        (made.bottom / "low/dir/file").unlink()
        (made.bottom / "low/dir").rmdir()
        (made.bottom / "low/dir").symlink_to(tmp_path / "secret")
        for attempt in (
            lambda: look(overlay, "d/e/file"),
            lambda: create(overlay, inner, b"new"),
            lambda: overlay.lookup(low, b"file"),
            lambda: names(overlay, inner),
            lambda: overlay.setattr(low, mode=0o777),
        ):
            with refused(errno.ENOTDIR, errno.ELOOP, errno.ENOENT):
                attempt()
    assert os.listdir(tmp_path / "secret") == ["file"]


def test_a_symlink_is_changed_itself_and_never_its_target(made: Made, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("target")
    (tmp_path / "target").chmod(0o644)
    before = os.stat(tmp_path / "target")
    (made.bottom / "low").symlink_to(tmp_path / "target")
    with made.overlay() as overlay:
        overlay.symlink(1, b"up", os.fsencode(tmp_path / "target"), UID, GID)
        for path in ("low", "up"):
            number = look(overlay, path).number
            with refused(errno.ENXIO):
                overlay.read(number, 0, 9)
            with refused(errno.ENXIO):
                overlay.write(number, 0, b"x")
            with refused(errno.ENXIO):
                overlay.setattr(number, size=0)
            with refused(errno.EOPNOTSUPP):
                overlay.setattr(number, mode=0o777)
            overlay.setattr(number, uid=UID, gid=GID, atime_ns=5, mtime_ns=6)
            assert overlay.getattr(number).status.st_mtime_ns == 6
    after = os.stat(tmp_path / "target")
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


def test_a_fifo_is_never_opened(made: Made) -> None:
    os.mkfifo(made.bottom / "fifo")
    with made.overlay() as overlay:
        number = look(overlay, "fifo").number
        with refused(errno.ENXIO):
            overlay.read(number, 0, 9)
        with refused(errno.ENXIO):
            overlay.write(number, 0, b"x")
        overlay.setattr(number, mode=0o622)
        assert overlay.getattr(number).mode == stat.S_IFIFO | 0o622


def test_private_attributes_are_hidden_and_refused(made: Made) -> None:
    fill(made.bottom, {"f": "low"})
    for name in ("user.overlay.origin", "user.containers.override_stat", "user.mine"):
        os.setxattr(made.bottom / "f", name, b"value")
    with made.overlay() as overlay:
        number = look(overlay, "f").number
        assert overlay.listxattr(number) == [b"user.mine"]
        with refused(errno.ENODATA):
            overlay.getxattr(number, b"user.containers.override_stat")
        with refused(errno.EPERM):
            overlay.setxattr(number, b"user.overlay.opaque", b"y")
        with refused(errno.EPERM):
            overlay.removexattr(number, b"user.overlay.origin")
        write(overlay, number, b"copied up")
        assert overlay.listxattr(number) == [b"user.mine"]
    assert "user.overlay.origin" not in os.listxattr(made.upper / "f")


def test_names_of_whiteouts_cannot_be_made(made: Made) -> None:
    with made.overlay() as overlay:
        number = overlay.mkdir(1, b"d", 0o755, UID, GID).number
        with refused(errno.EINVAL):
            create(overlay, number, b".wh..wh..opq")
        with refused(errno.EINVAL):
            overlay.rename(1, b"d", 1, b".wh.d")
        with refused(errno.EPERM):
            overlay.mknod(1, b"w", stat.S_IFCHR, 0, UID, GID)


def test_a_work_directory_serves_one_overlay_at_a_time(made: Made) -> None:
    with made.overlay(), refused(errno.EBUSY), made.overlay():
        pass


def test_what_a_killed_server_left_in_the_work_directory_is_removed(made: Made) -> None:
    fill(made.work, {"work/1": "half a copy", "work/2/deep/er": "", "work/2/link": "-> /"})
    (made.work / "work").chmod(0)
    with made.overlay():
        assert os.listdir(made.work / "work") == []


def test_removing_a_lower_file_copies_nothing(made: Made) -> None:
    with (made.bottom / "big").open("w") as file:
        file.truncate(1 << 40)
    fill(made.bottom, {"d/f": ""})
    with made.overlay() as overlay:
        overlay.unlink(1, b"big")
        overlay.unlink(look(overlay, "d").number, b"f")
        overlay.rmdir(1, b"d")
    assert sorted(os.listdir(made.upper)) == ["big", "d"]
    for name in ("big", "d"):
        status = os.lstat(made.upper / name)
        assert (stat.S_ISCHR(status.st_mode), status.st_rdev) == (True, 0)


def test_truncating_a_lower_file_copies_only_what_stays(made: Made) -> None:
    (made.bottom / "big").write_bytes(b"x" * (1 << 20))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with made.overlay() as overlay:
        number = look(overlay, "big").number
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, limits[1]))
        try:
            overlay.setattr(number, size=1000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert content(overlay, "big") == b"x" * 1000


def test_a_copy_up_that_fails_leaves_nothing(made: Made) -> None:
    (made.bottom / "big").write_bytes(b"x" * (1 << 20))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with made.overlay() as overlay:
        number = look(overlay, "big").number
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, limits[1]))
        try:
            with refused(errno.EFBIG):
                overlay.write(number, 0, b"x")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert os.listdir(made.upper) == []
        assert os.listdir(made.work / "work") == []
        write(overlay, number, b"now")
        assert content(overlay, "big")[:4] == b"nowx"


def test_copy_up_keeps_holes(made: Made) -> None:
    with (made.bottom / "sparse").open("wb") as file:
        file.seek(100 << 20)
        file.write(b"middle")
        file.truncate(1 << 30)
    with made.overlay() as overlay:
        number = look(overlay, "sparse").number
        write(overlay, number, b"start")
        attributes = overlay.getattr(number)
        assert attributes.status.st_size == 1 << 30
        assert attributes.status.st_blocks * 512 < 1 << 20
        assert overlay.read(number, 100 << 20, 7) == b"middle\0"


def test_an_open_file_goes_on_with_the_copy(made: Made) -> None:
    fill(made.bottom, {"f": "lower text"})
    with made.overlay() as overlay:
        number = look(overlay, "f").number
        write(overlay, number, b"UPPER")
        assert overlay.read(number, 0, 99) == b"UPPER text"


@pytest.mark.parametrize("layer", ["bottom", "upper"])
def test_an_unlinked_open_file_stays_usable(made: Made, layer: str) -> None:
    fill(getattr(made, layer), {"f": "some text"})
    with made.overlay() as overlay:
        number = look(overlay, "f").number
        overlay.unlink(1, b"f")
        assert overlay.getattr(number).links == 0
        assert overlay.read(number, 0, 99) == b"some text"
        assert overlay.setattr(number, mode=0o640).mode == stat.S_IFREG | 0o640
        overlay.write(number, 0, b"SOME")
        assert overlay.setattr(number, size=6).status.st_size == 6
        assert overlay.read(number, 0, 99) == b"SOME t"
        overlay.setxattr(number, b"user.x", b"x")
        assert overlay.getattr(number).links == 0
        assert overlay.lookup(1, b"f") is None
        overlay.forget(number, 1)
        assert len(overlay._inodes) == 1
    if layer == "upper":
        assert os.listdir(made.upper) == []


def test_a_listing_skips_what_was_removed_and_shows_nothing_twice(made: Made) -> None:
    fill(made.bottom, {f"f{i}": "" for i in range(20)})
    with made.overlay() as overlay:
        entries = overlay.readdir(1, 0)
        first = [next(entries) for _ in range(8)]
        entries.close()  # type: ignore[attr-defined]
        gone = {f"f{i}".encode() for i in range(0, 20, 2)}
        for name in gone:
            overlay.unlink(1, name)
        rest = [entry[0] for entry in overlay.readdir(1, first[-1][2])]
        seen = [entry[0] for entry in first] + rest
        assert len(seen) == len(set(seen))
        assert {f"f{i}".encode() for i in range(1, 20, 2)} <= set(seen)
        assert not gone & set(rest)
        assert len(list(overlay.readdir(1, 0))) == 12


@in_namespace
def test_copy_up_keeps_owner_mode_times_and_attributes_of_every_type(tmp_path: Path) -> None:
    made = Made(tmp_path)
    fill(made.bottom, {"d/file": "text", "d/link": "-> nowhere"})
    os.mkfifo(made.bottom / "d/fifo")
    os.setxattr(made.bottom / "d/file", "user.x", b"x")
    os.setxattr(made.bottom / "d/file", "security.capability", _CAPABILITY)
    for index, name in enumerate(("d/file", "d/link", "d/fifo", "d")):
        os.chown(made.bottom / name, 100 + index, 200 + index, follow_symlinks=False)
        if name != "d/link":
            os.chmod(made.bottom / name, 0o4750 if name != "d/file" else 0o640)
        os.utime(made.bottom / name, ns=(123456789, 987654321 + index), follow_symlinks=False)
    os.setxattr(made.bottom / "d/file", "security.capability", _CAPABILITY)
    os.utime(made.bottom / "d/file", ns=(123456789, 987654321))
    before = tree(made.bottom)
    with made.overlay() as overlay:
        for name in ("file", "link", "fifo"):
            inode = overlay._inode(look(overlay, f"d/{name}").number)
            _patient(overlay._writer().copier.copy_up)(inode)
    after = tree(made.upper)
    assert {name: after[name] for name in before if name != "."} == {
        name: before[name] for name in before if name != "."
    }


_CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""cap_net_bind_service, permitted and effective."""


@in_namespace
def test_new_files_belong_to_the_caller_and_to_the_group_of_a_setgid_directory(
    tmp_path: Path,
) -> None:
    made = Made(tmp_path)
    with made.overlay() as overlay:
        directory = overlay.mkdir(1, b"d", 0o2777, 5, 6).number
        assert overlay.getattr(directory)[1:5] == (stat.S_IFDIR | 0o2777, 2, 5, 6)
        file = overlay.mknod(directory, b"f", stat.S_IFREG | 0o4755, 0, 7, 8)
        assert (file.mode, file.uid, file.gid) == (stat.S_IFREG | 0o4755, 7, 6)
        inner = overlay.mkdir(directory, b"e", 0o700, 7, 8)
        assert (inner.mode, inner.uid, inner.gid) == (stat.S_IFDIR | 0o2700, 7, 6)
        link = overlay.symlink(directory, b"l", b"x", 7, 8)
        assert (link.uid, link.gid) == (7, 6)
        fifo = overlay.mknod(1, b"p", stat.S_IFIFO | 0o666, 0, 7, 8)
        assert (fifo.mode, fifo.uid, fifo.gid) == (stat.S_IFIFO | 0o666, 7, 8)
    status = os.lstat(made.upper / "d/f")
    assert (status.st_mode, status.st_uid, status.st_gid) == (stat.S_IFREG | 0o4755, 7, 6)


def test_copy_up_is_no_change_of_the_directory(made: Made) -> None:
    fill(made.bottom, {"d/f": "low"})
    os.utime(made.bottom / "d", ns=(5, 6))
    with made.overlay() as overlay:
        write(overlay, look(overlay, "d/f").number, b"x")
        assert look(overlay, "d").status.st_mtime_ns == 6


def test_a_lower_file_changed_without_a_known_name_keeps_its_other_ones(made: Made) -> None:
    fill(made.bottom, {"a": "low"})
    os.link(made.bottom / "a", made.bottom / "b")
    with made.overlay() as overlay:
        number = look(overlay, "a").number
        overlay.unlink(1, b"a")
        overlay.write(number, 0, b"NEW")
        assert overlay.getattr(number).links == 1
        assert look(overlay, "b").number == number
        assert content(overlay, "b") == b"NEW"
    with made.overlay() as overlay:
        assert names(overlay) == ["b"]
        assert content(overlay, "b") == b"NEW"


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


def test_a_directory_with_the_name_of_a_whiteout_hides_only_that_name(made: Made) -> None:
    fill(made.bottom, {"hidden": "low", "shown": "low"})
    fill(made.upper, {".wh.hidden/x": ""})
    for _ in range(2):
        with made.overlay() as overlay:
            assert names(overlay) == ["shown"]


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
