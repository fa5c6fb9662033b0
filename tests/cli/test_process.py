"""The command as a process: what it imports, how it ends, what it leaves on its descriptors."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"asyncio", "httpx", "logging", "pyfuse3", "rich", "subprocess", "trio"}

SHOW_MODULES = """
import sys
from rootless.cli import execute
status = execute(sys.argv[1:])
import json
print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr)
"""


def imported(arguments: list[str], root: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", SHOW_MODULES, *arguments],
        env={**os.environ, "RL_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    status, modules = json.loads(done.stderr.splitlines()[-1])
    assert status == 0
    return set(modules)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["image", "--help"]])
def test_help_imports_nothing_but_click(arguments: list[str], tmp_path: Path) -> None:
    modules = imported(arguments, tmp_path)
    assert {name for name in modules if name.partition(".")[0] == "rootless"} == {
        "rootless",
        "rootless.cli",
        "rootless.cli.lazy",
        "rootless.cli.settings",
        "rootless.errors",
    }
    assert not HEAVY & modules


@pytest.mark.parametrize(
    "arguments",
    [
        ["ps", "-a"],
        ["images"],
        ["inspect", "--help"],
        ["run", "--help"],
        ["rm", "--help"],
        ["pull", "--help"],
    ],
)
def test_a_command_imports_nothing_heavy_before_it_needs_it(
    arguments: list[str], tmp_path: Path
) -> None:
    assert not HEAVY & imported(arguments, tmp_path)


def start(arguments: list[str], root: Path, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rootless", *arguments],
        env={**os.environ, "RL_ROOT": str(root)},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with start(["version"], tmp_path, stdout=writer) as process:
        os.close(writer)
        assert process.communicate()[1] == ""
    assert process.returncode == 128 + signal.SIGPIPE


def test_a_full_disk_under_the_output_is_said_once(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with start(["version"], tmp_path, stdout=full) as process:
        os.close(full)
        said = process.communicate()[1]
    assert said.startswith("rl: stdout: No space left on device")
    assert said.count("\n") == 1
    assert process.returncode == 125


def test_control_c_ends_a_command_without_a_word(tmp_path: Path) -> None:
    # The command is held where it wants the lock of the index, so that the signal finds it there.
    directory = tmp_path / "images"
    directory.mkdir()
    (tmp_path / "tmp").mkdir()
    (directory / "oci-layout").write_text("{}")
    lock = os.open(directory / "index.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with start(["rmi", "alpine"], tmp_path) as process:
        while not waits_for_a_lock(process.pid):
            assert process.poll() is None
            select.select([], [], [], 0.01)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate()
    os.close(lock)
    assert process.returncode == 130
    assert (out.strip(), said.strip()) == ("", "")


def waits_for_a_lock(pid: int) -> bool:
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(line[1] == "->" and line[5] == str(pid) for line in waiting)


def test_a_name_that_is_no_text_is_printed_as_an_escape(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            os.fsencode(sys.executable),
            b"-m",
            b"rootless",
            b"version",
            b"-f",
            b"\xff {{.Client.Os}}",
        ],
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"\\udcff linux\n"


def test_a_root_that_cannot_be_used_is_an_error_that_names_the_remedy() -> None:
    with start(["--root", "/proc/nowhere", "ps"], Path("/unused")) as process:
        said = process.communicate()[1]
    assert process.returncode == 125
    assert said.startswith("rl: cannot use /proc/nowhere for images and containers")
    assert "--root" in said


def complete(root: Path, line: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", "from rootless.main import main; main()"],
        env={
            **os.environ,
            "RL_ROOT": str(root),
            "_RL_COMPLETE": "bash_complete",
            "COMP_LINE": line,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return [choice.partition(",")[2] for choice in done.stdout.split()]


def test_commands_and_options_are_completed(tmp_path: Path) -> None:
    assert complete(tmp_path, "rl im") == ["images", "image"]
    assert complete(tmp_path, "rl image l") == ["ls"]
    assert complete(tmp_path, "rl images --dig") == ["--digests"]
    assert complete(tmp_path, "rl nosuch x") == []


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("rl run --network p", ["pasta", "private"]),
        ("rl run --network=sl", ["slirp4netns"]),
        ("rl run --restart ", ["no", "on-failure", "always", "unless-stopped"]),
        ("rl update --restart un", ["unless-stopped"]),
        ("rl create --pull ", ["always", "missing", "never"]),
        ("rl run --userns k", ["keep-id"]),
        ("rl run --log-driver ", ["json-file", "none"]),
        ("rl run --cap-add net_b", ["NET_BIND_SERVICE", "NET_BROADCAST"]),
        ("rl run --security-opt no", ["no-new-privileges"]),
        ("rl run --ipc ", ["host", "none", "private", "shareable", "container:"]),
        ("rl run --network=con", ["container:"]),
        ("rl kill -s SIGT", ["SIGTRAP", "SIGTERM", "SIGTSTP", "SIGTTIN", "SIGTTOU"]),
        ("rl stop -s ter", ["TERM"]),
        ("rl ps --filter st", ["status="]),
        ("rl start --filter=res", ["restart-policy="]),
        ("rl images -f d", ["dangling="]),
        ("rl events -f v", ["volume="]),
        ("rl volume ls -f l", ["label="]),
    ],
)
def test_values_of_options_are_completed(tmp_path: Path, line: str, offered: list[str]) -> None:
    assert sorted(complete(tmp_path, line)) == sorted(offered)


def test_completion_in_an_unusable_root_offers_nothing() -> None:
    assert complete(Path("/proc/nowhere"), "rl rm ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_calls_us_back(shell: str, tmp_path: Path) -> None:
    with start(["completion", shell], tmp_path) as process:
        script, _ = process.communicate()
    assert process.returncode == 0
    assert f"_RL_COMPLETE={shell}_complete" in script


def test_bash_takes_the_completion_script(tmp_path: Path) -> None:
    check = 'eval "$("$0" -m rootless completion bash)" && complete -p rl'
    done = subprocess.run(
        ["bash", "-c", check, sys.executable], capture_output=True, text=True, check=True
    )
    assert "rl" in done.stdout


def test_exec_with_no_process_to_spare_fails_in_one_line(tmp_path: Path) -> None:
    # We are one process already, so that it cannot make a second of ours.
    done = subprocess.run(
        ["prlimit", "--nproc=1", sys.executable, "-m", "rootless", "exec", "box", "true"],
        env={**os.environ, "RL_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 125
    assert done.stderr.startswith("rl: Resource temporarily unavailable")
    assert len(done.stderr.splitlines()) == 1
