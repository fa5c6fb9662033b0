"""A real mount: what programs see through the kernel, and how the server comes and goes."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

import rootless
from fuse_overlay import abi, mount
from fuse_overlay.connection import Connection
from fuse_overlay.overlay import Overlay
from tests.fuse_overlay.support import (
    fill,
    in_namespace,
    layers,
    mount_options,
    mounted,
    tree,
    unmount,
    wait_for_server,
)

ACL_DEFAULT = "system.posix_acl_default"
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")

either_server = pytest.mark.usefixtures("either_server")


def _layers(directory: Path) -> tuple[Path, Path, Path]:
    low, upper, work = layers(directory, "low", "upper", "work")
    return low, upper, work


@either_server
@in_namespace
def test_a_file_opened_before_its_copy_up_shows_later_writes(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
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
    low, upper, work = _layers(tmp_path)
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
    low, upper, work = _layers(tmp_path)
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
    low, upper, work = _layers(tmp_path)
    fill(low, {f"t/d{i}/f{j}": "" for i in range(20) for j in range(20)})
    with mounted([low], upper, work, tmp_path / "m") as m:
        (m / "t/d1/new").write_text("")
        removers = [subprocess.Popen(["rm", "-rf", m / "t"], stderr=subprocess.PIPE) for _ in "12"]
        errors = [remover.communicate()[1] for remover in removers]
        assert not (m / "t").exists(), errors
        assert os.listdir(m) == []


@in_namespace
def test_a_large_directory_is_listed_whole(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
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
    low, upper, work = _layers(tmp_path)
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
    low, upper, work = _layers(tmp_path)
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
    low, upper, work = _layers(tmp_path)
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
    low, upper, work = _layers(tmp_path)
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
    low, upper, work = _layers(tmp_path)
    fill(low, {"d/f": "", "g": "good"})
    with mounted([low], upper, work, tmp_path / "m") as m:
        os.listdir(m / "d")
        (low / "d/f").unlink()
        with pytest.raises(FileNotFoundError):
            (m / "d/f").write_text("a layer changed under the mount, which it must not")
        assert (m / "g").read_text() == "good"


@in_namespace
def test_paths_may_contain_what_separates_options(tmp_path: Path) -> None:
    names = ["a:b", "c,d", "e\\f", "u,:\\", "w:,"]
    one, two, three, upper, work = layers(tmp_path, *names)
    for index, path in enumerate((one, two, three)):
        (path / str(index)).touch()
    m = tmp_path / "m"
    m.mkdir()

    def escaped(path: Path) -> str:
        return "".join("\\" + c if c in ":,\\" else c for c in str(path))

    options = f"lowerdir={':'.join(map(escaped, (one, two, three)))}"
    options += f",upperdir={escaped(upper)},workdir={escaped(work)}"
    command = [sys.executable, "-m", "fuse_overlay", "source", str(m), "-o", f"rw,{options},suid"]
    subprocess.run(command, check=True)
    assert sorted(os.listdir(m)) == ["0", "1", "2"]
    (m / "new").touch()
    unmount(m)
    wait_for_server(work)
    assert os.listdir(upper) == ["new"]


@either_server
@in_namespace
def test_a_mount_without_an_upper_directory_is_read_only(tmp_path: Path) -> None:
    one, two = layers(tmp_path, "one", "two")
    fill(one, {"a": "1"})
    fill(two, {"b": "2"})
    with mounted([one, two], None, None, tmp_path / "m") as m:
        assert sorted(os.listdir(m)) == ["a", "b"]
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is the point
            (m / "a").write_text("x")
        assert caught.value.errno == errno.EROFS
        assert os.statvfs(m).f_flag & os.ST_RDONLY


def _serve_in_foreground(low: Path, upper: Path, work: Path, m: Path) -> subprocess.Popen[bytes]:
    m.mkdir()
    (low / "here").touch()
    options = mount_options([low], upper, work)
    server = subprocess.Popen([sys.executable, "-m", "fuse_overlay", "-f", "-o", options, m])
    while not (m / "here").exists():
        assert server.poll() is None
    return server


@in_namespace
def test_the_server_ends_when_it_is_unmounted(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    server = _serve_in_foreground(low, upper, work, tmp_path / "m")
    unmount(tmp_path / "m")
    assert server.wait(60) == 0


@either_server
@in_namespace
def test_what_is_mounted_below_stays_when_ours_is_unmounted(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    (tmp_path / "m").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "m"], check=True)
    (tmp_path / "m/below").touch()
    with mounted([low], upper, work, tmp_path / "m") as m:
        assert os.listdir(m) == []
    assert os.listdir(tmp_path / "m") == ["below"]
    subprocess.run(["umount", tmp_path / "m"], check=True)


@in_namespace
def test_a_work_directory_elsewhere_is_refused(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", work], check=True)
    command = [sys.executable, "-m", "fuse_overlay", "-o", mount_options([low], upper, work)]
    result = subprocess.run([*command, low], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "file system of the upper directory" in result.stderr
    subprocess.run(["umount", work], check=True)


@either_server
@in_namespace
def test_layers_on_different_file_systems_merge(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
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


@in_namespace
def test_sigterm_unmounts_and_ends_the_server(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    server = _serve_in_foreground(low, upper, work, tmp_path / "m")
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0
    assert os.listdir(tmp_path / "m") == []


@either_server
@in_namespace
def test_a_killed_server_loses_nothing_that_was_written(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    m = tmp_path / "m"
    fill(low, {f"d/{i}": f"low {i}" for i in range(200)})
    server = _serve_in_foreground(low, upper, work, m)
    (m / "d/0").write_text("changed")
    (m / "new").write_text("new")
    (m / "d/1").unlink()
    os.rename(m / "d/2", m / "d/3")
    child = os.fork()
    if child == 0:  # is changing things when the server goes
        for index in range(4, 200):
            try:
                (m / f"d/{index}").write_text("later")
                os.rename(m / f"d/{index}", m / f"d/{index}x")
            except OSError:
                break
        os._exit(0)
    while not (m / "d/20x").exists():
        pass
    server.kill()
    server.wait()
    os.waitpid(child, 0)
    subprocess.run(["umount", "-l", m], check=True)
    with mounted([low], upper, work, m):
        assert (m / "d/0").read_text() == "changed"
        assert (m / "new").read_text() == "new"
        assert not (m / "d/1").exists()
        assert (m / "d/3").read_text() == "low 2"
        names = os.listdir(m / "d")
        for index in range(4, 200):
            assert len({f"{index}", f"{index}x"} & set(names)) == 1
        assert len(names) == 198
        assert os.listdir(work / "work") == []


@in_namespace
def test_an_embedded_server_ends_when_it_is_told(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    (low / "f").write_text("text")
    (tmp_path / "m").mkdir()
    fd = mount.open_device()
    overlay = Overlay([str(low)], str(upper), str(work))
    mount.mount(fd, str(tmp_path / "m"))
    connection = Connection(fd, overlay)
    connection.handshake()
    server = threading.Thread(target=connection.serve)
    server.start()
    assert (tmp_path / "m/f").read_text() == "text"
    connection.stop()
    server.join()
    overlay.close()
    connection.close()
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is the point
        os.stat(tmp_path / "m/f2")
    assert caught.value.errno == errno.ENOTCONN
    subprocess.run(["umount", tmp_path / "m"], check=True)


def test_a_plain_user_mounts_through_fusermount3(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    fill(low, {"d/f": "low"})
    m = tmp_path / "m"
    m.mkdir()
    options = mount_options([low], upper, work)
    subprocess.run([sys.executable, "-m", "fuse_overlay", "-o", options, m], check=True)
    try:
        (m / "d/f").write_text("changed")
        (m / "new").mkdir(0o750)
        os.rename(m / "d", m / "e")
        fd = os.open(m / "readonly", os.O_CREAT | os.O_RDWR, 0o400)
        os.write(fd, b"text")
        os.ftruncate(fd, 2)
        os.close(fd)
        before = tree(m)
        assert before["e/f"][4] == len("changed")
    finally:
        subprocess.run(["fusermount3", "-u", m], check=True)
    wait_for_server(work)
    assert not (m / "e").exists()
    assert (upper / "readonly").read_text() == "te"


def test_a_second_mount_of_the_same_upper_directory_is_refused_in_one_line(tmp_path: Path) -> None:
    low, upper, work = _layers(tmp_path)
    m, other = layers(tmp_path, "m", "other")
    command = [sys.executable, "-m", "fuse_overlay", "-o", mount_options([low], upper, work)]
    subprocess.run([*command, m], check=True)
    try:
        result = subprocess.run([*command, other], capture_output=True, text=True, check=False)
        assert result.returncode == 1
        reason = f"the work directory is in use by another mount: {work}"
        assert result.stderr == f"fuse-overlay: cannot mount at {other}: {reason}\n"
    finally:
        subprocess.run(["fusermount3", "-u", m], check=True)
    wait_for_server(work)


def test_a_missing_directory_is_named_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fuse_overlay", "-o", "lowerdir=/nowhere", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "/nowhere" in result.stderr
    assert result.stderr.count("\n") == 1


def _complaint(*arguments: str | Path, cwd: Path) -> str:
    command = [sys.executable, "-m", "fuse_overlay", *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    return result.stderr


def test_errors_say_what_failed_and_why_and_nothing_else(tmp_path: Path) -> None:
    layers(tmp_path, "low", "upper", "m")
    (tmp_path / "file").touch()
    lower = "-olowerdir=low"
    absent = "No such file or directory\n"
    for arguments, complaint in (
        (("-olowerdir=low:nope", "m"), f"cannot open lowerdir nope: {absent}"),
        ((f"{lower},upperdir=nope,workdir=low", "m"), f"cannot open upperdir nope: {absent}"),
        ((f"{lower},upperdir=upper,workdir=nope", "m"), f"cannot open workdir nope: {absent}"),
        ((lower, "nope"), f"cannot mount at nope: {absent}"),
        ((lower, "file"), "cannot mount at file: Not a directory\n"),
    ):
        assert _complaint(*arguments, cwd=tmp_path) == f"fuse-overlay: {complaint}"


def test_unknown_options_are_named_unless_they_are_common_and_mean_nothing(tmp_path: Path) -> None:
    layers(tmp_path, "low")
    options = "-orw,dev,suid,exec,auto,async,relatime,nodev,foo=bar,fsync=0,bare,lowerdir=low"
    first, second, _ = _complaint(options, "nope", cwd=tmp_path).splitlines()
    assert first == "fuse-overlay: unknown option ignored: foo=bar"
    assert second == "fuse-overlay: unknown option ignored: bare"


def test_the_command_tells_its_version_and_its_options() -> None:
    def output(option: str) -> str:
        command = [sys.executable, "-m", "fuse_overlay", option]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert output("--version") == f"fuse-overlay: version {rootless.__version__}\n"
    for option in ("lowerdir=", "upperdir=", "workdir=", " ro ", " volatile ", "--debug"):
        assert option in output("--help")


def test_a_descriptor_that_is_not_mounted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "low").mkdir()
    with closing(Overlay([str(tmp_path / "low")])) as overlay:
        connection = Connection(mount.open_device(), overlay)
        with pytest.raises(PermissionError):
            connection.handshake()
        connection.close()


class _Failing(Overlay):
    def readlink(self, number: int) -> bytes:
        raise ZeroDivisionError if number == 5 else OSError(errno.ENOSPC, "full")


def test_an_unexpected_exception_is_eio_for_that_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "low").mkdir()
    kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, closing(_Failing([str(tmp_path / "low")])) as overlay:
        connection = Connection(ours.detach(), overlay)
        server = threading.Thread(target=connection.serve)
        server.start()
        answers = []
        for unique, (opcode, nodeid) in enumerate(
            [(abi.Opcode.READLINK, 5), (abi.Opcode.READLINK, 6), (abi.Opcode.GETATTR, 1)], 1
        ):
            length = abi.IN_HEADER.size
            kernel.send(abi.IN_HEADER.pack(length, opcode, unique, nodeid, 0, 0, 0, 0, 0))
            _, error, answered = abi.OUT_HEADER.unpack_from(kernel.recv(1000))
            assert answered == unique
            answers.append(-error)
        connection.stop()
        server.join()
    connection.close()
    assert answers == [errno.EIO, errno.ENOSPC, 0]
    assert "ZeroDivisionError" in caplog.text
