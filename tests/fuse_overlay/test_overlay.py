"""The overlay without a mount: its operations, called as the protocol calls them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fuse_overlay.overlay import Overlay
from tests.fuse_overlay.made import GID, UID, Made, content, create, look, names, refused, write
from tests.fuse_overlay.support import fill, in_namespace, whiteout


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


def test_a_directory_with_the_name_of_a_whiteout_hides_only_that_name(made: Made) -> None:
    fill(made.bottom, {"hidden": "low", "shown": "low"})
    fill(made.upper, {".wh.hidden/x": ""})
    for _ in range(2):
        with made.overlay() as overlay:
            assert names(overlay) == ["shown"]
