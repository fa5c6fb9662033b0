"""scripts/setup: what it asks for, and what it leaves alone."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
PREFIX = Path(os.environ.get("RL_PREFIX", "/opt/rl"))


def setup(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPTS / "setup", *arguments],
        env={**os.environ, **environment},
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def without_sudo(tmp_path: Path) -> str:
    """Return a PATH on which sudo refuses, as it does for most people."""
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "sudo").write_text("#!/bin/sh\nexit 1\n")
    (directory / "sudo").chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


def test_without_root_setup_says_exactly_which_packages_are_missing(
    tmp_path: Path, without_sudo: str
) -> None:
    database = tmp_path / "dpkg"
    database.mkdir()
    status = Path("/var/lib/dpkg/status").read_text()
    for package in "uidmap", "libfuse3-dev":
        status, count = re.subn(rf"(?ms)^Package: {package}\n.*?\n\n", "", status)
        assert count == 1
    (database / "status").write_text(status)
    done = setup(DPKG_ADMINDIR=str(database), PATH=without_sudo, RL_PREFIX=str(tmp_path / "env"))
    assert done.returncode == 1
    assert done.stderr == (
        "setup: these packages are missing, and only root can install them: libfuse3-dev uidmap\n"
        "setup: ask for: apt-get install -y --no-install-recommends libfuse3-dev uidmap\n"
    )


def test_an_argument_that_setup_does_not_know_is_refused(tmp_path: Path) -> None:
    done = setup("--tset", RL_PREFIX=str(tmp_path / "env"))
    assert done.returncode == 2
    assert done.stderr == "usage: scripts/setup [--test]\n"
    assert not (tmp_path / "env").exists()


def state(*files: str) -> list[object]:
    """Return all that shows whether the environment, the commands or the users changed."""
    tree = [
        (path, (seen := path.lstat()).st_ino, seen.st_mtime_ns, seen.st_mode)
        for path in sorted(PREFIX.rglob("*"))
    ]
    links = [Path("/usr/local/bin", name).lstat() for name in ("rl", "fuse-overlay")]
    return [tree, links, [Path(file).read_bytes() for file in files]]


@pytest.mark.root
@pytest.mark.parametrize("arguments", [(), ("--test",)])
def test_a_second_setup_changes_nothing(arguments: tuple[str, ...]) -> None:
    users = ("/etc/passwd", "/etc/subuid", "/etc/subgid")
    assert setup("--test").returncode == 0
    before = state(*users)
    done = setup(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "",
        f"setup: rl is ready in {PREFIX}\n",
    )
    assert state(*users) == before


@pytest.mark.root
def test_setup_gives_everyone_fuse() -> None:
    os.chmod("/dev/fuse", 0o600)
    assert setup().returncode == 0
    assert os.stat("/dev/fuse").st_mode & 0o777 == 0o666


@pytest.mark.root
def test_the_subordinate_ids_of_the_test_user_are_those_of_nobody_else() -> None:
    for kind in "uid", "gid":
        lines = Path(f"/etc/sub{kind}").read_text().split()
        ranges = sorted((int(line.split(":")[1]), int(line.split(":")[2])) for line in lines)
        assert any(line.startswith("rl-test:") for line in lines)
        for (first, count), (following, _) in itertools.pairwise(ranges):
            assert first + count <= following


@pytest.mark.root
def test_everything_that_the_test_user_runs_is_byte_compiled() -> None:
    modules = [
        *(PREFIX / "src/rootless").rglob("*.py"),
        *(PREFIX / "src/fuse_overlay").rglob("*.py"),
    ]
    assert modules
    for module in modules:
        assert list((module.parent / "__pycache__").glob(f"{module.stem}.*.pyc")), module


@pytest.mark.root
def test_two_setups_at_once_both_succeed() -> None:
    shutil.rmtree(PREFIX / "src")
    command = [SCRIPTS / "setup"]
    both = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
