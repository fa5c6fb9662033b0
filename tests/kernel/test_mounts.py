"""Paths inside a root, and options as mount(8) spells them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.kernel import mounts, syscalls


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    directory = tmp_path / "root"
    directory.mkdir()
    (tmp_path / "outside").mkdir()
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def kind(fd: int) -> int:
    try:
        return stat.S_IFMT(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def test_target_is_made_with_its_parents(root: int, tmp_path: Path) -> None:
    assert kind(mounts.make_target(root, "/a/b/c", directory=True)) == stat.S_IFDIR
    assert kind(mounts.make_target(root, "/a/b/f", directory=False)) == stat.S_IFREG
    assert (tmp_path / "root/a/b/c").is_dir()
    assert (tmp_path / "root/a/b/f").is_file()
    # What is there is taken as it is.
    assert kind(mounts.make_target(root, "/a/b/f", directory=False)) == stat.S_IFREG


@pytest.mark.parametrize(
    ("target", "directory", "number"),
    [("/file", True, errno.ENOTDIR), ("/dir", False, errno.EISDIR)],
)
def test_target_of_the_wrong_kind_is_refused(
    root: int, tmp_path: Path, target: str, directory: bool, number: int
) -> None:
    (tmp_path / "root/file").touch()
    (tmp_path / "root/dir").mkdir()
    with pytest.raises(OSError, match=r".+") as raised:
        mounts.make_target(root, target, directory)
    assert raised.value.errno == number


@pytest.mark.parametrize("link", ["../outside", "/outside", "../../../../outside"])
@pytest.mark.parametrize("target", ["/link", "/link/below"])
def test_links_cannot_lead_out_of_the_root(
    root: int, tmp_path: Path, link: str, target: str
) -> None:
    (tmp_path / "root/link").symlink_to(link)
    with pytest.raises(OSError, match="leads nowhere"):
        mounts.make_target(root, target, directory=True)
    # As seen from inside the root, the link is a good one.
    (tmp_path / "root/outside").mkdir()
    assert kind(mounts.make_target(root, target, directory=True)) == stat.S_IFDIR
    assert list((tmp_path / "outside").iterdir()) == []


def test_links_of_proc_are_not_followed(root: int) -> None:
    host = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match=r".+") as raised:
            mounts.open_in_root(host, "/proc/self/cwd")
        assert raised.value.errno == errno.ELOOP
    finally:
        os.close(host)


def test_options_are_sorted_by_what_the_kernel_wants() -> None:
    found = mounts.parse_options(("rbind", "ro", "nosuid", "rslave", "size=1m", "mode=700", "rw"))
    assert found.flags == syscalls.MS_RDONLY | syscalls.MS_NOSUID
    assert found.attributes == syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID
    assert found.data == "size=1m,mode=700"
    assert found.propagation == syscalls.MS_SLAVE
    assert found.recursive
    assert mounts.parse_options(()).propagation == syscalls.MS_PRIVATE
    assert mounts.parse_options(("noatime", "dirsync", "defaults")).data == ""


def test_path_is_tried_again_if_the_kernel_was_disturbed(
    root: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It gives up at a ".." if anything on the machine is renamed or mounted meanwhile.
    real, refusals = syscalls.openat2, iter(range(100))

    def disturbed(*arguments: int) -> int:
        if next(refusals, None) is not None:
            raise BlockingIOError
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(syscalls, "openat2", disturbed)
    assert kind(mounts.open_in_root(root, "/.")) == stat.S_IFDIR
