"""`rl cp`: what goes where, what it looks like there, and whom it belongs to."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.containers.carrier import Found
from rootless.containers.copy import End, placed_name
from rootless.errors import RlError
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE, wait_until

SCRIPT = """
mkdir -p /src/sub /there /links
echo one > /src/f; echo two > /src/sub/g; ln /src/f /src/hard; ln -s f /src/soft
mkfifo -m 640 /src/fifo; chown 33:44 /src/sub/g; chmod 4755 /src/sub/g; chmod 1777 /src/sub
touch -d @1000000000 /src/f
truncate -s 64M /src/holes; echo x >> /src/holes
ln -s /src /links/dir; ln -s /src/f /links/file
ln -s /there/new /links/new; ln -s /there /links/there
echo old > /there/file
echo volume > /volume/v; echo tmpfs > /tmpfs/t; touch /ready
exec sleep 100000
"""


def wait_until_ready(rl: Rl, name: str) -> None:
    while rl("exec", name, "test", "-e", "/ready", check=False).returncode:
        pass


@pytest.fixture(scope="module", params=["running", "stopped"])
def box(rl: Rl, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the name of a container that holds some files; one runs, one does not."""
    name = f"box-{request.param}"
    mounts = ("-v", f"{name}:/volume", "--tmpfs", "/tmpfs")
    rl("run", "-d", "--name", name, *mounts, "alpine", "sh", "-c", SCRIPT)
    wait_until_ready(rl, name)
    if request.param == "stopped":
        rl("stop", "-t", "0", name)
    yield name
    rl("rm", "-f", name)


@pytest.fixture(scope="module")
def running(rl: Rl) -> Iterator[str]:
    """Return the name of a container that runs and holds some files."""
    rl("run", "-d", "--name", "copied", "-v", "copied:/volume", "--tmpfs", "/tmpfs",
       "alpine", "sh", "-c", SCRIPT)  # fmt: skip
    wait_until_ready(rl, "copied")
    yield "copied"
    rl("rm", "-f", "copied")


def entries(archive: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.getmembers()


def names(archive: bytes) -> list[str]:
    return [entry.name for entry in entries(archive)]


def output(rl: Rl, *arguments: str) -> bytes:
    done = subprocess.run(
        [*rl.command, "cp", *arguments], env=rl.environment, check=True, capture_output=True
    )
    return done.stdout


DIRECTORY, FILE = Found("directory", ""), Found("file", "t")
MISSING = Found("missing", "t")


@pytest.mark.parametrize(
    ("source", "found", "target", "there", "name"),
    [
        ("/a/f", FILE, "/b/t", MISSING, "t"),
        ("/a/f", FILE, "/b/t", FILE, "t"),
        ("/a/f", FILE, "/b", DIRECTORY, "f"),
        ("/a/d", DIRECTORY, "/b/t", MISSING, "t"),
        ("/a/d", DIRECTORY, "/b/t/", MISSING, "t"),
        ("/a/d/.", DIRECTORY, "/b/t", MISSING, "t"),
        ("/a/d", DIRECTORY, "/b", DIRECTORY, "d"),
        ("/a/d/", DIRECTORY, "/b", DIRECTORY, "d"),
        ("/a/d/.", DIRECTORY, "/b", DIRECTORY, "."),
        ("/a/d/..", DIRECTORY, "/b", DIRECTORY, "a"),
        ("/", DIRECTORY, "/b", DIRECTORY, "."),
    ],
)
def test_rules_of_docker_decide_what_it_is_called(
    source: str, found: Found, target: str, there: Found, name: str
) -> None:
    assert placed_name(source, found, target, there) == name


@pytest.mark.parametrize(
    ("found", "target", "there", "why"),
    [
        (DIRECTORY, "/b/t", FILE, "cannot copy a directory to a file"),
        (FILE, "/b/t/", MISSING, "must exist"),
    ],
)
def test_rules_of_docker_forbid(found: Found, target: str, there: Found, why: str) -> None:
    with pytest.raises(RlError, match=why):
        placed_name("/a/s", found, target, there)


def test_colon_divides_container_and_path_but_for_paths_that_say_so(tmp_path: Path) -> None:
    assert End.parse("c:/x") == End("c", "/x")
    assert End.parse("c:x") == End("c", "/x")
    assert End.parse("./c:x") == End(None, f"{os.getcwd()}/./c:x")
    assert End.parse("/c:x") == End(None, "/c:x")
    assert End.parse("-").stream


def test_directory_comes_out_as_it_is_and_belongs_to_us(rl: Rl, box: str, tmp_path: Path) -> None:
    rl("cp", f"{box}:/src", str(tmp_path))
    out = tmp_path / "src"
    assert (out / "f").read_text() == "one\n"
    assert (out / "f").stat().st_mtime == 1000000000
    assert (out / "f").stat().st_ino == (out / "hard").stat().st_ino
    assert os.readlink(out / "soft") == "f"
    assert stat.S_ISFIFO((out / "fifo").stat().st_mode)
    assert stat.S_IMODE((out / "fifo").stat().st_mode) == 0o640
    assert stat.S_IMODE((out / "sub").stat().st_mode) == 0o1777
    holes = (out / "holes").stat()
    assert holes.st_size == (64 << 20) + 2
    assert holes.st_blocks * 512 <= 1 << 16
    assert (out / "holes").read_bytes()[-3:] == b"\0x\n"
    assert {path.stat().st_uid for path in out.rglob("*")} == {os.getuid()}


def test_set_id_bits_do_not_come_out(rl: Rl, box: str, tmp_path: Path) -> None:
    # The file is the user's there: whoever executed it would become the user.
    for option in ([], ["-a"]):
        rl("cp", *option, f"{box}:/src/sub/g", str(tmp_path / "g"))
        assert stat.S_IMODE((tmp_path / "g").stat().st_mode) == 0o755
    rl("cp", f"{box}:/src/sub/g", f"{box}:/there/g")
    (entry,) = entries(output(rl, f"{box}:/there/g", "-"))
    assert entry.mode == 0o4755


def test_owners_are_kept_with_archive_only(rl: Rl, box: str, tmp_path: Path) -> None:
    rl("cp", "-a", f"{box}:/src/sub", str(tmp_path / "kept"))
    assert (tmp_path / "kept/g").stat().st_uid not in (os.getuid(), 33)
    for option, owner in (("-a", (33, 44)), ("-q", (0, 0))):
        rl("cp", option, str(tmp_path / "kept/g"), f"{box}:/there/back")
        archive = output(rl, f"{box}:/there/back", "-")
        (entry,) = entries(archive)
        assert (entry.name, entry.uid, entry.gid) == ("back", *owner)
    # What belongs to others can only be removed as they.
    rl("run", "--rm", "-v", f"{tmp_path}:/t", "alpine", "rm", "-rf", "/t/kept")


def test_links_are_copied_as_links_unless_followed(rl: Rl, box: str, tmp_path: Path) -> None:
    rl("cp", f"{box}:/links/file", str(tmp_path))
    assert os.readlink(tmp_path / "file") == "/src/f"
    rl("cp", "-L", f"{box}:/links/file", str(tmp_path))
    assert (tmp_path / "file").read_text() == "one\n"
    assert not (tmp_path / "file").is_symlink()
    rl("cp", f"{box}:/links/dir/.", str(tmp_path))
    assert (tmp_path / "f").read_text() == "one\n"


def test_links_at_the_destination_are_followed_inside(rl: Rl, box: str, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new\n")
    (tmp_path / "other").write_text("other\n")
    rl("cp", str(tmp_path / "other"), f"{box}:/links/there")
    rl("cp", str(tmp_path / "new"), f"{box}:/links/new")
    for path in ("/there/other", "/there/new"):
        (entry,) = entries(output(rl, f"{box}:{path}", "-"))
        assert (entry.name, entry.isreg()) == (os.path.basename(path), True)


def test_streams_are_tar_archives(rl: Rl, box: str, tmp_path: Path) -> None:
    archive = output(rl, f"{box}:/src", "-")
    assert sorted(names(archive)) == [
        "src", "src/f", "src/fifo", "src/hard", "src/holes", "src/soft", "src/sub", "src/sub/g",
    ]  # fmt: skip
    assert names(output(rl, f"{box}:/src/sub/.", "-")) == [".", "./g"]
    for name, compress in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            info = tarfile.TarInfo(f"a/b/{name}")
            info.size, info.uid = 3, 12
            tar.addfile(info, io.BytesIO(b"abc"))
        for option, owner in (("-q", 0), ("-a", 12)):
            subprocess.run(
                [*rl.command, "cp", option, "-", f"{box}:/there"],
                env=rl.environment, input=compress(packed.getvalue()), check=True,
            )  # fmt: skip
            back = output(rl, f"{box}:/there/a/b/{name}", "-")
            (entry,) = entries(back)
            assert (entry.size, entry.uid) == (3, owner)


def test_attributes_are_kept_but_for_those_of_the_overlay(rl: Rl, box: str, tmp_path: Path) -> None:
    packed = io.BytesIO()
    capability = bytes.fromhex("0100000202000000000000000000000000000000")
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind in (("marked", tarfile.DIRTYPE), ("marked/f", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o755
            info.pax_headers = {
                "SCHILY.xattr.user.own": "value",
                "SCHILY.xattr.user.overlay.opaque": "y",
                "SCHILY.xattr.trusted.other": "x",
            }
            if kind == tarfile.REGTYPE:
                info.pax_headers["SCHILY.xattr.security.capability"] = capability.decode("latin-1")
            tar.addfile(info)
    subprocess.run(
        [*rl.command, "cp", "-", f"{box}:/there"],
        env=rl.environment, input=packed.getvalue(), check=True,
    )  # fmt: skip
    for _ in range(2):
        found = entries(output(rl, f"{box}:/there/marked", "-"))
        assert [sorted(key for key in entry.pax_headers if "xattr" in key) for entry in found] == [
            ["SCHILY.xattr.user.own"],
            ["SCHILY.xattr.security.capability", "SCHILY.xattr.user.own"],
        ]
        rl("cp", f"{box}:/there/marked/.", f"{box}:/copied")
        rl("cp", f"{box}:/copied/.", f"{box}:/there/marked")
    rl("cp", f"{box}:/there/marked", str(tmp_path))
    assert os.listxattr(tmp_path / "marked/f") == []


def test_volumes_are_seen(rl: Rl, box: str, tmp_path: Path) -> None:
    rl("cp", f"{box}:/volume/v", str(tmp_path))
    assert (tmp_path / "v").read_text() == "volume\n"
    rl("cp", str(tmp_path / "v"), f"{box}:/volume/w")
    done = rl("run", "--rm", "-v", f"{box}:/v", "alpine", "cat", "/v/w")
    assert done.stdout == "volume\n"


def test_tmpfs_of_a_running_container_is_seen(rl: Rl, running: str, tmp_path: Path) -> None:
    rl("cp", f"{running}:/tmpfs/t", str(tmp_path))
    assert (tmp_path / "t").read_text() == "tmpfs\n"


def test_file_that_is_mounted_gets_its_new_content_in_place(
    rl: Rl, running: str, tmp_path: Path
) -> None:
    (tmp_path / "hosts").write_text("10.0.0.1 a\n")
    rl("cp", str(tmp_path / "hosts"), f"{running}:/etc/hosts")
    assert rl("exec", running, "cat", "/etc/hosts").stdout == "10.0.0.1 a\n"
    assert "/etc/hosts" in rl("exec", running, "cat", "/proc/mounts").stdout


def test_whole_tree_comes_out_without_what_the_kernel_makes_up(
    rl: Rl, running: str, tmp_path: Path
) -> None:
    found = names(output(rl, f"{running}:/", "-"))
    assert {"./proc", "./sys", "./src/f", "./volume/v", "./tmpfs/t"} <= set(found)
    assert not [name for name in found if name.startswith(("./proc/", "./sys/"))]
    done = rl("cp", f"{running}:/proc/version", str(tmp_path), check=False)
    assert (done.returncode, "made up by the kernel" in done.stderr) == (125, True)


def test_containers_copy_to_each_other_and_to_themselves(rl: Rl, running: str, box: str) -> None:
    rl("cp", "-a", f"{running}:/src", f"{box}:/between")
    rl("cp", "-a", f"{box}:/between", f"{box}:/again")
    archives = [output(rl, f"{box}:{path}/.", "-") for path in ("/between", "/again")]
    original = output(rl, f"{running}:/src/.", "-")
    described = [
        [
            (entry.name, entry.mode, entry.uid, entry.size, entry.mtime)
            for entry in entries(archive)
            if not entry.isdir()
        ]
        for archive in (*archives, original)
    ]
    assert described[0] == described[1] == described[2]


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [
        ("BOX:/nowhere", "HERE", "No such file or directory: /nowhere"),
        ("BOX:/src/f/", "HERE", "Not a directory"),
        ("HERE/d", "BOX:/src/f", "cannot copy a directory to a file"),
        ("HERE/f", "BOX:/nowhere/", "must exist"),
        ("HERE/f", "BOX:/nowhere/x", "No such file or directory"),
        ("HERE/f", "BOX:/src/sub/d", "cannot overwrite the directory"),
        ("HERE/d/.", "BOX:/src", "cannot overwrite 'f', which is no directory"),
        ("HERE/f", "HERE/g", "one of both must be in a container"),
        ("HERE/f", "none:/x", "no such container: none"),
        ("-", "BOX:/src/f", "must be a directory"),
        ("-", "BOX:/nowhere", "/nowhere must exist"),
        ("-", "BOX:/src", "the archive is damaged"),
    ],
)
def test_what_cannot_be_is_said(
    rl: Rl, running: str, tmp_path: Path, source: str, target: str, why: str
) -> None:
    (tmp_path / "d/f").mkdir(parents=True)
    (tmp_path / "f").write_text("x")
    if why == "cannot overwrite the directory":
        rl("exec", running, "mkdir", "-p", "/src/sub/d/f")
        target = "BOX:/src/sub/d"
    ends = [end.replace("BOX", running).replace("HERE", str(tmp_path)) for end in (source, target)]
    done = rl("cp", *ends, check=False)
    assert done.returncode == 125
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_is_replaced_at_once_and_never_half(rl: Rl, running: str, tmp_path: Path) -> None:
    # Who has the old one open keeps it.
    script = "exec 3</there/file; touch /opened; until [ -e /go ]; do sleep 0.02; done; cat <&3"
    with rl.start("exec", running, "sh", "-c", script, stdout=subprocess.PIPE) as reader:
        while rl("exec", running, "test", "-e", "/opened", check=False).returncode:
            pass
        (tmp_path / "file").write_text("new\n")
        rl("cp", str(tmp_path / "file"), f"{running}:/there")
        assert rl("exec", running, "cat", "/there/file").stdout == "new\n"
        rl("exec", running, "touch", "/go")
        assert reader.communicate()[0] == b"old\n"
    assert ".rl-cp" not in rl("exec", running, "ls", "-a", "/there").stdout


def test_what_we_may_not_read_fails_and_is_named(rl: Rl, running: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/secret").write_text("x")
    (tmp_path / "d/secret").chmod(0)
    done = rl("cp", str(tmp_path / "d"), f"{running}:/there", check=False)
    assert done.returncode == 125
    assert "the host: cannot read 'd/secret': Permission denied" in done.stderr


def test_read_only_root_refuses_and_its_volume_does_not(rl: Rl, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    rl("create", "--name", "fixed", "--read-only", "-v", "/v", "alpine", "true")
    try:
        done = rl("cp", str(tmp_path / "f"), "fixed:/f", check=False)
        assert (done.returncode, "Read-only file system" in done.stderr) == (125, True)
        rl("cp", str(tmp_path / "f"), "fixed:/v/f")
        assert names(output(rl, "fixed:/v/f", "-")) == ["f"]
    finally:
        rl("rm", "-f", "-v", "fixed")


def test_container_that_never_ran_takes_files_and_can_be_removed(rl: Rl, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("from outside\n")
    rl("create", "--name", "new", "alpine", "cat", "/etc/f")
    rl("cp", str(tmp_path / "f"), "new:/etc")
    assert rl("start", "-a", "new").stdout == "from outside\n"
    rl("rm", "new")
    assert list((rl.root / "tmp").iterdir()) == []


def test_deep_and_long_and_strange_names_go_both_ways(rl: Rl, running: str, tmp_path: Path) -> None:
    odd = os.fsdecode(b"new\nline \xff \\ \xc3\xa4")
    top = tmp_path / "top"
    (top / odd).mkdir(parents=True)
    (top / odd / ("n" * 255)).write_text("x")
    # Deeper than a path can be long.
    at = os.open(top, os.O_RDONLY)
    for _ in range(700):
        os.mkdir("deeper", dir_fd=at)
        below = os.open("deeper", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=at))
    os.close(at)
    rl("cp", str(top), f"{running}:/strange")
    rl("cp", f"{running}:/strange", str(tmp_path / "back"))
    done = subprocess.run(
        ["find", "top", "-printf", "%P\\0"], cwd=tmp_path, check=True, capture_output=True
    )
    back = subprocess.run(
        ["find", "back", "-printf", "%P\\0"], cwd=tmp_path, check=True, capture_output=True
    )
    assert sorted(done.stdout.split(b"\0")) == sorted(back.stdout.split(b"\0"))
    subprocess.run(["rm", "-rf", top, tmp_path / "back"], check=True)


def test_start_during_a_copy_is_refused_and_works_afterwards(rl: Rl) -> None:
    rl("create", "--name", "busy", "alpine", "echo", "works")
    try:
        with rl.start("cp", "-", "busy:/tmp", stdin=subprocess.PIPE) as copying:
            log = rl.root / "containers" / rl("inspect", "-f", "{{.Id}}", "busy").stdout.strip()
            while not (log / "work/work").exists():
                pass
            done = rl("start", "-a", "busy", check=False)
            assert done.returncode == 125
            assert done.stderr.endswith("rl cp or rl export reads or writes its files just now, "
                                        "try again\n")  # fmt: skip
            copying.communicate(b"\0" * 1024)
            assert copying.returncode == 0
        assert rl("start", "-a", "busy").stdout == "works\n"
    finally:
        rl("rm", "-f", "busy")


def test_copies_of_one_container_that_does_not_run_wait_for_each_other(
    rl: Rl, tmp_path: Path
) -> None:
    rl("create", "--name", "shared", "alpine", "true")
    try:
        for number in range(4):
            (tmp_path / str(number)).write_text(str(number))
        copies = [rl.start("cp", str(tmp_path / str(number)), "shared:/") for number in range(4)]
        assert [copying.wait(PATIENCE) for copying in copies] == [0] * 4
        assert set("0123") <= set(rl("diff", "shared").stdout.replace("A /", "").split())
    finally:
        rl("rm", "-f", "shared")


def test_copy_that_is_killed_leaves_nothing_behind(rl: Rl) -> None:
    rl("run", "-d", "--name", "cut", "alpine", "sleep", "100000")
    try:
        for _ in range(2):
            copying = rl.start("cp", "-", "cut:/tmp", stdin=subprocess.PIPE)
            assert copying.stdin is not None
            info = tarfile.TarInfo("f")
            info.size = 1 << 20
            copying.stdin.write(info.tobuf() + b"x" * (1 << 18))
            copying.stdin.flush()
            children = Path(f"/proc/{copying.pid}/task/{copying.pid}/children")
            wait_until(children.read_text)
            pids = children.read_text().split()
            copying.kill()
            copying.wait()
            copying.stdin.close()
            while any(Path(f"/proc/{pid}").exists() for pid in pids):
                pass
            rl("stop", "-t", "0", "cut")
        rl("start", "cut")
        assert rl("exec", "cut", "echo", "well").stdout == "well\n"
    finally:
        rl("rm", "-f", "cut")
