"""scripts/as-user: as whom, where and with what a command runs."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


class Environment:
    """A checkout and a prefix of its own; its Python is the one that runs the tests."""

    def __init__(self, directory: Path) -> None:
        self.prefix = directory / "prefix"
        self.checkout = directory / "closed/checkout"
        shutil.copytree(
            CHECKOUT,
            self.checkout,
            ignore=shutil.ignore_patterns(".git", "__pycache__", ".*_cache"),
        )
        # A checkout in someone's home, which others cannot enter.
        self.checkout.parent.chmod(0o700)
        self.prefix.mkdir()
        (self.prefix / "venv").symlink_to(sys.prefix)

    def as_user(
        self, *command: str, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.checkout / "scripts/as-user", *command],
            env={**os.environ, **variables, "RL_PREFIX": str(self.prefix)},
            cwd=cwd or self.checkout,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def environment() -> Iterator[Environment]:
    # Not tmp_path: only its owner can enter that.
    with tempfile.TemporaryDirectory(prefix="as-user-", dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        yield Environment(Path(directory))


def test_your_own_user_runs_the_command_where_you_are(environment: Environment) -> None:
    done = environment.as_user("sh", "-c", "id -u; pwd; command -v rl", cwd=Path("/usr"))
    assert done.stdout.split() == [str(os.getuid()), "/usr", f"{environment.prefix}/venv/bin/rl"]


def test_before_setup_as_user_says_what_to_do(environment: Environment) -> None:
    (environment.prefix / "venv").unlink()
    done = environment.as_user("true")
    assert (done.returncode, done.stderr) == (1, "as-user: run scripts/setup first\n")


@pytest.mark.root
def test_root_becomes_the_test_user_with_no_capability(environment: Environment) -> None:
    user = pwd.getpwnam("rl-test")
    script = (
        "id -u; id -G; grep CapEff /proc/self/status; echo $HOME; stat -c %a:%u $XDG_RUNTIME_DIR"
    )
    done = environment.as_user("sh", "-c", script)
    assert done.stdout.splitlines() == [
        str(user.pw_uid),
        str(user.pw_gid),
        "CapEff:\t0000000000000000",
        user.pw_dir,
        f"700:{user.pw_uid}",
    ]


@pytest.mark.root
def test_where_the_test_user_cannot_go_the_command_runs_in_the_copy(
    environment: Environment,
) -> None:
    assert environment.as_user("pwd").stdout == f"{environment.prefix}/src\n"
    assert environment.as_user("pwd", cwd=Path("/usr")).stdout == "/usr\n"


@pytest.mark.root
def test_of_roots_environment_the_way_to_the_network_remains_and_nothing_else(
    environment: Environment,
) -> None:
    done = environment.as_user(
        "env", https_proxy="http://proxy:3128", AWS_SECRET="x", PYTHONPATH="/x", RL_TEST_X="a b"
    )
    variables = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert variables["https_proxy"] == "http://proxy:3128"
    assert variables["RL_TEST_X"] == "a b"
    assert "AWS_SECRET" not in variables
    assert "PYTHONPATH" not in variables


@pytest.mark.root
@pytest.mark.parametrize(
    ("command", "status"), [("exit 7", 7), ("kill -TERM $$", -15), ("no-such-command", 127)]
)
def test_the_exit_status_is_the_commands(
    environment: Environment, command: str, status: int
) -> None:
    assert environment.as_user("sh", "-c", command).returncode == status


@pytest.mark.root
def test_what_runs_is_what_the_checkout_holds_now(environment: Environment) -> None:
    show = ("python", "-c", "from rootless import edited; print(edited.WORD)")
    module = environment.checkout / "rootless/edited.py"
    # Same size, same second: neither the copy nor its byte code may be the old one.
    for word in "one", "two", "six":
        module.write_text(f"WORD = {word!r}\n")
        module.chmod(0o600)
        assert environment.as_user(*show).stdout == f"{word}\n"
    module.unlink()
    assert environment.as_user("test", "-e", "rootless/edited.py").returncode == 1


@pytest.mark.root
def test_what_git_ignores_is_not_copied(environment: Environment) -> None:
    (environment.checkout / ".mypy_cache").mkdir()
    (environment.checkout / "rootless/__pycache__").mkdir()
    (environment.checkout / "rootless/__pycache__/planted").touch()
    environment.as_user("true")
    assert not (environment.prefix / "src/.mypy_cache").exists()
    assert not (environment.prefix / "src/rootless/__pycache__/planted").exists()
