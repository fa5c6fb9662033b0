"""The disk limit: exact to the block, shown by df, right after a remount, harmless to all else."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuse_overlay.quota import Quota
from tests.fuse_overlay.support import fill, in_namespace, layers, mounted, unmount, whiteout

MIB = 1 << 20


@contextmanager
def limited(tmp_path: Path, limit: str = "size=8M,inodes=100") -> Iterator[Path]:
    low, upper, work = (tmp_path / name for name in ("low", "upper", "work"))
    with mounted([low], upper, work, tmp_path / "m", f",{limit}") as m:
        yield m


@pytest.fixture(autouse=True)
def directories(tmp_path: Path) -> None:
    layers(tmp_path, "low", "upper", "work")


def used(tmp_path: Path) -> int:
    """What du says of the upper directory, in bytes."""
    command = ["du", "-s", "--block-size=1", str(tmp_path / "upper")]
    return int(subprocess.run(command, check=True, capture_output=True).stdout.split()[0])


def free(root: Path) -> int:
    status = os.statvfs(root)
    return status.f_bavail * status.f_frsize


def fill_up(path: Path, chunk: int = 1 << 16) -> None:
    """Write to a file until it is refused."""
    with path.open("ab", 0) as file, pytest.raises(OSError, match="No space left"):
        deque(iter(lambda: file.write(b"x" * chunk), None), maxlen=0)


@in_namespace
def test_a_file_fills_the_limit_to_the_last_block_and_no_further(tmp_path: Path) -> None:
    with limited(tmp_path) as m:
        status = os.statvfs(m)
        assert status.f_blocks * status.f_frsize == 8 * MIB
        before = free(m)
        fill_up(m / "f")
        assert free(m) == 0
        assert (m / "f").stat().st_size == before
        assert used(tmp_path) == 8 * MIB
        (m / "f").unlink()
        assert free(m) == before
        fill_up(m / "f", 1000)
        assert used(tmp_path) == 8 * MIB
        assert (m / "f").stat().st_size // 4096 == before // 4096


def test_df_shows_what_is_used_even_if_the_disk_below_has_less_left(tmp_path: Path) -> None:
    (tmp_path / "upper/f").write_bytes(b"x" * MIB)
    upper = os.open(tmp_path / "upper", os.O_PATH)
    links = os.open(tmp_path / "work", os.O_PATH)
    quota = Quota(8 * MIB, 100, upper, links)
    os.close(upper)
    os.close(links)

    def shown(free: int, inodes: int, free_inodes: int) -> tuple[int, ...]:
        blocks = free // quota.block
        values = (quota.block, quota.block, 1 << 30, blocks, blocks, inodes, free_inodes, 0, 0, 255)
        status = quota.statvfs(os.statvfs_result(values))
        assert status.f_bfree == status.f_bavail
        used = (status.f_blocks - status.f_bfree) * quota.block
        assert abs(used - MIB) <= 4 * quota.block  # the directory has blocks, too
        return status.f_blocks * quota.block, status.f_files, status.f_files - status.f_ffree

    assert shown(1 << 40, 1 << 20, 1 << 20) == (8 * MIB, 100, 2)
    size, files, taken = shown(2 * MIB, 1 << 20, 40)
    assert (size // MIB, files, taken) == (3, 42, 2)
    assert shown(1 << 40, 0, 0)[1:] == (100, 2)


@in_namespace
def test_what_is_allocated_can_be_overwritten_when_all_is_full(tmp_path: Path) -> None:
    with limited(tmp_path) as m:
        fill_up(m / "f")
        with (m / "f").open("r+b", 0) as file:
            assert file.write(b"y" * MIB) == MIB
            os.fsync(file.fileno())
        assert (m / "f").read_bytes()[:MIB] == b"y" * MIB


@in_namespace
def test_fallocate_reserves_what_can_then_be_written(tmp_path: Path) -> None:
    with limited(tmp_path) as m, (m / "f").open("wb", 0) as file:
        with pytest.raises(OSError, match="No space left"):
            os.posix_fallocate(file.fileno(), 0, 9 * MIB)
        os.posix_fallocate(file.fileno(), 0, 4 * MIB)
        fill_up(m / "g")
        assert file.write(b"z" * MIB) == MIB


@in_namespace
def test_holes_cost_nothing_until_they_are_written(tmp_path: Path) -> None:
    with limited(tmp_path) as m, (m / "f").open("wb", 0) as file:
        before = free(m)
        file.truncate(1 << 40)
        assert free(m) == before
        assert os.pwrite(file.fileno(), b"x", 1 << 39) == 1
        assert before - free(m) in (4096, 8192)  # one block, perhaps one that says where it is


@in_namespace
def test_inodes_are_limited_whatever_they_are(tmp_path: Path) -> None:
    with limited(tmp_path) as m:
        left = os.statvfs(m).f_ffree
        makers = (Path.touch, Path.mkdir, lambda path: path.symlink_to("x"), os.mkfifo)
        for index in range(left):
            makers[index % 4](m / str(index))
        assert os.statvfs(m).f_ffree == 0
        for maker in makers:
            with pytest.raises(OSError, match="No space left"):
                maker(m / "more")
        os.rename(m / "0", m / "renamed")
        os.link(m / "renamed", m / "linked")
        (m / "linked").unlink()
        with pytest.raises(OSError, match="No space left"):
            (m / "more").touch()
        (m / "renamed").unlink()
        (m / "more").touch()


@in_namespace
def test_a_full_directory_refuses_new_names_and_lets_old_ones_go(tmp_path: Path) -> None:
    fill(tmp_path / "low", {"low": "low"})
    with limited(tmp_path) as m:
        (m / "f").touch()
        fill_up(m / "f")
        for attempt in (
            lambda: os.link(m / "f", m / "g"),
            (m / "h").touch,
            lambda: os.rename(m / "f", m / "new"),
            lambda: (m / "low").write_text("x"),
            lambda: os.setxattr(m / "f", "user.x", b"x"),
        ):
            with pytest.raises(OSError, match="No space left"):
                attempt()
        (m / "low").unlink()
        (m / "f").unlink()
        (m / "h").touch()


@in_namespace
def test_copying_up_is_refused_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "low/big").write_bytes(b"x" * (9 * MIB))
    (tmp_path / "low/fits").write_bytes(b"x" * (5 * MIB))
    with limited(tmp_path) as m:
        with pytest.raises(OSError, match="No space left"):
            os.chmod(m / "big", 0o600)
        assert os.listdir(tmp_path / "work/work") == []
        os.chmod(m / "fits", 0o600)
        assert used(tmp_path) == 8 * MIB - free(m)
        os.truncate(m / "big", MIB)
        assert used(tmp_path) == 8 * MIB - free(m)


@in_namespace
def test_an_empty_file_that_is_copied_up_counts(tmp_path: Path) -> None:
    for index in range(200):
        (tmp_path / f"low/{index}").touch()
    with limited(tmp_path) as m:
        left = os.statvfs(m).f_ffree
        assert 0 < left < 200
        for index in range(left):
            os.chmod(m / str(index), 0o600)
        assert os.statvfs(m).f_ffree == 0
        with pytest.raises(OSError, match="No space left"):
            os.chmod(m / "199", 0o600)
        os.unlink(m / "0")
        os.chmod(m / "199", 0o600)


@in_namespace
def test_a_full_disk_is_reported_by_msync_to_who_writes_to_memory(tmp_path: Path) -> None:
    with limited(tmp_path) as m:
        with (m / "mapped").open("w+b") as file:
            file.truncate(4 * MIB)
            memory = mmap.mmap(file.fileno(), 0)
            fill_up(m / "f")
            memory[:] = b"m" * (4 * MIB)
            with pytest.raises(OSError, match=r"No space left|Input/output"):
                memory.flush()
            memory.close()
        assert used(tmp_path) <= 8 * MIB


@in_namespace
def test_an_unlinked_open_file_counts_until_it_is_closed(tmp_path: Path) -> None:
    with limited(tmp_path) as m:
        before = free(m)
        with (m / "f").open("wb", 0) as file:
            file.write(b"x" * MIB)
            (m / "f").unlink()
            assert free(m) == before - MIB
        assert free(m) == before


@pytest.mark.parametrize("kill", [False, True], ids=["unmounted", "killed"])
@in_namespace
def test_the_count_is_right_after_a_remount(tmp_path: Path, kill: bool) -> None:
    whiteout(tmp_path / "upper/gone")
    with limited(tmp_path) as m:
        fill(m, {f"d{i}/e/f{j}": "x" * (i * j * 1000) for i in range(4) for j in range(4)})
        os.link(m / "d3/e/f3", m / "linked")
        os.symlink("x" * 200, m / "link")
        os.sync()
        if kill:
            server = subprocess.run(
                ["pgrep", "-f", f"fuse_overlay .*{tmp_path}"], check=True, capture_output=True
            )
            os.kill(int(server.stdout), signal.SIGKILL)
        else:
            shown = os.statvfs(m)
    with limited(tmp_path) as m:
        status = os.statvfs(m)
        assert (status.f_blocks - status.f_bfree) * status.f_frsize == used(tmp_path)
        entries = 1 + 8 + 16 + 1
        assert status.f_files - status.f_ffree == entries
        if not kill:
            assert status[2:8] == shown[2:8]
        subprocess.run(["rm", "-rf", *m.iterdir()], check=True)
        fill_up(m / "f")
        assert used(tmp_path) == 8 * MIB


@in_namespace
def test_neither_the_host_nor_a_neighbour_notices_a_full_one(tmp_path: Path) -> None:
    layers(tmp_path, "neighbour/upper", "neighbour/work")
    (tmp_path / "neighbour/low").symlink_to(tmp_path / "low")
    with limited(tmp_path) as m, limited(tmp_path / "neighbour") as other:
        fill_up(m / "f")
        assert free(other) > 7 * MIB
        (other / "f").write_bytes(b"x" * MIB)
        (tmp_path / "host").write_bytes(b"x" * (16 * MIB))


@in_namespace
def test_zeroing_a_range_that_has_no_blocks_is_limited_too(tmp_path: Path) -> None:
    with limited(tmp_path) as m:
        (m / "f").touch()
        command = ["fallocate", "--zero-range", "--length", str(20 * MIB), str(m / "f")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "No space left" in done.stderr
        assert used(tmp_path) < MIB


@in_namespace
def test_blocks_that_come_with_writing_back_are_counted(tmp_path: Path) -> None:
    with limited(tmp_path) as m:
        before = free(m)
        for _ in range(3):
            for name in "abcdef":
                with (m / name).open("wb", 0) as file:
                    for index in range(20):  # more extents than an inode holds itself
                        os.pwrite(file.fileno(), b"x", index << 16)
                    os.fsync(file.fileno())
            subprocess.run(["rm", *(m / name for name in "abcdef")], check=True)
            assert free(m) == before


@in_namespace
def test_a_directory_that_does_not_fit_is_not_renamed(tmp_path: Path) -> None:
    fill(tmp_path / "low", {f"d/{i}": "x" * (3 * MIB) for i in range(8)})
    with limited(tmp_path) as m:
        with pytest.raises(OSError, match="No space left"):
            os.rename(m / "d", m / "e")
        assert used(tmp_path) <= 8 * MIB
        assert sorted(os.listdir(m / "d")) == [str(i) for i in range(8)]


@in_namespace
def test_a_disk_below_that_is_full_first_is_an_error_too(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    upper, work = layers(disk, "upper", "work")
    (tmp_path / "low/big").write_bytes(b"x" * (12 * MIB))
    with mounted([tmp_path / "low"], upper, work, tmp_path / "m", ",size=1G") as m:
        with pytest.raises(OSError, match="No space left"):
            os.chmod(m / "big", 0o600)
        assert [name for name in os.listdir(work / "work") if name != "whiteout"] == []
    unmount(disk)


def test_a_size_that_is_none_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        ["fuse-overlay", "-o", "lowerdir=/,upperdir=/u,workdir=/w,size=lots", "/m"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "fuse-overlay: size=lots is no number; say for example size=2G\n"
