"""Volumes with a size: ENOSPC for whoever exceeds it, one truth for all who have it."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.errors import RlError
from rootless.quota import Disk
from rootless.volumes.options import parse
from tests.support import images
from tests.support.registry import Registry
from tests.support.runner import Rl
from tests.support.undefended import changed

MIB = 1 << 20
FULL = "No space left on device"
MANY = int(os.environ.get("RL_TEST_FILES", "3000"))
DD = "dd if=/dev/zero of=/v/f bs=64k"


@pytest.fixture
def box(rl: Rl) -> Iterator[str]:
    """Return a container that runs with the volume `bounded`, of 8 MiB and 500 files, on /v."""
    rl("volume", "create", "-o", "size=8m", "--opt", "inodes=500", "bounded")
    start(rl, "box", "-v", "bounded:/v")
    yield "box"
    rl("rm", "-f", "box")
    rl("volume", "rm", "bounded")


def start(rl: Rl, name: str, *options: str) -> None:
    rl("run", "-q", "-d", "--name", name, *options, "alpine", "sleep", "100000")


def sh(rl: Rl, name: str, script: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return rl("exec", name, "sh", "-c", script, check=check)


def free(rl: Rl, name: str) -> int:
    """Return what df says is left on /v, in bytes."""
    return int(sh(rl, name, "df -k /v | tail -1").stdout.split()[3]) * 1024


def used(rl: Rl, volume: str = "bounded") -> int:
    """Return what du says of the volume's directory on the host, in bytes."""
    path = rl.root / "volumes" / volume / "_data"
    done = subprocess.run(["du", "-s", "-B1", path], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0])


def test_size_is_what_stops_a_container(rl: Rl) -> None:
    def attack(rl: Rl) -> bool:
        # The server is told of the limit by the first container that has the volume.
        rl("volume", "create", "-o", "size=8m", "stopping")
        command = ("alpine", "dd", "if=/dev/zero", "of=/v/f", "bs=64k", "count=256")
        done = rl("run", "--rm", "-v", "stopping:/v", *command, check=False)
        rl("volume", "rm", "stopping")
        return done.returncode == 0

    assert not attack(rl)
    unlimited = "from fuse_overlay.quota import Quota; Quota.limit = lambda self, *_: "
    unlimited += "setattr(self, '_limit', None) or setattr(self, '_inode_limit', None)"
    assert attack(changed(rl, unlimited))


def assert_fills(rl: Rl, name: str, script: str) -> None:
    done = sh(rl, name, script, check=False)
    assert done.returncode != 0
    assert FULL in done.stderr


# What is asked for


def test_options_are_dockers_and_podmans() -> None:
    assert parse(["size=2G", "inodes=16"]) == Disk(2 << 30, 16)
    assert parse(["o=size=512m,inodes=20"]) == Disk(512 * MIB, 20)
    assert parse([]) == Disk()
    for wrong in ("size", "size=x", "inodes=1k", "o=uid=3", "type=nfs", "device=/dev/sda", "=1"):
        with pytest.raises(RlError):
            parse([wrong])
    for twice in (["size=1G", "size=2G"], ["inodes=20", "o=size=1G,inodes=30"]):
        with pytest.raises(RlError, match="volume option is given twice"):
            parse(twice)
    with pytest.raises(RlError, match="needs root"):
        parse(["type=tmpfs"])


def test_limit_is_shown_and_stays(rl: Rl, box: str) -> None:
    (inspected,) = json.loads(rl("volume", "inspect", "bounded").stdout)
    assert inspected["Options"] == {"size": str(8 * MIB), "inodes": "500"}
    assert sh(rl, box, "df -k /v | tail -1").stdout.split()[1] == "8192"
    assert sh(rl, box, "df -i /v | tail -1").stdout.split()[1] == "500"
    assert rl("volume", "create", "bounded").stdout == "bounded\n"
    assert rl("volume", "create", "-o", "inodes=500", "-o", "size=8m", "bounded").returncode == 0
    for other in (("-o", "size=9m"), ("-o", "size=8m")):
        done = rl("volume", "create", *other, "bounded", check=False)
        assert done.returncode == 125
        assert done.stderr == (
            "rl: volume bounded is there already, with -o size=8388608 -o inodes=500, which "
            "cannot be changed (choose another name, or remove it first)\n"
        )
    assert rl("volume", "create", "-o", "size=1x", "bounded2", check=False).returncode == 125
    assert "bounded2" not in rl("volume", "ls", "-q").stdout.split()


def test_mount_may_make_a_volume_with_a_limit(rl: Rl) -> None:
    before = rl("volume", "ls", "-q").stdout.split()
    mount = "type=volume,src=made,dst=/v,volume-opt=size=8m,volume-opt=inodes=100"
    look = ("alpine", "sh", "-c", "df -k /v | tail -1; df -i /v | tail -1")
    lines = rl("run", "-q", "--rm", "--mount", mount, *look).stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["8192", "100"]
    # An anonymous one, that goes with its container.
    shown = rl("run", "-q", "--rm", "--mount", mount.replace("src=made,", ""), *look).stdout
    assert shown.split()[1] == "8192"
    assert set(rl("volume", "ls", "-q").stdout.split()) - set(before) == {"made"}
    done = rl("run", "--rm", "--mount", mount.replace("8m", "9m"), *look, check=False)
    assert done.returncode == 125
    assert "volume made is there already" in done.stderr
    for wrong in (
        "type=bind,src=/tmp,dst=/v,volume-opt=size=8m",
        "type=tmpfs,dst=/v,volume-subpath=x",
        "type=volume,dst=/v,volume-subpath=x",
        "type=volume,src=made,dst=/v,volume-subpath=../x",
    ):
        assert rl("run", "--rm", "--mount", wrong, "alpine", "true", check=False).returncode == 125
    rl("volume", "rm", "made")


# What is enforced

FILLERS = {
    "dd": "dd if=/dev/zero of=/v/t/f bs=64k",
    "many small files": "i=0; while echo x > /v/t/$i; do i=$((i+1)); done; echo x > /v/t/more",
    "a sparse file": "truncate -s 1G /v/t/f && dd if=/dev/zero of=/v/t/f bs=4k conv=notrunc",
    "appending": "while yes | head -c 100000 >> /v/t/f; do :; done; echo more >> /v/t/f",
    "directories": "d=/v/t/d; while mkdir $d; do d=$d/d; done; mkdir /v/t/more",
    "links": "i=0; while ln -s x /v/t/$((i=i+1)); do :; done; ln -s x /v/t/more",
}


@pytest.mark.parametrize("script", FILLERS.values(), ids=FILLERS.keys())
def test_volume_fills_up_and_works_again_when_something_is_removed(
    rl: Rl, box: str, script: str
) -> None:
    before = free(rl, box)
    for _ in range(2):
        assert_fills(rl, box, f"mkdir /v/t; {script}")
        assert used(rl) <= 8 * MIB
        sh(rl, box, "rm -rf /v/t")
        assert free(rl, box) == before
    sh(rl, box, "echo works > /v/w; cat /v/w")


def test_many_small_files_end_at_the_limit_exactly(rl: Rl) -> None:
    # RL_TEST_FILES=1000000 for the long form.
    rl("volume", "create", "-o", f"inodes={MANY}", "many")
    start(rl, "many", "-v", "many:/v")
    try:
        script = "cd /v; i=0; while true 2>/dev/null > $i; do i=$((i+1)); done; echo $i"
        made = int(rl("exec", "many", "sh", "-c", script, timeout=850).stdout)
        left = sh(rl, "many", "df -i /v | tail -1").stdout.split()
        assert (left[1], left[3]) == (str(MANY), "0")
        assert MANY - 5 < made < MANY
        sh(rl, "many", "cd /v; for i in $(seq 100); do rm $i; true > new$i; done; rm 0")
        sh(rl, "many", "true > /v/last")
        assert_fills(rl, "many", "true > /v/more")
    finally:
        rl("rm", "-f", "many")
        rl("volume", "rm", "many")


def test_rename_and_hard_links_cannot_step_over_the_edge(rl: Rl, box: str) -> None:
    sh(rl, box, "echo x > /v/a; mkdir /v/dir; dd if=/dev/zero of=/v/f bs=64k 2>/dev/null; :")
    # To another file system it is a copy.
    for script in ("ln /v/a /v/b", "mv /bin/busybox /v/x", "cp -l /v/a /v/dir/b"):
        assert_fills(rl, box, script)
    assert sh(rl, box, "ln /bin/busybox /v/x", check=False).returncode != 0
    assert used(rl) <= 8 * MIB
    sh(rl, box, "rm /v/f; ln /v/a /v/b; mv /v/a /v/dir/a; mv /v/dir /v/moved; cat /v/moved/a")


def test_mmap_beyond_the_limit_is_told_and_kills_nobody_else(rl: Rl, debian: str) -> None:
    rl("pull", "-q", debian)
    mount = "type=volume,src=mapped,dst=/v,volume-opt=size=8m"
    rl("run", "-d", "--name", "mapped", "--mount", mount, debian, "sleep", "100000")
    script = """
import mmap, os
fd = os.open("/v/f", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 16 << 20)
memory = mmap.mmap(fd, 0)
memory[:] = b"m" * (16 << 20)
try:
    memory.flush()
    print("flushed")
except OSError as error:
    print(os.strerror(error.errno))
"""
    try:
        done = rl("exec", "mapped", "python3", "-c", script)
        assert done.stdout.strip() in (FULL, "Input/output error")
        assert used(rl, "mapped") <= 8 * MIB
        assert sh(rl, "mapped", "rm /v/f; echo works > /v/w; cat /v/w").stdout == "works\n"
    finally:
        rl("rm", "-f", "mapped")
        rl("volume", "rm", "mapped")


def test_neighbour_and_the_containers_own_files_do_not_notice(rl: Rl, box: str) -> None:
    rl("volume", "create", "-o", "size=8m", "neighbour")
    start(rl, "neighbour", "-v", "neighbour:/v", "-v", "free:/free")
    try:
        assert_fills(rl, box, DD)
        sh(rl, box, "dd if=/dev/zero of=/own bs=1M count=9")
        assert free(rl, "neighbour") > 7 * MIB
        sh(rl, "neighbour", "dd if=/dev/zero of=/v/f bs=1M count=7")
        sh(rl, "neighbour", "dd if=/dev/zero of=/free/f bs=1M count=9")
    finally:
        rl("rm", "-f", "neighbour")
        rl("volume", "rm", "neighbour", "free")


# Who has it


def test_containers_that_share_it_see_one_file_system(rl: Rl, box: str) -> None:
    start(rl, "other", "-v", "bounded:/v", "-v", "bounded:/again:ro")
    try:
        sh(rl, box, "echo one > /v/a; mkdir -m 700 /v/d; ln /v/a /v/d/b; chown 33:34 /v/a")
        assert sh(rl, "other", "cat /v/d/b; stat -c '%u:%g %h' /again/a").stdout == (
            "one\n33:34 2\n"
        )
        sh(rl, "other", "echo two >> /v/d/b; rm /v/a; chmod 4755 /v/d/b")
        assert sh(rl, box, "cat /v/d/b; stat -c '%a %h' /v/d/b; ls /v").stdout == (
            "one\ntwo\n4755 1\nd\n"
        )
        assert "Read-only" in sh(rl, "other", "touch /again/x", check=False).stderr
        assert_fills(rl, "other", DD)
        assert_fills(rl, box, "echo x > /v/x")
        assert free(rl, box) == free(rl, "other") == 0
    finally:
        rl("rm", "-f", "other")


@pytest.mark.parametrize(
    "options",
    [("--userns", "keep-id"), ("--userns", "auto"), ("--userns", "nomap"), ("--userns", "single"),
     ("--pid", "host"), ("--network", "host"), ("--privileged",), ("--read-only",), ("-u", "33")],
    ids=" ".join,
)  # fmt: skip
def test_it_works_whatever_else_the_container_is(rl: Rl, options: tuple[str, ...]) -> None:
    mount = "type=volume,src=any,dst=/v,volume-opt=size=8m,U=true"
    done = rl("run", "-q", "--rm", *options, "--mount", mount, "alpine", "sh", "-c",
              f"echo x > /v/x && stat -c %u /v/x && id -u; {DD}", check=False)  # fmt: skip
    owner, user = done.stdout.split()
    assert owner == user
    assert FULL in done.stderr
    assert used(rl, "any") <= 8 * MIB
    rl("volume", "rm", "any")


def test_owner_is_the_same_one_for_every_map(rl: Rl, box: str) -> None:
    sh(rl, box, "touch /v/a /v/b; chown 33:34 /v/a")
    rl("volume", "create", "plain")
    look = ("alpine", "sh", "-c", "cd /v; stat -c '%u:%g %n' a b; touch c; stat -c %u:%g c")
    fill = ("-v", "plain:/v", "alpine", "sh", "-c", "touch /v/a /v/b; chown 33:34 /v/a; ls /v")
    rl("run", "-q", "--rm", *fill)
    for mode in ("", "keep-id", "nomap", "single"):
        shown = [
            rl("run", "-q", "--rm", "-u", "0", "--userns", mode, "-v", f"{volume}:/v", *look)
            if mode != "nomap"
            else rl("run", "-q", "--rm", "--userns", mode, "-v", f"{volume}:/v", *look, check=False)
            for volume in ("plain", "bounded")
        ]
        assert shown[0].stdout == shown[1].stdout
        sh(rl, box, "rm -f /v/c")
        rl("run", "-q", "--rm", "-v", "plain:/v", "alpine", "rm", "-f", "/v/c")
    rl("volume", "rm", "plain")


def test_volumes_from_brings_it(rl: Rl, box: str) -> None:
    done = rl("run", "-q", "--rm", "--volumes-from", f"{box}:ro", "alpine", "sh", "-c",
              "df -k /v | tail -1; touch /v/x", check=False)  # fmt: skip
    assert done.stdout.split()[1] == "8192"
    assert "Read-only" in done.stderr


# What it holds


def test_new_container_finds_what_another_left(rl: Rl, box: str) -> None:
    assert_fills(rl, box, f"echo kept > /v/k; {DD}")
    rl("restart", "-t", "0", box)
    assert sh(rl, box, "cat /v/k").stdout == "kept\n"
    assert free(rl, box) == 0
    rl("rm", "-f", box)
    start(rl, box, "-v", "bounded:/v")
    assert_fills(rl, box, "echo x > /v/x")
    sh(rl, box, "rm /v/f; echo x > /v/x")
    assert free(rl, box) == 8 * MIB - used(rl)


def pushed(registry: Registry, directory: Path, name: str, size: int) -> str:
    """Return an image with files of another user in /data, of ``size`` bytes together."""
    data = tarfile.TarInfo("data")
    data.type, data.mode, data.uid, data.gid = tarfile.DIRTYPE, 0o2750, 33, 34
    files: dict[str, bytes | str | tarfile.TarInfo] = {"1": data}
    for number in range(4):
        files[f"data/{number}"] = os.urandom(size // 4)
    images.busybox(directory / name, files)
    registry.push(f"oci:{directory / name}:latest", f"tests/{name}")
    return f"{registry.host}/tests/{name}"


def test_first_container_fills_it_as_any_volume(rl: Rl, registry: Registry, tmp_path: Path) -> None:
    name = pushed(registry, tmp_path, "fills", MIB)
    rl("volume", "create", "-o", "size=8m", "filled")
    look = ("sh", "-c", "ls -lan /data | tail -n +2; cat /data/* | md5sum")
    shown = [
        rl("run", "-q", "--rm", "-v", f"{volume}:/data", name, *look).stdout
        for volume in ("plain", "filled")
    ]

    def without_times(listing: str) -> list[list[str]]:
        lines = [line.split() for line in listing.splitlines() if not line.endswith("..")]
        return [[*words[:5], words[-1]] for words in lines]

    assert without_times(shown[0]) == without_times(shown[1])
    nocopy = "type=volume,src=empty,dst=/data,volume-nocopy,volume-opt=size=8m"
    assert rl("run", "-q", "--rm", "--mount", nocopy, name, "ls", "/data").stdout == ""
    rl("volume", "rm", "plain", "filled", "empty")


def test_filling_that_does_not_fit_leaves_it_as_it_was(
    rl: Rl, registry: Registry, tmp_path: Path
) -> None:
    name = pushed(registry, tmp_path, "toobig", 12 * MIB)
    rl("volume", "create", "-o", "size=8m", "small")
    done = rl("run", "-q", "--rm", "-v", "small:/data", name, "true", check=False)
    assert done.returncode == 125
    assert done.stderr.startswith("rl: cannot fill a volume from the image: ")
    assert FULL in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(rl.root / "volumes/small/_data") == []
    look = "stat -c '%u:%g %a' /v; df -k /v | tail -1"
    shown = rl("run", "-q", "--rm", "-v", "small:/v:nocopy", "alpine", "sh", "-c", look).stdout
    assert shown.startswith("0:0 755\n")
    assert int(shown.split()[5]) > 8000
    rl("volume", "rm", "small")


def test_part_of_a_volume_is_mounted(rl: Rl, box: str) -> None:
    make = "mkdir -p /v/a/b; echo deep > /v/a/b/c; echo top > /v/f; ln -s /etc /v/host; "
    make += "ln -s ../../../../etc /v/up"
    sh(rl, box, make)
    rl("run", "-q", "--rm", "-v", "plain:/v", "alpine", "sh", "-c", make)

    def part(volume: str, path: str, *command: str) -> subprocess.CompletedProcess[str]:
        mount = f"type=volume,src={volume},dst=/part,volume-subpath={path}"
        return rl("run", "-q", "--rm", "--mount", mount, "alpine", *command, check=False)

    for volume in ("plain", "bounded"):
        assert part(volume, "a/b", "cat", "/part/c").stdout == "deep\n"
        assert part(volume, "f", "cat", "/part").stdout == "top\n"
        for leads_out in ("host/passwd", "up/passwd"):
            done = part(volume, leads_out, "cat", "/part")
            assert done.returncode == 125
            assert done.stderr == (
                f"rl: cannot mount {leads_out} of volume {volume}: No such file or directory\n"
            )
    mount = "type=volume,src=bounded,dst=/part,subpath=a"
    done = rl("run", "-q", "--rm", "--mount", mount, "alpine", "sh", "-c",
              "df -k /part | tail -1; dd if=/dev/zero of=/part/f bs=64k", check=False)  # fmt: skip
    assert done.stdout.split()[1] == "8192"
    assert FULL in done.stderr
    rl("volume", "rm", "plain")


def test_copy_into_it_counts_whether_the_container_runs_or_not(
    rl: Rl, box: str, tmp_path: Path
) -> None:
    (tmp_path / "big").write_bytes(b"x" * (9 * MIB))
    (tmp_path / "fits").write_bytes(b"x" * MIB)
    for state in ("running", "stopped"):
        done = rl("cp", str(tmp_path / "big"), f"{box}:/v/{state}", check=False)
        assert done.returncode == 125
        assert FULL in done.stderr
        rl("cp", str(tmp_path / "fits"), f"{box}:/v/fits-{state}")
        assert (rl.root / f"volumes/bounded/_data/fits-{state}").stat().st_size == MIB
        assert used(rl) <= 8 * MIB
        rl("cp", f"{box}:/v/fits-{state}", str(tmp_path / "back"))
        assert (tmp_path / "back").stat().st_size == MIB
        rl("stop", "-t", "0", box)
    rl("start", box)
    assert free(rl, box) == 8 * MIB - used(rl)


def test_volume_in_use_is_not_removed_and_prune_leaves_it(rl: Rl, box: str) -> None:
    done = rl("volume", "rm", "bounded", check=False)
    assert (done.returncode, "in use by container box" in done.stderr) == (125, True)
    rl("volume", "prune", "-f", "-a")
    assert "bounded" in rl("volume", "ls", "-q").stdout.split()


def test_size_is_counted_where_disk_usage_is_shown(rl: Rl, box: str) -> None:
    sh(rl, box, "dd if=/dev/zero of=/v/f bs=1M count=3")
    lines = rl("system", "df", "-v").stdout.splitlines()
    (line,) = [line.split() for line in lines if line.startswith("bounded ")]
    assert line == ["bounded", "1", "3.15MB", "of", "8.39MB"]
    done = rl("run", "-q", "-d", "--name", "own", "--storage-opt", "size=8m", "alpine", "sh", "-c",
              "dd if=/dev/zero of=/f bs=1M count=3; sleep 100000")  # fmt: skip
    assert done.returncode == 0
    while "3.15MB of 8.39MB" not in rl("ps", "-s", "--filter", "name=own").stdout:
        pass
    lines = rl("system", "df", "-v").stdout.splitlines()
    assert any("3.15MB of 8.39MB" in line and line.endswith(" own") for line in lines)
    shown = rl("stats", "--no-stream", "--format", "{{.Disk}}", "own").stdout
    assert shown == "3.15MB of 8.39MB\n"
    rl("rm", "-f", "own")
