"""The look for leaks finds what it is there to find."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.kernel import userns
from tests.support import leaks


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rl-leak-") as name:
        yield Path(name)


def sleeper(**options: object) -> subprocess.Popen[bytes]:
    command = ["sleep", "1000"]
    return subprocess.Popen(command, **options)  # type: ignore[call-overload,no-any-return]


def found(directory: Path, process: subprocess.Popen[bytes]) -> list[str]:
    """Return what is found while the process lives; end it."""
    try:
        # Its arguments and environment come a moment after Popen returns.
        while Path(f"/proc/{process.pid}/cmdline").read_bytes() != b"sleep\x001000\x00":
            assert process.poll() is None
        return leaks.processes(directory)
    finally:
        process.kill()
        process.wait()


def test_a_process_with_the_directory_in_its_environment_is_found(directory: Path) -> None:
    process = sleeper(env={**os.environ, "RL_ROOT": str(directory / "store")})
    assert found(directory, process) == [f"{process.pid} sleep 1000 "]


def test_a_process_that_works_in_the_directory_is_found(directory: Path) -> None:
    process = sleeper(cwd=directory)
    assert found(directory, process) == [f"{process.pid} sleep 1000 "]


def test_a_process_with_a_mount_of_the_directory_in_a_namespace_of_its_own_is_found(
    directory: Path,
) -> None:
    script = 'mount --bind "$1" /mnt && cd / && echo ready && exec env -i sleep 1000'
    process = subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", directory],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
    assert found(directory, process) == [f"{process.pid} sleep 1000 "]


def test_nothing_is_found_for_a_directory_that_no_process_knows(directory: Path) -> None:
    assert leaks.wait_for_none(directory) == []


def test_a_tree_of_subordinate_ids_is_removed(directory: Path) -> None:
    def plant(tree: str) -> None:
        os.makedirs(f"{tree}/closed")
        os.chown(f"{tree}/closed", 33, 33)
        os.chmod(f"{tree}/closed", 0)

    userns.call(plant, f"{directory}/tree")
    with pytest.raises(PermissionError):
        os.listdir(directory / "tree/closed")
    leaks.remove_tree(directory / "tree")
    assert os.listdir(directory) == []
