"""How the server comes and goes: its options, its errors, its end, and what is left of it."""

from __future__ import annotations

import errno
import os
import signal
import socket
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
    either_server,
    fill,
    in_namespace,
    layers,
    low_upper_work,
    mount_options,
    mounted,
    tree,
    unmount,
    wait_for_server,
)
from tests.support.waiting import PATIENCE


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
    low, upper, work = low_upper_work(tmp_path)
    server = _serve_in_foreground(low, upper, work, tmp_path / "m")
    unmount(tmp_path / "m")
    assert server.wait(PATIENCE) == 0


@either_server
@in_namespace
def test_what_is_mounted_below_stays_when_ours_is_unmounted(tmp_path: Path) -> None:
    low, upper, work = low_upper_work(tmp_path)
    (tmp_path / "m").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "m"], check=True)
    (tmp_path / "m/below").touch()
    with mounted([low], upper, work, tmp_path / "m") as m:
        assert os.listdir(m) == []
    assert os.listdir(tmp_path / "m") == ["below"]
    subprocess.run(["umount", tmp_path / "m"], check=True)


@in_namespace
def test_a_work_directory_elsewhere_is_refused(tmp_path: Path) -> None:
    low, upper, work = low_upper_work(tmp_path)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", work], check=True)
    command = [sys.executable, "-m", "fuse_overlay", "-o", mount_options([low], upper, work)]
    result = subprocess.run([*command, low], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "file system of the upper directory" in result.stderr
    subprocess.run(["umount", work], check=True)


@in_namespace
def test_sigterm_unmounts_and_ends_the_server(tmp_path: Path) -> None:
    low, upper, work = low_upper_work(tmp_path)
    server = _serve_in_foreground(low, upper, work, tmp_path / "m")
    server.send_signal(signal.SIGTERM)
    assert server.wait(PATIENCE) == 0
    assert os.listdir(tmp_path / "m") == []


@either_server
@in_namespace
def test_a_killed_server_loses_nothing_that_was_written(tmp_path: Path) -> None:
    low, upper, work = low_upper_work(tmp_path)
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
    low, upper, work = low_upper_work(tmp_path)
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
    low, upper, work = low_upper_work(tmp_path)
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
    low, upper, work = low_upper_work(tmp_path)
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


def test_who_never_lets_it_sleep_keeps_nobody_else_from_it(tmp_path: Path) -> None:
    (tmp_path / "low").mkdir()
    with closing(Overlay([str(tmp_path / "low")])) as overlay:
        # Requests without end.
        connection = Connection(os.open("/dev/zero", os.O_RDWR), overlay)
        other, ours = socket.socketpair()

        def hear() -> bool:
            connection.stop()
            return False

        with other, ours:
            other.send(b"x")
            assert connection.serve({ours.fileno(): hear}) is False
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
