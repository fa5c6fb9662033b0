"""What User-mode Linux has no controllers for: processors by number, swap, shares of a disk.

System calls are cheap here, but instructions are not: few commands, and no waiting for them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.guest.machine import HOG, IMAGE, counter, left, rl, running, sudo, wait_until

DISK = "/dev/vda"
MIB = 1 << 20
# The files of the two ways of the kernel to share a disk.
WEIGHTS = ("io.weight", "io.bfq.weight")


@pytest.fixture(autouse=True)
def _nothing_is_left() -> object:
    yield
    wait_until(lambda: not left())


@pytest.fixture
def swap() -> Iterator[None]:
    sudo("sh", "-c", "fallocate -l 256M /swap; chmod 600 /swap; mkswap /swap; swapon /swap")
    yield
    sudo("swapoff", "/swap")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a directory with a file of two MiB that no cache holds."""
    tmp_path.chmod(0o755)
    file = tmp_path / "file"
    file.write_bytes(b"x" * 2 * MIB)
    drop = ["dd", f"of={file}", "oflag=nocache", "conv=notrunc,fdatasync", "count=0"]
    subprocess.run(drop, check=True, capture_output=True)
    return tmp_path


def text(file: Path) -> str:
    return file.read_text().strip()


def io_counter(cgroup: Path, name: str) -> int:
    fields = (cgroup / "io.stat").read_text().split()
    return sum(int(one.partition("=")[2]) for one in fields if one.startswith(f"{name}="))


def seconds(done: subprocess.CompletedProcess[str]) -> float:
    """Return what BusyBox's time said."""
    *_, real = (line for line in done.stderr.splitlines() if line.startswith("real"))
    minutes, rest = real.split()[1:]
    return int(minutes.rstrip("m")) * 60 + float(rest.rstrip("s"))


def test_all_controllers_are_there() -> None:
    done = rl("info", "-f", "{{.CgroupDriver}} {{.CgroupControllers}} {{.CPUSet}}")
    assert done.stdout == "systemd [cpu cpuset io memory pids] true\n"


def test_a_container_keeps_to_its_processors_and_can_be_moved() -> None:
    with running("pinned", "--cpuset-cpus", "1", "--cpuset-mems", "0", IMAGE, "sleep", "1000"):
        allowed = ("exec", "pinned", "grep", "_allowed_list", "/proc/self/status")
        assert rl(*allowed).stdout.split() == ["Cpus_allowed_list:", "1", "Mems_allowed_list:", "0"]
        rl("update", "--cpuset-cpus", "0", "pinned")
        assert rl(*allowed).stdout.split()[1] == "0"


def test_processors_of_a_subtree_that_was_delegated_without_a_session() -> None:
    job = ("systemd-run", "--quiet", "--pipe", "--wait", "-p", "User=guest", "-p", "Delegate=yes")
    run = ("rl", "run", "--rm", "--cpuset-cpus", "1", IMAGE, "cat", "/sys/fs/cgroup/cpuset.cpus")
    assert sudo(*job, "-E", "PATH", *run).stdout == "1\n"


@pytest.mark.parametrize(
    ("limits", "taken", "status"),
    [
        (["-m", "32m", "--memory-swap", "96m"], "64M", 0),
        (["-m", "32m", "--memory-swap", "32m"], "64M", 137),
        # Without saying, as much swap as memory.
        (["-m", "32m"], "48M", 0),
    ],
)
@pytest.mark.usefixtures("swap")
def test_swap_is_taken_up_to_its_limit(limits: list[str], taken: str, status: int) -> None:
    done = rl("run", "--rm", *limits, IMAGE, *(HOG + taken).split(), check=False)
    assert done.returncode == status, done.stderr


@pytest.mark.usefixtures("swap")
def test_above_the_soft_limit_a_container_is_slowed_down_and_not_killed() -> None:
    with running("soft", "--memory-high", "16m", IMAGE, "sleep", "1000") as cgroup:
        rl("exec", "soft", *(HOG + "48M").split())
        assert counter(cgroup / "memory.events", "high") > 0
        assert counter(cgroup / "memory.events", "oom_kill") == 0
        # How long it was kept waiting.
        some = text(cgroup / "memory.pressure").splitlines()[0]
        assert int(some.rpartition("total=")[2]) > 0


@contextmanager
def budget(memory: str) -> Iterator[None]:
    config = Path.home() / ".config/rl/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f'[budget]\nmemory = "{memory}"\n')
    try:
        yield
    finally:
        config.unlink()


@pytest.mark.parametrize("reserved", [True, False])
def test_what_is_reserved_is_not_taken_by_a_neighbour(tmp_path: Path, reserved: bool) -> None:
    tmp_path.chmod(0o755)
    for name, size in (("mine", 32), ("much", 256)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size * MIB)
    volume = ("-v", f"{tmp_path}:/data:ro")
    limits = ["--memory-reservation", "48m"] if reserved else []
    read = "dd of=/dev/null bs=1M if=/data/"
    with budget("96m"), running("first", *limits, *volume, IMAGE, "sleep", "1000") as first:
        rl("exec", "first", *f"{read}mine".split())
        before = counter(first / "memory.stat", "file")
        assert before > 24 * MIB
        rl("run", "--rm", *volume, IMAGE, *f"{read}much".split())
        kept = counter(first / "memory.stat", "file")
        assert (kept > before * 0.9) == reserved, (before, kept)


@pytest.mark.parametrize(
    ("limit", "command"),
    [
        (f"--device-read-bps={DISK}:512kb", "dd if=/data/file of=/dev/null bs=64k iflag=direct"),
        (f"--device-read-iops={DISK}:8", "dd if=/data/file of=/dev/null bs=64k iflag=direct"),
        (f"--device-write-bps={DISK}:512kb", "dd if=/data/file of=/root/it conv=fsync"),
        (
            f"--device-write-iops={DISK}:4",
            "sh -c 'for i in $(seq 16); do dd if=/data/file of=/$i bs=4k count=1 conv=fsync; done'",
        ),
    ],
)
def test_a_disk_is_slowed_down(data: Path, limit: str, command: str) -> None:
    done = rl("run", "--rm", limit, "-v", f"{data}:/data:ro", IMAGE, "sh", "-c", f"time {command}")
    # Four seconds' worth, of which the kernel lets some through at once. More is never wrong.
    assert seconds(done) > 2.5


@contextmanager
def slow_disk() -> Iterator[None]:
    """Have the kernel share the disk out as if it did two MiB a second."""
    number = os.stat(DISK).st_rdev
    device = f"{os.major(number)}:{os.minor(number)}"
    speeds = "rbps=2097152 rseqiops=64 rrandiops=64 wbps=2097152 wseqiops=64 wrandiops=64"
    model, qos = (f"/sys/fs/cgroup/io.cost.{name}" for name in ("model", "qos"))
    sudo("sh", "-c", f"echo '{device} ctrl=user model=linear {speeds}' >{model}")
    sudo("sh", "-c", f"echo '{device} enable=1 ctrl=user min=100 max=100' >{qos}")
    try:
        yield
    finally:
        sudo("sh", "-c", f"echo '{device} enable=0' >{qos}")


def test_two_containers_share_a_disk_by_their_weights(data: Path) -> None:
    sudo("modprobe", "bfq")
    script = "while :; do dd if=/data/file of=/dev/null bs=64k iflag=direct 2>/dev/null; done"
    reader = ("-v", f"{data}:/data:ro", IMAGE, "sh", "-c", script)
    with (
        running("much", "--blkio-weight", "1000", *reader) as one,
        running("little", "--blkio-weight", "100", *reader) as two,
        slow_disk(),
    ):
        groups = (one.parent, two.parent)
        weights = [[text(group / name) for group in groups] for name in WEIGHTS]
        assert weights == [["default 10000", "default 910"], ["default 1000", "default 173"]]
        begun = [io_counter(group, "rbytes") for group in groups]

        def read() -> list[int]:
            now = (io_counter(group, "rbytes") for group in groups)
            return [end - start for end, start in zip(now, begun, strict=True)]

        wait_until(lambda: sum(read()) > 16 * MIB)
        much, little = read()
        assert much > 3 * little


def test_limits_are_changed_and_counted_while_a_container_runs(data: Path) -> None:
    volume = ("-v", f"{data}:/data:ro")
    with running("moving", "-m", "64m", *volume, IMAGE, "sleep", "1000") as cgroup:
        rl("exec", "moving", *"dd if=/data/file of=/dev/null bs=64k iflag=direct".split())
        changes = "--memory 96m --memory-swap 128m --memory-high 80m --memory-reservation 8m"
        rl("update", *changes.split(), "--blkio-weight", "500", "--cpu-shares", "512", "moving")
        files = {
            cgroup / "memory.max": f"{96 * MIB}",
            cgroup / "memory.swap.max": f"{32 * MIB}",
            cgroup / "memory.high": f"{80 * MIB}",
            cgroup / "memory.low": f"{8 * MIB}",
            cgroup.parent / "io.weight": "default 4950",
            cgroup.parent / "cpu.weight": "20",
        }
        assert {file: text(file) for file in files} == files
        template = "{{.MemUsage}} {{.BlockIO}}"
        _, _, limit, read, *_ = rl(
            "stats", "--no-stream", "--format", template, "moving"
        ).stdout.split()
        assert limit == "96MiB"
        assert float(read.removesuffix("MB")) == pytest.approx(
            io_counter(cgroup.parent, "rbytes") / 1e6, abs=0.2
        )
