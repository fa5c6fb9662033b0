"""A real mount: what programs see through the kernel, and how the server comes and goes."""

from __future__ import annotations

import mmap
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.fuse_overlay.support import (
    either_server,
    fill,
    in_namespace,
    low_upper_work,
    mounted,
)

ACL_DEFAULT = "system.posix_acl_default"
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


@either_server
@in_namespace
def test_a_file_opened_before_its_copy_up_shows_later_writes(tmp_path: Path) -> None:
    low, upper, work = low_upper_work(tmp_path)
    (low / "f").write_bytes(b"a" * 20000)
    with mounted([low], upper, work, tmp_path / "m") as m, open(m / "f", "rb") as reader:
        mapped = mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ)
        assert mapped[0] == ord("a")
        with open(m / "f", "r+b") as writer:
            writer.write(b"b" * 10000)
        assert reader.read() == b"b" * 10000 + b"a" * 10000
        assert mapped[:] == b"b" * 10000 + b"a" * 10000
        mapped.close()


@either_server
@in_namespace
def test_writes_through_a_shared_mapping_are_read_and_kept(tmp_path: Path) -> None:
    low, upper, work = low_upper_work(tmp_path)
    (low / "f").write_bytes(bytes(100_000))
    with (
        mounted([low], upper, work, tmp_path / "m") as m,
        open(m / "f", "r+b") as file,
        mmap.mmap(file.fileno(), 0) as mapped,
    ):
        mapped[50_000:50_005] = b"hello"
        assert os.pread(file.fileno(), 5, 50_000) == b"hello"
        os.pwrite(file.fileno(), b"there", 70_000)
        assert mapped[70_000:70_005] == b"there"
        mapped.flush()
    assert (upper / "f").read_bytes()[50_000:50_005] == b"hello"


@either_server
@in_namespace
def test_appends_of_several_writers_are_all_kept(tmp_path: Path) -> None:
    low, upper, work = low_upper_work(tmp_path)
    (low / "log").write_text("begin\n")
    with mounted([low], upper, work, tmp_path / "m") as m:
        children = []
        for writer in range(4):
            child = os.fork()
            if child == 0:
                fd = os.open(m / "log", os.O_WRONLY | os.O_APPEND)
                for line in range(100):
                    os.write(fd, b"%d %d\n" % (writer, line))
                os._exit(0)
            children.append(child)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        lines = (m / "log").read_text().splitlines()
    assert sorted(lines[1:]) == sorted(f"{w} {n}" for w in range(4) for n in range(100))


@either_server
@in_namespace
def test_two_processes_may_remove_one_tree(tmp_path: Path) -> None:
    low, upper, work = low_upper_work(tmp_path)
    fill(low, {f"t/d{i}/f{j}": "" for i in range(20) for j in range(20)})
    with mounted([low], upper, work, tmp_path / "m") as m:
        (m / "t/d1/new").write_text("")
        removers = [subprocess.Popen(["rm", "-rf", m / "t"], stderr=subprocess.PIPE) for _ in "12"]
        errors = [remover.communicate()[1] for remover in removers]
        assert not (m / "t").exists(), errors
        assert os.listdir(m) == []


@in_namespace
def test_a_large_directory_is_listed_whole(tmp_path: Path) -> None:
    low, upper, work = low_upper_work(tmp_path)
    fill(low, {f"d/low-{i}": "" for i in range(3000)})
    with mounted([low], upper, work, tmp_path / "m") as m:
        for i in range(3000):
            (m / f"d/up-{i}").touch()
        entries = list(os.scandir(m / "d"))
        assert len(entries) == 6000
        assert len({entry.name for entry in entries}) == 6000
        for entry in entries[::100]:
            assert entry.inode() == os.lstat(entry.path).st_ino


@either_server
@in_namespace
def test_default_acls_are_inherited_also_over_a_whiteout(tmp_path: Path) -> None:
    low, upper, work = low_upper_work(tmp_path)
    fill(low, {"d/f": "", "d/e/": ""})
    os.umask(0)
    with mounted([low], upper, work, tmp_path / "m") as m:
        subprocess.run(["setfacl", "-d", "-m", "u:7:rwx,g::r-x,o::-", m / "d"], check=True)
        (m / "d/f").unlink()
        (m / "d/e").rmdir()
        for name in ("d/f", "d/g"):
            (m / name).write_text("")
            assert "user:7:rwx" in _acl(m / name), name
            assert stat.S_IMODE((m / name).stat().st_mode) == 0o660
        for name in ("d/e", "d/h"):
            (m / name).mkdir()
            assert "default:user:7:rwx" in _acl(m / name), name
            assert ACL_DEFAULT in os.listxattr(m / name)
        assert stat.S_IMODE((m / "d/e").stat().st_mode) == 0o770


@either_server
@in_namespace
def test_acls_are_copied_up_and_decide_on_access(tmp_path: Path) -> None:
    low, upper, work = low_upper_work(tmp_path)
    fill(low, {"f": "text"})
    (low / "f").chmod(0o600)
    tmp_path.chmod(0o755)
    subprocess.run(["setfacl", "-m", "u:7:r", low / "f"], check=True)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and parent.stat().st_mode & 0o11 == 0:
            subprocess.run(["setfacl", "-m", "u:7:x,u:8:x", parent], check=True)
    with mounted([low], upper, work, tmp_path / "m") as m:
        os.utime(m / "f")  # copies up
        top = os.open(m, os.O_PATH)
        for uid, allowed in ((7, True), (8, False)):
            child = os.fork()
            if child == 0:
                os.setresuid(uid, uid, uid)
                try:
                    os.close(os.open("f", os.O_RDONLY, dir_fd=top))
                except PermissionError:
                    os._exit(1)
                os._exit(0)
            assert (os.waitpid(child, 0)[1] == 0) is allowed
        os.close(top)
    assert "user:7:r--" in _acl(upper / "f")


def _acl(path: Path) -> str:
    return subprocess.run(
        ["getfacl", "-cpn", path], check=True, capture_output=True, text=True
    ).stdout


@either_server
@in_namespace
def test_file_capabilities_are_copied_up_and_end_with_a_write(tmp_path: Path) -> None:
    low, upper, work = low_upper_work(tmp_path)
    fill(low, {"f": "text"})
    os.setxattr(low / "f", "security.capability", CAPABILITY)
    with mounted([low], upper, work, tmp_path / "m") as m:
        os.chmod(m / "f", 0o755)
        assert os.getxattr(m / "f", "security.capability") == CAPABILITY
        assert os.getxattr(upper / "f", "security.capability") == CAPABILITY
        with open(m / "f", "a") as file:
            file.write("x")
        assert "security.capability" not in os.listxattr(m / "f")


@either_server
@in_namespace
def test_a_removed_working_directory_answers(tmp_path: Path) -> None:
    low, upper, work = low_upper_work(tmp_path)
    fill(low, {"d/f": ""})
    with mounted([low], upper, work, tmp_path / "m") as m:
        fd = os.open(m / "d", os.O_RDONLY)
        (m / "d/f").unlink()
        (m / "d").rmdir()
        (m / "d").mkdir()
        (m / "d/new").touch()
        assert os.listdir(fd) == []
        assert os.fstat(fd).st_nlink == 0
        with pytest.raises(FileNotFoundError):
            os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        os.close(fd)


@either_server
@in_namespace
def test_an_error_in_one_request_is_not_the_end(tmp_path: Path) -> None:
    low, upper, work = low_upper_work(tmp_path)
    fill(low, {"d/f": "", "g": "good"})
    with mounted([low], upper, work, tmp_path / "m") as m:
        os.listdir(m / "d")
        (low / "d/f").unlink()
        with pytest.raises(FileNotFoundError):
            (m / "d/f").write_text("a layer changed under the mount, which it must not")
        assert (m / "g").read_text() == "good"


@either_server
@in_namespace
def test_layers_on_different_file_systems_merge(tmp_path: Path) -> None:
    low, upper, work = low_upper_work(tmp_path)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", low], check=True)
    fill(low, {"d/f": "text", "d/g": ""})
    with (low / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    with mounted([low], upper, work, tmp_path / "m") as m:
        inodes = {name: os.stat(m / name).st_ino for name in ("d", "d/f", "d/g", "sparse")}
        assert len(set(inodes.values())) == 4
        with open(m / "sparse", "r+b") as file:
            file.write(b"start")
        os.rename(m / "d", m / "e")
        assert (m / "e/f").read_text() == "text"
        assert (m / "e").stat().st_ino == inodes["d"]
        assert (m / "sparse").read_bytes() == b"start" + bytes((1 << 20) - 5) + b"end"
    subprocess.run(["umount", low], check=True)
