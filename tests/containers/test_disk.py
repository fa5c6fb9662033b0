"""A container's disk limit: ENOSPC for who exceeds it, and nothing worse for anyone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.errors import RlError
from rootless.quota import Disk, parse
from rootless.sizes import LARGEST
from tests.support.runner import Rl
from tests.support.undefended import changed

MIB = 1 << 20
FULL = "No space left on device"
DD = "dd if=/dev/zero of=/f bs=64k"
MANY = int(os.environ.get("RL_TEST_FILES", "3000"))


@pytest.fixture
def box(rl: Rl) -> Iterator[str]:
    """Return the name of a container of 8 MiB and 500 files that runs."""
    start(rl, "limited", "size=8m", "inodes=500")
    yield "limited"
    rl("rm", "-f", "limited")


def start(rl: Rl, name: str, *limits: str) -> None:
    options = [word for limit in limits for word in ("--storage-opt", limit)]
    rl("run", "-d", "--name", name, *options, "alpine", "sleep", "100000")


def sh(rl: Rl, name: str, script: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return rl("exec", name, "sh", "-c", script, check=check)


def free(rl: Rl, name: str) -> int:
    """Return what df says is left, in bytes."""
    return int(sh(rl, name, "df -k / | tail -1").stdout.split()[3]) * 1024


def used(rl: Rl, name: str) -> int:
    """Return what du says of the upper directory, in bytes."""
    path = rl.root / "containers" / rl("inspect", "-f", "{{.Id}}", name).stdout.strip() / "upper"
    done = subprocess.run(["du", "-s", "-B1", path], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0])


def overlay_of(rl: Rl, name: str) -> int:
    """Return the process that serves a container: a child of its supervisor, as is PID 1."""
    state = rl.root / "containers" / rl("inspect", "-f", "{{.Id}}", name).stdout.strip()
    supervisor = json.loads((state / "state.json").read_text())["supervisor"]["pid"]
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    (server,) = [
        pid for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "rl-overlay"
    ]
    return int(server)


def assert_fills(rl: Rl, name: str, script: str) -> None:
    done = sh(rl, name, script, check=False)
    assert done.returncode != 0
    assert FULL in done.stderr


def test_limits_are_sizes_as_dockers() -> None:
    assert parse(["size=2G", "inodes=16"]) == Disk(2 << 30, 16)
    assert parse(["size=512m", "size=64k"]) == Disk(65536)
    assert parse([]) == Disk()
    assert parse([f"size={LARGEST}", f"inodes={LARGEST}"]) == Disk(LARGEST, LARGEST)
    for count in (str(LARGEST + 1), "9" * 26, "9" * 5000):
        for too_many in (f"size={count}", f"size={count[:-2]}.5k", f"inodes={count}"):
            with pytest.raises(RlError, match=str(LARGEST)):
                parse([too_many])
    assert parse(["size=0", "inodes=0"]) == Disk(0, 0)
    for few in ("size=1k", "inodes=15"):
        with pytest.raises(RlError, match=f"{few} is too little"):
            parse([few])
    for wrong in ("size", "size=", "inodes=1k", "inodes=-1", "size=x", "dm.size=1", "=1"):
        with pytest.raises(RlError):
            parse([wrong])


def test_df_and_inspect_and_ps_show_the_limit(rl: Rl, box: str) -> None:
    assert sh(rl, box, "df -k / | tail -1").stdout.split()[1] == "8192"
    assert sh(rl, box, "df -i / | tail -1").stdout.split()[1] == "500"
    (inspected,) = json.loads(rl("inspect", box).stdout)
    assert inspected["HostConfig"]["StorageOpt"] == {"size": str(8 * MIB), "inodes": "500"}
    sh(rl, box, "dd if=/dev/zero of=/f bs=1M count=2")
    shown = rl("ps", "-s", "--filter", f"name={box}", "--format", "{{.Size}}").stdout
    assert re.match(r"2\.1MB of 8\.39MB \(virtual ", shown)


# In a directory that can be removed with them: one that has grown stays as long as it is.
FILLERS = {
    "dd": "dd if=/dev/zero of=/t/f bs=64k",
    "many small files": "i=0; while echo x > /t/$i; do i=$((i+1)); done; echo x > /t/more",
    "a sparse file": "truncate -s 1G /t/f && dd if=/dev/zero of=/t/f bs=4k seek=9 conv=notrunc",
    "appending": "while yes | head -c 100000 >> /t/f; do :; done; echo more >> /t/f",
    "copies of the image's": "while cp /bin/busybox /t/$((i=i+1)); do :; done; exit 1",
    "directories": "d=/t/d; while mkdir $d; do d=$d/d; done; mkdir /t/more",
    "links": "ln -s x /t/0; i=0; while ln -s x /t/$((i=i+1)); do :; done; ln -s x /t/more",
}


@pytest.mark.parametrize("script", FILLERS.values(), ids=FILLERS.keys())
def test_container_fills_up_and_works_again_when_something_is_removed(
    rl: Rl, box: str, script: str
) -> None:
    before = free(rl, box)
    for _ in range(2):
        assert_fills(rl, box, f"mkdir /t; {script}")
        assert used(rl, box) <= 8 * MIB
        sh(rl, box, "rm -rf /t")
        assert free(rl, box) == before
    sh(rl, box, "echo works > /w; cat /w")


@pytest.mark.parametrize("limit", ["size=8m", "inodes=100"])
def test_limit_is_what_stops_a_container(rl: Rl, limit: str) -> None:
    scripts = {
        "size=8m": "dd if=/dev/zero of=/f bs=64k count=256",
        "inodes=100": "i=0; while [ $i -lt 200 ]; do echo > /f$i || exit; i=$((i+1)); done",
    }

    def attack(rl: Rl) -> bool:
        options = ("--rm", "--storage-opt", limit, "alpine", "sh", "-c", scripts[limit])
        return rl("run", *options, check=False).returncode == 0

    assert not attack(rl)
    unlimited = "from fuse_overlay.quota import Quota; Quota.limit = lambda self, *_: "
    unlimited += "setattr(self, '_limit', None) or setattr(self, '_inode_limit', None)"
    assert attack(changed(rl, unlimited))


def test_many_small_files_end_at_the_limit_exactly(rl: Rl) -> None:
    # RL_TEST_FILES=1000000 for the long form.
    start(rl, "many", f"inodes={MANY}")
    try:
        script = "mkdir /m; cd /m; i=0; while true 2>/dev/null > $i; do i=$((i+1)); done; echo $i"
        made = int(rl("exec", "many", "sh", "-c", script, timeout=850).stdout)
        left = sh(rl, "many", "df -i / | tail -1").stdout.split()
        assert (left[1], left[3]) == (str(MANY), "0")
        assert MANY - 20 < made < MANY
        sh(rl, "many", "cd /m; for i in $(seq 100); do rm $i; true > new$i; done; rm 0")
        sh(rl, "many", "true > /m/last")
        assert_fills(rl, "many", "true > /m/more")
    finally:
        rl("rm", "-f", "many")


def test_rename_and_hard_links_cannot_step_over_the_edge(rl: Rl, box: str) -> None:
    sh(rl, box, "echo x > /a; mkdir /dir; dd if=/dev/zero of=/f bs=64k 2>/dev/null; :")
    # What needs no room goes on, what needs some does not: a lower file would have to be copied.
    for script in ("ln /a /b", "mv /etc/passwd /p", "mv /bin/busybox /x", "ln /bin/busybox /x"):
        assert_fills(rl, box, script)
    assert used(rl, box) <= 8 * MIB
    sh(rl, box, "rm /f; ln /a /b; mv /etc/passwd /p; mv /p /etc/passwd")


def test_mmap_beyond_the_limit_is_told_and_kills_nobody_else(rl: Rl, debian: str) -> None:
    rl("pull", "-q", debian)
    rl("run", "-d", "--name", "mapped", "--storage-opt", "size=8m", debian, "sleep", "100000")
    script = """
import mmap, os
fd = os.open("/f", os.O_RDWR | os.O_CREAT)
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
        assert sh(rl, "mapped", "rm /f; echo works > /w; cat /w").stdout == "works\n"
    finally:
        rl("rm", "-f", "mapped")


def test_count_is_exact_after_a_kill_and_a_restart(rl: Rl, box: str) -> None:
    sh(rl, box, "i=0; while [ $i -lt 100 ]; do head -c 20000 /bin/busybox > /k$((i=i+1)); done")
    os.kill(overlay_of(rl, box), signal.SIGKILL)
    rl("wait", box, check=False)
    rl("start", box)
    before = free(rl, box)
    assert before == 8 * MIB - used(rl, box)
    assert_fills(rl, box, DD)
    rl("restart", "-t", "0", box)
    assert free(rl, box) == 8 * MIB - used(rl, box) == 0
    sh(rl, box, "rm /f")
    assert free(rl, box) == before


def test_neighbour_and_host_do_not_notice(rl: Rl, box: str, tmp_path: Path) -> None:
    start(rl, "neighbour", "size=8m")
    try:
        assert_fills(rl, box, DD)
        assert free(rl, "neighbour") > 7 * MIB
        sh(rl, "neighbour", "dd if=/dev/zero of=/f bs=1M count=6")
        (tmp_path / "host").write_bytes(b"x" * (16 * MIB))
        # Volumes and tmpfs are not in it.
        assert rl("exec", box, "sh", "-c", "echo x > /dev/shm/x; cat /dev/shm/x").stdout == "x\n"
    finally:
        rl("rm", "-f", "neighbour")


def test_update_changes_the_limit_of_a_running_container_at_once(rl: Rl, box: str) -> None:
    assert_fills(rl, box, DD)
    assert rl("update", "--storage-opt", "size=12m", box).stdout == f"{box}\n"
    assert free(rl, box) == 4 * MIB
    sh(rl, box, "dd if=/dev/zero of=/g bs=1M count=4")
    rl("update", "--storage-opt", "size=4m", box)
    assert free(rl, box) == 0
    sh(rl, box, "rm /f")
    assert_fills(rl, box, "echo x > /h")
    sh(rl, box, "rm /g; echo x > /h")
    rl("restart", "-t", "0", box)
    assert sh(rl, box, "df -k / | tail -1").stdout.split()[1] == "4096"
    assert sh(rl, box, "df -i / | tail -1").stdout.split()[1] == "500"
    rl("update", "--storage-opt", "size=0", "--storage-opt", "inodes=0", box)
    assert free(rl, box) > 12 * MIB


def test_update_of_a_container_without_limit_waits_for_its_next_start(rl: Rl) -> None:
    start(rl, "free")
    try:
        done = rl("update", "--storage-opt", "size=8m", "free")
        assert "when it is started again" in done.stderr
        assert free(rl, "free") > 8 * MIB
        rl("restart", "-t", "0", "free")
        assert sh(rl, "free", "df -k / | tail -1").stdout.split()[1] == "8192"
        rl("stop", "-t", "0", "free")
        assert rl("update", "--storage-opt", "size=16m", "free").stderr == ""
        rl("start", "free")
        assert sh(rl, "free", "df -k / | tail -1").stdout.split()[1] == "16384"
    finally:
        rl("rm", "-f", "free")
    assert rl("update", "none", check=False).returncode == 125
    assert "no such container" in rl("update", "--storage-opt", "size=1m", "no", check=False).stderr


def test_copy_into_a_container_meets_its_limit(rl: Rl, box: str, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * (9 * MIB))
    for _ in range(2):
        done = rl("cp", str(tmp_path / "big"), f"{box}:/", check=False)
        assert done.returncode == 125
        assert FULL in done.stderr
        rl("stop", "-t", "0", box)
    rl("start", box)
    assert free(rl, box) > 7 * MIB


def test_configuration_has_a_default_that_an_option_replaces(rl: Rl) -> None:
    file = rl.directory / "home/.config/rl/config.toml"
    file.parent.mkdir(parents=True)

    def limit(*options: str) -> list[str]:
        script = "df -k / | tail -1; df -i / | tail -1"
        lines = rl("run", "--rm", *options, "alpine", "sh", "-c", script).stdout.splitlines()
        return [line.split()[1] for line in lines]

    try:
        file.write_text('[storage]\nsize = "16m"\ninodes = 300\n')
        assert limit() == ["16384", "300"]
        assert limit("--storage-opt", "size=8m") == ["8192", "300"]
        assert limit("--storage-opt", "size=0")[0] != "16384"
        for text, why in (
            ('[storage]\nsize = "lots"\n', "the configuration's [storage]: invalid size 'lots'"),
            ("[storage]\nsise = 1\n", "has no sise"),
            ("storage = 1\n", "must be a table"),
            ("[storage\n", "is no TOML"),
        ):
            file.write_text(text)
            done = rl("run", "--rm", "alpine", "true", check=False)
            assert done.returncode == 125
            assert why in done.stderr
            assert done.stderr.count("\n") == 1
    finally:
        file.unlink()
