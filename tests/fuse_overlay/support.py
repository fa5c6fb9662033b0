"""What these tests share: a user namespace to be root in, real mounts, a tree as one value.

Every mount is made in a mount namespace of its own, which ends with the test.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import os
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import PATIENCE

_CLONE_NEWNS = 0x20000
_CLONE_NEWUSER = 0x10000000

MOUNT_OPTIONS = "RL_TEST_MOUNT_OPTIONS"
"""The environment variable for options that every mount of ours is to have."""

either_server = pytest.mark.usefixtures("either_server")
"""The mark of a test that both servers have to pass."""

_libc = ctypes.CDLL(None, use_errno=True)
_holder: subprocess.Popen[bytes] | None = None


def in_namespace(function: Callable[..., None]) -> Callable[..., None]:
    """Run a test as root of a user namespace that has the user's subordinate ids.

    It runs in a forked process with a mount namespace of its own.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        namespace = _user_namespace()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _enter(namespace)
                try:
                    function(*args, **kwargs)
                finally:  # what belongs to other ids, only this namespace's root can remove
                    remove(kwargs["tmp_path"])
            except BaseException:
                text = traceback.format_exc().encode()
                os.write(writer, text[:20000] + text[20000:][-40000:])
                os._exit(1)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, errors="replace") as output:
            report = output.read()
        _, status = os.waitpid(child, 0)
        if status:
            pytest.fail(report or f"the process ended with status {status}", pytrace=False)

    return wrapper


def _user_namespace() -> str:
    """The path of a user namespace that lives as long as the tests."""
    global _holder
    if _holder is None:
        _holder = subprocess.Popen(
            ["unshare", "--map-root-user", "--map-auto", "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert _holder.stdin
        assert _holder.stdout
        _holder.stdin.write(b"\n")
        _holder.stdin.flush()
        assert _holder.stdout.read(1) == b"\n"  # cat runs, so its namespace is complete
    return f"/proc/{_holder.pid}/ns/user"


def close_user_namespace() -> None:
    """Let the user namespace go, at the end of all tests."""
    if _holder is not None:
        _holder.communicate()


def remove(directory: Path) -> None:
    """Remove a tree of any depth, with directories that nobody may read."""
    subprocess.run(["rm", "-rf", *directory.iterdir()], check=True)


def _enter(namespace: str) -> None:
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    for result in (
        _libc.setns(fd, _CLONE_NEWUSER),
        _libc.setresgid(0, 0, 0),
        _libc.setresuid(0, 0, 0),
        _libc.unshare(_CLONE_NEWNS),
    ):
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.close(fd)


def layers(directory: Path, *names: str) -> list[Path]:
    """Make directories."""
    made = [directory / name for name in names]
    for path in made:
        path.mkdir(parents=True)
    return made


def low_upper_work(directory: Path) -> tuple[Path, Path, Path]:
    """Make the directories of an overlay with one lower layer."""
    low, upper, work = layers(directory, "low", "upper", "work")
    return low, upper, work


def mount_options(lowers: Sequence[Path], upper: Path | None, work: Path | None) -> str:
    """Write the options that name the layers."""
    options = "lowerdir=" + ":".join(str(path) for path in lowers)
    return options + (f",upperdir={upper},workdir={work}" if upper else "")


@contextmanager
def mounted(
    lowers: Sequence[Path], upper: Path | None, work: Path | None, at: Path, extra: str = ""
) -> Iterator[Path]:
    """Mount our overlay, in a user namespace; wait at the end until the server is gone."""
    at.mkdir(exist_ok=True)
    options = [mount_options(lowers, upper, work) + extra, os.environ.get(MOUNT_OPTIONS, "")]
    command = [sys.executable, "-m", "fuse_overlay", "-o", ",".join(options), str(at)]
    subprocess.run(command, check=True, timeout=PATIENCE)
    try:
        yield at
    finally:
        unmount(at)
        if work:
            wait_for_server(work)


@contextmanager
def kernel_mounted(lowers: Sequence[Path], upper: Path, work: Path, at: Path) -> Iterator[Path]:
    """Mount the kernel's overlayfs, in a user namespace."""
    at.mkdir(exist_ok=True)
    options = mount_options(lowers, upper, work) + ",userxattr"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(at)], check=True)
    try:
        yield at
    finally:
        unmount(at)


def unmount(at: Path) -> None:
    """Unmount, as soon as the last process has left; at once when that takes too long."""
    deadline = time.monotonic() + PATIENCE
    while subprocess.run(["umount", str(at)], capture_output=True, check=False).returncode != 0:
        if time.monotonic() > deadline:
            subprocess.run(["umount", "-l", str(at)], check=True)
            pytest.fail(f"something keeps {at} busy")
        time.sleep(0.05)


def wait_for_server(work: Path) -> None:
    """Wait until no server holds a work directory."""
    fd = os.open(work / "work", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.close(fd)


def fill(directory: Path, content: Mapping[str, str]) -> None:
    """Make files: `{"d/": "", "d/file": "content", "d/link": "-> target"}`."""
    for name, text in content.items():
        path = directory / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text[3:])
        else:
            path.write_text(text)


def whiteout(path: Path) -> None:
    """Make a whiteout."""
    os.mknod(path, stat.S_IFCHR, 0)


def tree(root: Path, *, times: bool = True) -> dict[str, tuple[object, ...]]:
    """All that can be seen of a tree: type, mode, owner, links, size, time, attributes, content.

    Of directories neither the link count nor the size, on which no two file systems agree.
    """
    found: dict[str, tuple[object, ...]] = {}
    for directory, directories, files in os.walk(root):
        for name in (
            [*directories, *files] if directory != str(root) else [".", *directories, *files]
        ):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            is_directory = stat.S_ISDIR(status.st_mode)
            content = ""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[os.path.relpath(path, root)] = (
                oct(status.st_mode),
                status.st_uid,
                status.st_gid,
                0 if is_directory else status.st_nlink,
                0 if is_directory else status.st_size,
                status.st_mtime_ns if times else 0,
                content,
                tuple(
                    (key, os.getxattr(path, key, follow_symlinks=False))
                    for key in sorted(os.listxattr(path, follow_symlinks=False))
                    if not key.startswith("user.overlay.")
                ),
            )
    return found
