"""Our overlay beside the kernel's: the same operations, the same layers, each other's uppers."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fuse_overlay.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2
from tests.fuse_overlay.support import (
    fill,
    in_namespace,
    kernel_mounted,
    layers,
    mounted,
    tree,
    whiteout,
)

pytestmark = pytest.mark.usefixtures("either_server")

Operation = Callable[[Path], object]


def _write(name: str, text: str, mode: str = "w") -> Operation:
    def operation(root: Path) -> object:
        with (root / name).open(mode) as file:
            return file.write(text)

    return operation


def _rename(old: str, new: str, flags: int = 0) -> Operation:
    def operation(root: Path) -> None:
        top = os.open(root, os.O_RDONLY)
        try:
            renameat2(top, old.encode(), top, new.encode(), flags)
        finally:
            os.close(top)

    return operation


def _open_unlinked(root: Path) -> object:
    path = root / "held"
    path.write_text("held")
    fd = os.open(path, os.O_RDWR)
    path.unlink()
    os.write(fd, b"HE")
    os.fchmod(fd, 0o600)
    result = (os.pread(fd, 9, 0), os.fstat(fd).st_nlink, oct(os.fstat(fd).st_mode))
    os.close(fd)
    return result


def _read_open_lower_after_unlink(root: Path) -> object:
    fd = os.open(root / "b/lower-open", os.O_RDONLY)
    os.unlink(root / "b/lower-open")
    result = os.pread(fd, 99, 0)  # the link count is 1 still under the kernel's, and 0 under ours
    os.close(fd)
    return result


def _over_an_empty_one(root: Path) -> None:
    (root / "mt").mkdir()
    os.rename(root / "up2", root / "mt")


def _remove_directory(root: Path) -> object:
    (root / "rm").mkdir()
    fd = os.open(root / "rm", os.O_RDONLY)
    (root / "rm").rmdir()
    result = os.fstat(fd).st_nlink, os.listdir(fd)
    os.close(fd)
    return result


def _as_user(uid: int, operation: Operation) -> Operation:
    """Run an operation with the rights of another user."""

    def wrapped(root: Path) -> object:
        libc = ctypes.CDLL(None)
        libc.setfsgid(uid)
        libc.setfsuid(uid)
        try:
            return operation(root)
        finally:
            libc.setfsuid(0)
            libc.setfsgid(0)

    return wrapped


def _copy_range(source: str, target: str) -> Operation:
    def operation(root: Path) -> object:
        with (root / source).open("rb") as reader, (root / target).open("r+b") as writer:
            return os.copy_file_range(reader.fileno(), writer.fileno(), 3)

    return operation


def _allocate(name: str) -> Operation:
    def operation(root: Path) -> None:
        with (root / name).open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, 5000)

    return operation


def _remove_acl(name: str) -> Operation:
    return lambda root: os.removexattr(root / name, "system.posix_acl_access")


OPERATIONS: list[tuple[str, Operation]] = [
    ("read a lower file", lambda r: (r / "a").read_text()),
    ("append to a lower file", _write("a", "more", "a")),
    ("truncate a lower file on open", _write("b/one", "short")),
    ("make a file", _write("new", "new")),
    ("make a file that exists", lambda r: os.open(r / "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
    ("truncate by name", lambda r: os.truncate(r / "b/two", 3)),
    ("extend by name", lambda r: os.truncate(r / "b/three", 9999)),
    ("chmod a lower file", lambda r: os.chmod(r / "b/mode", 0o4711)),
    ("write to a setuid file as its owner", _write("b/mode", "x", "a")),
    ("chown a lower file", lambda r: os.chown(r / "b/owner", 12, 34)),
    ("chown a setuid file", lambda r: os.chown(r / "b/setuid", 5, 6)),
    ("chown a setuid file to nobody else", lambda r: os.chown(r / "b/setuid2", -1, -1)),
    ("write to a setuid file as another user", _as_user(77, _write("b/open-setuid", "x", "a"))),
    ("truncate one", _as_user(77, lambda r: os.truncate(r / "b/open-setuid2", 1))),
    ("copy into a setuid file", _as_user(77, _copy_range("a", "b/open-setuid3"))),
    ("allocate in a setuid file", _as_user(77, _allocate("b/open-setuid4"))),
    ("a time before 1970", lambda r: os.utime(r / "b/mode", ns=(-(10**18) + 1, -(10**17) + 5))),
    ("and what it is", lambda r: (r / "b/mode").stat().st_mtime_ns),
    ("chmod a lower directory", lambda r: os.chmod(r / "both", 0o2775)),
    ("make a file in a setgid directory", _write("both/in-setgid", "")),
    ("make a directory there", lambda r: (r / "both/sub-setgid").mkdir()),
    ("chown a lower symlink", lambda r: os.lchown(r / "link", 7, 8)),
    ("readlink after it", lambda r: os.readlink(r / "link")),
    ("make a symlink", lambda r: (r / "dangling").symlink_to("nowhere")),
    ("write through a symlink", _write("link", "through")),
    ("make a FIFO", lambda r: os.mkfifo(r / "fifo", 0o640)),
    ("make a socket", lambda r: os.mknod(r / "socket", 0o600 | stat.S_IFSOCK)),
    ("chmod a lower FIFO", lambda r: os.chmod(r / "lower-fifo", 0o600)),
    ("make a device", lambda r: os.mknod(r / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))),
    ("make a whiteout", lambda r: os.mknod(r / "white", stat.S_IFCHR, 0)),
    ("unlink a lower file", lambda r: (r / "b/gone").unlink()),
    ("unlink it again", lambda r: (r / "b/gone").unlink()),
    ("make it again", _write("b/gone", "back")),
    ("unlink it once more", lambda r: (r / "b/gone").unlink()),
    ("make a directory in its place", lambda r: (r / "b/gone").mkdir()),
    ("unlink a directory", lambda r: os.unlink(r / "both")),
    ("rmdir a file", lambda r: os.rmdir(r / "a")),
    ("rmdir a full merged directory", lambda r: os.rmdir(r / "both")),
    ("remove a merged directory", lambda r: shutil.rmtree(r / "both")),
    ("make it anew, empty", lambda r: (r / "both").mkdir()),
    ("list it", lambda r: sorted(os.listdir(r / "both"))),
    ("make what a lower one had", _write("both/x", "other x")),
    ("remove a directory that holds only whiteouts", lambda r: os.rmdir(r / "hollow")),
    ("a directory over a removed file", lambda r: (r / "was-file").mkdir()),
    ("rename a lower file", lambda r: os.rename(r / "b/move", r / "moved")),
    ("rename over a lower file", lambda r: os.rename(r / "moved", r / "b/target")),
    ("rename an upper file over nothing", lambda r: os.rename(r / "new", r / "newer")),
    ("rename to a removed name", lambda r: os.rename(r / "newer", r / "b/move")),
    ("rename without replacing", _rename("a", "b/move", RENAME_NOREPLACE)),
    ("rename without replacing, free", _rename("a", "free", RENAME_NOREPLACE)),
    ("exchange files", _rename("free", "b/move", RENAME_EXCHANGE)),
    ("exchange with nothing", _rename("free", "nothing", RENAME_EXCHANGE)),
    ("make a directory with files", lambda r: os.makedirs(r / "up/deep/er")),
    ("and a file in it", _write("up/deep/er/file", "file")),
    ("rename an upper directory", lambda r: os.rename(r / "up", r / "up2")),
    ("rename it over an empty one", _over_an_empty_one),
    ("rename it over a removed lower one", lambda r: os.rename(r / "mt", r / "hollow")),
    ("and look into it", lambda r: sorted(os.listdir(r / "hollow"))),
    ("rename a directory over a full one", lambda r: os.rename(r / "hollow", r / "b")),
    ("rename a file over a directory", lambda r: os.rename(r / "free", r / "b")),
    ("exchange file and directory", _rename("free", "hollow", RENAME_EXCHANGE)),
    ("link a file", lambda r: os.link(r / "b/two", r / "two-again")),
    ("write through the link", _write("two-again", "linked", "a")),
    ("read the other name", lambda r: (r / "b/two").read_text()),
    ("unlink one", lambda r: (r / "b/two").unlink()),
    ("link to a removed name", lambda r: os.link(r / "two-again", r / "b/two")),
    ("set an attribute", lambda r: os.setxattr(r / "b/three", "user.mine", b"value")),
    ("create it again", lambda r: os.setxattr(r / "b/three", "user.mine", b"", os.XATTR_CREATE)),
    ("replace a missing one", lambda r: os.setxattr(r / "a", "user.no", b"", os.XATTR_REPLACE)),
    ("get a lower attribute", lambda r: os.getxattr(r / "b/attr", "user.lower")),
    ("remove a lower attribute", lambda r: os.removexattr(r / "b/attr", "user.lower")),
    ("get a missing attribute", lambda r: os.getxattr(r / "b/attr", "user.lower")),
    ("list the attributes of the root", os.listxattr),
    ("remove an ACL from an upper file without one", _remove_acl("a")),
    ("remove an ACL from a lower file without one", _remove_acl("b/lower-open")),
    ("an unlinked open file", _open_unlinked),
    ("an unlinked open lower file", _read_open_lower_after_unlink),
    ("set times", lambda r: os.utime(r / "b/one", ns=(10**9 + 1, 2 * 10**9 + 2))),
    ("times", lambda r: (r / "b/one").stat().st_mtime_ns),
    ("a name of 255 bytes", _write("n" * 255, "long")),
    ("a name of 256 bytes", _write("n" * 256, "long")),
    ("look one up", lambda r: (r / ("n" * 256)).stat()),
    ("a name that is not UTF-8", lambda r: os.mkdir(os.fsencode(r) + b"/\xff\xfe")),
    ("a removed directory", _remove_directory),
    ("statfs", lambda r: (os.statvfs(r).f_namemax, os.statvfs(r).f_blocks, os.statvfs(r).f_bsize)),
]


def _make_layers(directory: Path) -> list[Path]:
    top, bottom = layers(directory, "top", "bottom")
    fill(
        top,
        {
            "a": "top a",
            "both/x": "top x",
            "both/deep/y": "top y",
            "hollow/": "",
            "link": "-> b/one",
        },
    )
    fill(
        bottom,
        {"a": "bottom a", "both/x": "bottom x", "both/z": "bottom z", "both/deep/q": "q"}
        | {"hollow/h1": "h1", "hollow/h2": "h2", "was-file": "file", "opaque/hidden": "hidden"}
        | {f"b/{name}": f"lower {name} " * 50 for name in "one two three mode owner gone".split()}
        | {f"b/{name}": name for name in "move target attr setuid setuid2 lower-open".split()}
        | {f"b/open-setuid{number}": "abc" for number in ("", 2, 3, 4)},
    )
    os.mkfifo(bottom / "lower-fifo")
    for name in ("setuid", "setuid2"):
        (bottom / "b" / name).chmod(0o6755)
    for number in ("", 2, 3, 4):
        (bottom / f"b/open-setuid{number}").chmod(0o6777)
    os.setxattr(bottom / "b/attr", "user.lower", b"attribute")
    whiteout(top / "hollow/h1")
    whiteout(top / "hollow/h2")
    whiteout(top / "was-file")
    (top / "opaque").mkdir()
    (top / "opaque/shown").write_text("shown")
    os.setxattr(top / "opaque", "user.overlay.opaque", b"y")
    return [top, bottom]


def _outcome(operation: Operation, root: Path) -> object:
    try:
        result = operation(root)
    except OSError as error:
        return f"errno {error.errno}"
    return None if isinstance(result, int) else result


@in_namespace
def test_every_operation_does_what_the_kernels_overlayfs_does(tmp_path: Path) -> None:
    lowers = _make_layers(tmp_path)
    upper, work, kernel_upper, kernel_work = layers(tmp_path, "u", "w", "ku", "kw")
    for root in (upper, kernel_upper):
        os.utime(root, ns=(1, 2))
    os.umask(0o22)
    with (
        mounted(lowers, upper, work, tmp_path / "ours") as ours,
        kernel_mounted(lowers, kernel_upper, kernel_work, tmp_path / "kernel") as kernel,
    ):
        assert tree(ours) == tree(kernel)
        for name, operation in OPERATIONS:
            expected, found = _outcome(operation, kernel), _outcome(operation, ours)
            assert (name, found) == (name, expected)
            assert (name, tree(ours, times=False)) == (name, tree(kernel, times=False))
        before = tree(ours), tree(kernel)
    with (
        mounted(lowers, upper, work, tmp_path / "ours") as ours,
        kernel_mounted(lowers, kernel_upper, kernel_work, tmp_path / "kernel") as kernel,
    ):
        assert (tree(ours), tree(kernel)) == before
    with (  # each other's upper
        mounted(lowers, kernel_upper, kernel_work, tmp_path / "ours") as ours,
        kernel_mounted(lowers, upper, work, tmp_path / "kernel") as kernel,
    ):
        assert (tree(kernel), tree(ours)) == before


@in_namespace
def test_renamed_lower_directories_are_the_same_under_the_kernels_overlayfs(tmp_path: Path) -> None:
    lowers = _make_layers(tmp_path)
    upper, work = layers(tmp_path, "u", "w")
    with mounted(lowers, upper, work, tmp_path / "ours") as ours:
        (ours / "both/x").unlink()
        os.rename(ours / "both", ours / "elsewhere")
        os.rename(ours / "b", ours / "both")
        os.rename(ours / "elsewhere", ours / "both/inner")
        (ours / "both/inner/x").write_text("anew")
        before = tree(ours)
        assert sorted(os.listdir(ours / "both/inner")) == ["deep", "x", "z"]
        assert sorted(os.listdir(ours / "both/inner/deep")) == ["q", "y"]
        assert not (ours / "b").exists()
    with kernel_mounted(lowers, upper, work, tmp_path / "kernel") as kernel:
        assert tree(kernel) == before
