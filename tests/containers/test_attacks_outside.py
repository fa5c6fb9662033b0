"""Attacks on the processes that serve a container, and on the terminal it was started from."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from tests.support.runner import Rl
from tests.support.undefended import DUMPABLE, changed
from tests.support.waiting import PATIENCE, wait_until

PROMPT = "HOST> "

# Types a command into every terminal that it can open, as its user would.
INJECT = """
for my $name ("/dev/tty", "/dev/stdin", "/dev/stdout", "/dev/console") {
    open(my $file, "+<", $name) or next;
    -t $file or next;
    ioctl($file, 0x5412, $_) for split //, "touch COMMAND\\n";
}
print "tried\\n";
"""


@contextmanager
def shell(rl: Rl) -> Iterator[pexpect.spawn[str]]:
    """Start a shell on the host, in a terminal of its own."""
    terminal: pexpect.spawn[str] = pexpect.spawn(
        "bash", ["--norc", "--noprofile"], env=os.environ | rl.environment | {"PS1": PROMPT},
        encoding="utf-8", timeout=PATIENCE,
    )  # fmt: skip
    try:
        terminal.expect_exact(PROMPT)
        yield terminal
    finally:
        terminal.close(force=True)


# The terminal is the user's while every process of ours has left its session.
IN_SESSION = "import os; os.setsid = lambda: None"
# So does one with a terminal of its own, while that is not made its controlling terminal.
WITHOUT_CONTROL = """
import fcntl
ioctl = fcntl.ioctl
fcntl.ioctl = lambda fd, request, *rest: 0 if request == 0x540E else ioctl(fd, request, *rest)
"""
LEAVE = "\x10\x11"


@pytest.mark.parametrize("way", ["run", "run -it", "exec", "attach"])
def test_command_types_nothing_into_the_terminal_of_the_user(
    rl: Rl, debian: str, tmp_path: Path, way: str
) -> None:
    # TIOCSTI, as in CVE-2016-2568 and CVE-2017-5226.
    injected = tmp_path / "injected"
    (tmp_path / "inject").write_text(INJECT.replace("COMMAND", str(injected)))
    rl("pull", "-q", debian)
    options = ("--name", "typist", "-v", f"{tmp_path}:/shared", debian)
    inject = ("perl", "/shared/inject")
    # As long as somebody is attached, what is typed is read by the container anyway.
    later = "echo ready; until [ -e /shared/alone ]; do sleep 0.05; done; perl /shared/inject; "
    later += "touch /shared/done; sleep 1000"
    steps: dict[str, list[tuple[str, ...]]] = {
        "run": [("run", "--rm", *options, *inject)],
        "run -it": [("run", "-it", *options, "sh", "-c", later)],
        "exec": [("run", "-d", *options, "sleep", "1000"), ("exec", "typist", *inject)],
        "attach": [
            ("run", "-d", "-i", *options, "sh", "-c", f"read line; {later}"),
            ("attach", "typist"),
        ],
    }

    def attack(rl: Rl) -> bool:
        for name in ("injected", "alone", "done"):
            (tmp_path / name).unlink(missing_ok=True)
        # From files: what is typed is echoed, and must not look like an answer.
        for number, words in enumerate(steps[way]):
            command = shlex.join([*rl.command, *words])
            (tmp_path / f"step{number}").write_text(f"echo $$ > {tmp_path}/pid; exec {command}")
        with shell(rl) as terminal:
            for number in range(len(steps[way])):
                terminal.sendline(f"sh {tmp_path}/step{number}")
                if number < len(steps[way]) - 1:
                    terminal.expect_exact(PROMPT)
            if way in ("run -it", "attach"):
                if way == "attach":
                    terminal.sendline("go")
                terminal.expect_exact("ready")
                if way == "attach":
                    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
                else:
                    terminal.send(LEAVE)
                terminal.expect_exact(PROMPT)
                (tmp_path / "alone").touch()
                wait_until((tmp_path / "done").exists)
            else:
                terminal.expect_exact("tried")
                terminal.expect_exact(PROMPT)
            terminal.sendline("echo the''end")
            terminal.expect_exact("theend")
        rl("rm", "-f", "typist", check=False)
        return injected.exists()

    assert not attack(rl)
    missing = [IN_SESSION, WITHOUT_CONTROL] if way == "run -it" else [IN_SESSION]
    assert attack(changed(rl, *missing)) == kernel_allows()


def kernel_allows() -> bool:
    """Tell whether anybody may type into his own terminal: administrators forbid it since 6.2."""
    try:
        return Path("/proc/sys/dev/tty/legacy_tiocsti").read_text().strip() == "1"
    except FileNotFoundError:
        return True


def test_terminal_that_is_entered_is_the_kernels(rl: Rl) -> None:
    options = ("--name", "forger", "--cap-add", "SYS_ADMIN")
    rl(
        "run",
        "-d",
        *options,
        "alpine",
        "sh",
        "-c",
        "mount --bind /dev/zero /dev/pts/ptmx; sleep 1000",
    )
    mounted = "until grep -q ' /dev/pts/ptmx ' /proc/mounts; do sleep 0.05; done"
    rl("exec", "forger", "sh", "-c", mounted)
    done = rl("exec", "-t", "forger", "true", check=False)
    assert (done.returncode, done.stderr) == (
        125, "rl: cannot make a terminal: the container has changed its /dev/pts/ptmx\n"
    )  # fmt: skip
    rl("rm", "-f", "forger")


# What serves a container


@pytest.fixture
def outside(rl: Rl) -> str:
    """Return the change that a container is in the host's PID namespace, with its procfs."""
    return """
import os
from rootless.containers import create
build = create.build
def without_pid_namespace(*arguments):
    spec = build(*arguments)
    namespaces = spec["linux"]["namespaces"]
    spec["linux"]["namespaces"] = [space for space in namespaces if space["type"] != "pid"]
    spec["linux"]["maskedPaths"] = spec["linux"]["readonlyPaths"] = []
    for mount in spec["mounts"]:
        if mount["type"] == "proc":
            mount.update(type="bind", source="/proc", options=["rbind"])
    return spec
create.build = without_pid_namespace
"""


LOOK = """
for p in /proc/[0-9]*; do
    case $(cat $p/comm 2>/dev/null) in
        rl-supervisor|rl-overlay) kill -0 ${p#/proc/} && echo "reached $(cat $p/comm)";;
    esac
done
"""


def test_processes_that_serve_a_container_are_out_of_its_reach(rl: Rl, outside: str) -> None:
    def attack(rl: Rl) -> set[str]:
        command = ("--privileged", "--network", "none", "alpine", "sh", "-c", LOOK)
        return set(rl("run", "--rm", *command).stdout.splitlines())

    assert attack(rl) == set()
    assert attack(changed(rl, outside)) == {"reached rl-supervisor", "reached rl-overlay"}


READ = """
for p in /proc/[0-9]*; do
    [ "$(cat $p/comm 2>/dev/null)" = rl-overlay ] || continue
    [ "$(readlink $p/ns/user)" = "$(readlink /proc/self/ns/user)" ] || continue
    ls $p/fd/ >/dev/null 2>&1 && echo read
done
true
"""


def test_server_cannot_be_read_even_by_a_container_that_sees_it(rl: Rl, outside: str) -> None:
    # In the user namespace of the container, as it is for those that cannot see it, only this is
    # between them.
    together = """
from rootless.containers import idmaps
serving = idmaps.serving
idmaps.serving = lambda container, storage, **_: serving(container, storage)
"""

    def attack(rl: Rl) -> bool:
        command = ("--privileged", "--network", "none", "alpine", "sh", "-c", READ)
        return "read" in rl("run", "--rm", *command).stdout

    assert not attack(changed(rl, outside, together))
    assert attack(changed(rl, outside, together, DUMPABLE))


TAKE_OVER = """
for p in PROC/[0-9]*; do
    grep -q DIRECTORY.*/PROGRAM $p/cmdline 2>/dev/null || continue
    ls $p/root/ >/dev/null 2>&1 && echo reached || echo refused
done
"""


@pytest.mark.parametrize("sight", [("--pid", "host"), ("-v", "/proc:/host")], ids=" ".join)
def test_program_that_connects_a_container_which_sees_it_cannot_be_taken_over(
    rl: Rl, sight: tuple[str, str]
) -> None:
    def attack(rl: Rl, program: str) -> str:
        script = TAKE_OVER.replace("DIRECTORY", f"^{rl.directory}").replace("PROGRAM", program)
        script = script.replace("PROC", "/host" if "-v" in sight else "/proc")
        options = ("--rm", *sight, "--network", program)
        done = rl("run", *options, "alpine", "sh", "-c", script, check=False)
        return done.stdout + done.stderr

    unchecked = """
from rootless.containers import namespaces
namespaces.check_network = lambda *_: None
"""
    assert "could take slirp4netns over (use pasta" in attack(rl, "slirp4netns")
    assert attack(changed(rl, unchecked), "slirp4netns") == "reached\n"
    assert attack(rl, "pasta") == "refused\n"


def test_no_namespace_of_the_host_is_shared(rl: Rl) -> None:
    kinds = ("user", "mnt", "pid", "uts", "ipc", "net", "cgroup")
    ours = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}
    script = f"cd /proc/self/ns; for kind in {' '.join(kinds)}; do readlink $kind; done"

    def attack(rl: Rl) -> set[str]:
        """Return the kinds of which the container has a handle of ours."""
        done = rl("run", "--rm", "--network", "none", "alpine", "sh", "-c", script)
        return {kind for kind in kinds if ours[kind] in done.stdout.split()}

    sharing = """
from rootless.containers import create
build = create.build
def without_cgroup_namespace(*arguments):
    spec = build(*arguments)
    namespaces = spec["linux"]["namespaces"]
    spec["linux"]["namespaces"] = [space for space in namespaces if space["type"] != "cgroup"]
    return spec
create.build = without_cgroup_namespace
"""
    assert attack(rl) == set()
    assert attack(changed(rl, sharing)) == {"cgroup"}
