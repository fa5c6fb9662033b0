"""What a local file system offers beyond reading and writing, on a real mount."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.fuse_overlay.operations import CAPABILITY
from tests.fuse_overlay.support import fill, in_namespace, layers, mounted

_PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)


def _layers(directory: Path) -> tuple[Path, Path, Path]:
    low, upper, work = layers(directory, "low", "upper", "work")
    return low, upper, work


def _as_user(uid: int, command: list[str], directory: Path) -> int:
    """Run a command as another user in a directory, whoever may enter what is above it."""
    child = os.fork()
    if child == 0:
        os.chdir(directory)
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        os.execvp(command[0], command)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@in_namespace
def test_a_file_without_a_name_gets_one_by_linkat(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    fill(low, {"d/f": ""})
    with mounted([low], upper, work, tmp_path / "m") as m:
        directory = os.open(m / "d", os.O_RDONLY)
        fd = os.open(m / "d", os.O_TMPFILE | os.O_RDWR, 0o640)
        os.write(fd, b"text")
        assert os.listdir(m / "d") == ["f"]
        assert os.fstat(fd).st_nlink == 0
        os.link(f"/proc/self/fd/{fd}", "g", dst_dir_fd=directory)
        assert os.fstat(fd).st_nlink == 1
        assert os.stat(m / "d/g").st_ino == os.fstat(fd).st_ino
        os.write(fd, b" more")
        os.close(fd)
        os.close(directory)
        os.close(os.open(m, os.O_TMPFILE | os.O_RDWR, 0o600))
    with mounted([low], upper, work, tmp_path / "m") as m:
        assert sorted(os.listdir(m / "d")) == ["f", "g"]
        assert (m / "d/g").read_text() == "text more"
        assert os.listdir(m) == ["d"]


@in_namespace
def test_space_is_reserved_and_holes_are_punched(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    (low / "f").write_bytes(b"x" * 100 * _PAGE)
    with mounted([low], upper, work, tmp_path / "m") as m:
        with open(m / "new", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 1 << 20)
        assert (m / "new").stat().st_size == 1 << 20
        assert (upper / "new").stat().st_blocks >= 2048
        hole = ["-o", str(10 * _PAGE), "-l", str(80 * _PAGE)]
        subprocess.run(["fallocate", "--punch-hole", *hole, m / "f"], check=True)
        more = ["-o", str(100 * _PAGE), "-l", "4M"]
        subprocess.run(["fallocate", "--keep-size", *more, m / "f"], check=True)
        expected = b"x" * 10 * _PAGE + bytes(80 * _PAGE) + b"x" * 10 * _PAGE
        assert (m / "f").read_bytes() == expected
        with open(upper / "f", "rb") as file:
            assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 10 * _PAGE
        assert (low / "f").read_bytes() == b"x" * 100 * _PAGE


@in_namespace
def test_copy_file_range_copies_between_layers(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    content = os.urandom(300_000)
    (low / "source").write_bytes(content)
    (low / "target").write_bytes(b"t" * 300_000)
    with (
        mounted([low], upper, work, tmp_path / "m") as m,
        open(m / "source", "rb") as source,
        open(m / "target", "r+b") as target,
    ):
        os.pwrite(target.fileno(), b"first", 0)  # may wait in the kernel
        done = 0
        while done < 200_000:
            done += os.copy_file_range(
                source.fileno(), target.fileno(), 200_000 - done, 1000 + done, 50_000 + done
            )
        expected = bytearray(b"first" + b"t" * 299_995)
        expected[50_000:250_000] = content[1000:201_000]
        assert (m / "target").read_bytes() == expected
        assert not (upper / "source").exists()


@in_namespace
def test_holes_are_found_without_the_writeback_cache(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    with (low / "f").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"x" * _PAGE)
        file.truncate(3 << 20)
    with mounted([low], upper, work, tmp_path / "m", ",writeback=0") as m:
        for copied in (False, True):
            if copied:
                (m / "f").chmod(0o600)
            with open(m / "f", "rb") as file:
                assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 1 << 20
                assert os.lseek(file.fileno(), 1 << 20, os.SEEK_HOLE) == (1 << 20) + _PAGE
                with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is the point
                    os.lseek(file.fileno(), 2 << 20, os.SEEK_DATA)
                assert caught.value.errno == errno.ENXIO
        with open(m / "f", "r+b") as file:
            os.pwrite(file.fileno(), b"y", 2 << 20)
            assert os.lseek(file.fileno(), (1 << 20) + _PAGE, os.SEEK_DATA) == 2 << 20


@in_namespace
def test_a_default_acl_takes_the_place_of_the_umask(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    fill(low, {"acl/": "", "plain/": ""})
    os.umask(0o027)
    with mounted([low], upper, work, tmp_path / "m") as m:
        subprocess.run(["setfacl", "-d", "-m", "u::rwx,g::rwx,o::rwx", m / "acl"], check=True)
        for directory, masked in (("acl", 0), ("plain", 0o027)):
            (m / directory / "f").touch(0o666)
            (m / directory / "d").mkdir(0o777)
            os.mkfifo(m / directory / "p", 0o666)
            os.close(os.open(m / directory / "x", os.O_CREAT | os.O_RDWR, 0o777))
            for name, asked in (("f", 0o666), ("d", 0o777), ("p", 0o666), ("x", 0o777)):
                mode = stat.S_IMODE((m / directory / name).stat().st_mode)
                assert mode == asked & ~masked, f"{directory}/{name}"


@in_namespace
def test_inode_numbers_survive_copy_up_and_a_remount(tmp_path: Path) -> None:
    one, two, upper, work = layers(tmp_path, "one", "two", "upper", "work")
    fill(one, {"d/f1": "1", "d/sub/f2": "2", "only/f3": "3"})
    fill(two, {"d/f4": "4", "d/sub/f5": "5", "other/f6": "6"})
    names = "d d/f1 d/sub d/sub/f2 only only/f3 d/f4 d/sub/f5 other other/f6".split()

    def numbers(root: Path) -> dict[str, int]:
        found = {name: (root / name).stat().st_ino for name in names}
        for directory in {os.path.dirname(name) for name in names}:
            for entry in os.scandir(root / directory):
                name = os.path.join(directory, entry.name)
                assert entry.inode() == found[name], f"listed: {name}"
        return found

    with mounted([one, two], upper, work, tmp_path / "m") as m:
        before = numbers(m)
        assert len(set(before.values())) == len(names)
        for name in names:
            (m / name).chmod(0o755)
        assert numbers(m) == before
    with mounted([one, two], upper, work, tmp_path / "m") as m:
        assert numbers(m) == before


@in_namespace
def test_set_id_bits_end_with_the_write_of_another_user(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    for name in ("written", "truncated", "appended"):
        fill(low, {name: "#!/bin/sh\n"})
        (low / name).chmod(0o6777)
    upper.chmod(0o755)
    with mounted([low], upper, work, tmp_path / "m") as m:
        for name, command in (
            ("written", "printf '#!' 1<>written"),
            ("truncated", ": > truncated"),
            ("appended", "echo id >> appended"),
        ):
            assert _mode(m / name) == "6777"
            assert _as_user(7, ["sh", "-c", command], m) == 0
            assert _mode(m / name) == "777", name
    assert _mode(upper / "written") == "777"


def _mode(path: Path) -> str:
    """Ask for the mode and nothing else, which the kernel may answer by itself."""
    return subprocess.run(
        ["stat", "-c", "%a", path], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize("option", ["", ",writeback=0"])
@in_namespace
def test_writes_through_a_mapping_leave_set_id_bits_and_capabilities(
    tmp_path: Path, option: str
) -> None:
    low, upper, work = _layers(tmp_path)
    fill(low, {"low": "low"})
    with mounted([low], upper, work, tmp_path / "m", option) as m:
        fill(m, {"new": "new"})
        for name in ("low", "new"):
            (m / name).chmod(0o6755)
            os.setxattr(m / name, "security.capability", CAPABILITY)
            with open(m / name, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
                mapped[0] = ord("X")
    for name in ("low", "new"):
        assert (upper / name).read_text()[0] == "X"
        assert _mode(upper / name) == "6755"
        assert os.getxattr(upper / name, "security.capability") == CAPABILITY
    with mounted([low], upper, work, tmp_path / "m", option) as m:
        for name in ("low", "new"):
            with open(m / name, "r+b") as file:
                file.write(b"Y")
            assert _mode(m / name) == "755"
            assert "security.capability" not in os.listxattr(m / name)


@in_namespace
def test_a_large_copy_up_lets_other_requests_pass(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    fill(low, {f"d/{i}": str(i) for i in range(50)})
    block = os.urandom(1 << 20)
    with (low / "big").open("wb") as file:
        for _ in range(512):
            file.write(block)
    with mounted([low], upper, work, tmp_path / "m") as m:
        chmod = subprocess.Popen(["chmod", "600", m / "big"])
        while not any(entry.stat().st_size for entry in os.scandir(work / "work")):
            assert chmod.poll() is None
        listed = subprocess.run(
            ["cat", *(m / f"d/{i}" for i in range(50))], check=True, capture_output=True
        )
        (m / "new").write_text("new")
        names = os.listdir(m / "d")
        assert chmod.poll() is None, "the copy was finished first"
        assert listed.stdout == "".join(map(str, range(50))).encode()
        assert len(names) == 50
        assert chmod.wait() == 0
        assert _mode(m / "big") == "600"
        with open(m / "big", "rb") as file:
            for _ in range(512):
                assert file.read(1 << 20) == block


@in_namespace
def test_each_of_100_000_names_is_listed_once_while_others_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()  # in memory: a disk takes its time for so many files
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "t"], check=True)
    low, upper, work = _layers(tmp_path / "t")
    (low / "d").mkdir()
    directory = os.open(low / "d", os.O_RDONLY)
    for index in range(100_000):
        os.mknod(f"stays-{index}", dir_fd=directory)
    os.close(directory)
    with mounted([low], upper, work, tmp_path / "m") as m:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                for turn in range(1_000_000):
                    (m / f"d/new-{turn}").touch()
                    if turn >= 100:
                        (m / f"d/new-{turn - 100}").unlink()
                        os.write(writer, b".")
            except BrokenPipeError:
                os._exit(0)
            os._exit(1)
        os.close(writer)
        with open(reader, "rb") as turns:
            for _ in "12":
                assert turns.read(10)
                seen = Counter(os.listdir(m / "d"))
                stay = [name for name in seen if name.startswith("stays-")]
                assert len(stay) == 100_000
                assert {seen[name] for name in stay} == {1}
                assert turns.read(10)
        assert os.waitpid(child, 0)[1] == 0
        assert len(os.listdir(m / "d")) == 100_100
    subprocess.run(["umount", tmp_path / "t"], check=True)


@in_namespace
def test_names_may_be_255_bytes_of_any_value(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    every = bytes(range(1, 256)).replace(b"/", b"") + b"!"
    names = [every, every[::-1], b"\xff" * 255, "ö".encode() * 127 + b"-", b"\n", b"-", b" "]
    below = os.fsencode(low)
    for name in names:
        with open(os.path.join(below, name), "wb") as file:
            file.write(name)
    with mounted([low], upper, work, tmp_path / "m") as m:
        mount = os.fsencode(m)
        assert sorted(os.listdir(mount)) == sorted(names)
        for name in names:
            path = os.path.join(mount, name)
            with open(path, "ab") as file:
                file.write(b" more")
            os.rename(path, os.path.join(mount, b"x"))
            os.rename(os.path.join(mount, b"x"), path)
            with open(path, "rb") as file:
                assert file.read() == name + b" more"
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is the point
            os.mkdir(os.path.join(mount, b"x" * 256))
        assert caught.value.errno == errno.ENAMETOOLONG
        os.unlink(os.path.join(mount, every))
    with mounted([low], upper, work, tmp_path / "m") as m:
        assert sorted(os.listdir(os.fsencode(m))) == sorted(names[1:])


@in_namespace
def test_direct_and_cached_access_see_each_other(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    (low / "f").write_bytes(b"a" * 16 * _PAGE)
    block = mmap.mmap(-1, 4 * _PAGE)
    with mounted([low], upper, work, tmp_path / "m") as m, open(m / "f", "r+b") as cached:
        direct = os.open(m / "f", os.O_RDWR | os.O_DIRECT)
        os.pwrite(cached.fileno(), b"b" * _PAGE, 0)
        assert os.preadv(direct, [block], 0) == 4 * _PAGE
        assert block[:] == b"b" * _PAGE + b"a" * 3 * _PAGE
        block[:] = b"c" * 4 * _PAGE
        assert os.pwritev(direct, [block], 8 * _PAGE) == 4 * _PAGE
        expected = b"b" * _PAGE + b"a" * 7 * _PAGE + b"c" * 4 * _PAGE + b"a" * 4 * _PAGE
        assert cached.read() == expected
        os.close(direct)
    assert (upper / "f").read_bytes() == expected


@pytest.mark.parametrize("kind", ["flock", "fcntl"])
@in_namespace
def test_locks_keep_other_processes_out_also_over_a_copy_up(tmp_path: Path, kind: str) -> None:
    low, upper, work = _layers(tmp_path)
    fill(low, {"f": "text"})
    lock = {"flock": fcntl.flock, "fcntl": fcntl.lockf}[kind]

    def is_free() -> bool:
        child = os.fork()
        if child == 0:
            with open(m / "f", "r+b") as file:
                try:
                    lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os._exit(1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    with mounted([low], upper, work, tmp_path / "m") as m:
        with open(m / "f", "r+b") as file:
            assert is_free()
            lock(file, fcntl.LOCK_EX)
            assert not is_free()
            (m / "f").chmod(0o600)
            os.write(file.fileno(), b"new")
            assert not is_free()
            lock(file, fcntl.LOCK_UN)
            assert is_free()
            lock(file, fcntl.LOCK_EX)
        assert is_free()


@in_namespace
def test_inotify_tells_what_another_process_does(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    fill(low, {"d/f": "low", "d/g": ""})
    create, modify, moved_from, moved_to, delete = 0x100, 0x2, 0x40, 0x80, 0x200
    with mounted([low], upper, work, tmp_path / "m") as m:
        fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        watched = create | modify | moved_from | moved_to | delete
        assert _libc.inotify_add_watch(fd, os.fsencode(m / "d"), watched) > 0
        script = "echo more >> f && mv f h && rm g && mkdir n"
        subprocess.run(["sh", "-c", script], cwd=m / "d", check=True)
        told = os.read(fd, 65536)
        os.close(fd)
    events = []
    while told:
        _, mask, _, length = struct.unpack_from("iIII", told)
        events.append((mask & watched, told[16 : 16 + length].rstrip(b"\0")))
        told = told[16 + length :]
    assert events == [
        (modify, b"f"), (moved_from, b"f"), (moved_to, b"h"), (delete, b"g"), (create, b"n"),
    ]  # fmt: skip


@in_namespace
def test_a_symlink_keeps_its_owner_and_times_and_may_get_others(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    fill(low, {"l": "-> nowhere", "k": "-> nowhere"})
    for name in ("l", "k"):
        os.lchown(low / name, 3, 4)
        os.utime(low / name, ns=(1_000_000_001, 2_000_000_002), follow_symlinks=False)
    with mounted([low], upper, work, tmp_path / "m") as m:
        os.rename(m / "l", m / "moved")
        os.chown(m / "k", 5, -1, follow_symlinks=False)
    with mounted([low], upper, work, tmp_path / "m") as m:
        for name, owner in (("moved", (3, 4)), ("k", (5, 4))):
            status = os.lstat(m / name)
            assert (status.st_uid, status.st_gid) == owner
            assert status.st_mtime_ns == 2_000_000_002
            assert os.readlink(m / name) == "nowhere"


@pytest.mark.parametrize("option", ["writeback=0", "server=pyfuse3"])
@in_namespace
def test_the_other_ways_to_serve_do_the_same(tmp_path: Path, option: str) -> None:
    low, upper, work = _layers(tmp_path)
    fill(low, {"d/f": "low", "d/gone": "gone", "e/g": "g" * 10_000})
    for _ in "12":
        with mounted([low], upper, work, tmp_path / "m", f",{option}") as m:
            if (m / "e").exists():
                with open(m / "d/gone", "r+") as unlinked:
                    (m / "d/gone").unlink()
                    unlinked.write("still")
                    unlinked.seek(0)
                    assert unlinked.read() == "still"
                    assert os.fstat(unlinked.fileno()).st_nlink == 0
                with open(m / "d/f", "a") as file:
                    file.write(" more")
                    os.fsync(file.fileno())
                os.rename(m / "e", m / "moved")
                (m / "moved/new").write_bytes(b"n" * 3_000_000)
            assert sorted(os.listdir(m)) == ["d", "moved"]
            assert os.listdir(m / "d") == ["f"]
            assert sorted(os.listdir(m / "moved")) == ["g", "new"]
            assert (m / "d/f").read_text() == "low more"
            assert (m / "moved/g").read_text() == "g" * 10_000
            assert (m / "moved/new").read_bytes() == b"n" * 3_000_000
