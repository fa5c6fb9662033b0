"""A container that joins another: --network, --pid, --ipc, --uts and --userns container:NAME."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.support import leaks
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE, wait_until

RUN = ("run", "--rm", "-q")
SLEEP = ("alpine", "sleep", "1000")
KINDS = {"network": "net", "pid": "pid", "ipc": "ipc", "uts": "uts", "userns": "user"}
# Leaves processes behind that no signal but one ends, in a root directory and a session of theirs.
STRAYS = """
    for i in 1 2 3; do setsid sh -c 'trap "" TERM HUP; exec sleep 1001' & done
    chroot / setsid sleep 1002 &
    echo up; exec sleep 1003
"""


def namespaces(rl: Rl, *into: str) -> dict[str, str]:
    """Return those of a process in a container, by their names in /proc."""
    script = "cd /proc/self/ns; for n in net pid ipc uts user mnt; do readlink $n; done"
    return dict(line.split(":") for line in rl(*into, "sh", "-c", script).stdout.split())


def refused(rl: Rl, *options: str) -> str:
    """Return the one line that says why a container cannot be made."""
    done = rl(*RUN, *options, "alpine", "true", check=False)
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1
    return done.stderr


def status(rl: Rl, name: str) -> str:
    return rl("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).stdout.strip()


def wait_until_ended(rl: Rl, name: str) -> None:
    wait_until(lambda: status(rl, name).startswith("exited"))


def processes(rl: Rl, name: str) -> list[str]:
    """Return the commands in a container, as the host sees them."""
    listing = [line.split() for line in rl("top", name, "-eo", "pid,stat,args").stdout.splitlines()]
    # What ended among others is theirs to be waited for.
    return [" ".join(args) for _, stat, *args in listing[1:] if not stat.startswith("Z")]


def supervisor_of(rl: Rl, name: str) -> int:
    container_id = rl("inspect", "-f", "{{.Id}}", name).stdout.strip()
    state = json.loads((rl.root / "containers" / container_id / "state.json").read_bytes())
    return int(state["supervisor"]["pid"])


@pytest.fixture
def target(rl: Rl) -> Iterator[str]:
    """Return the name of a container that runs; joiners are called joiner."""
    options = ("--hostname", "box", "--ipc", "shareable", "--add-host", "elsewhere:192.0.2.7")
    rl("run", "-d", "--name", "target", *options, *SLEEP)
    yield "target"
    rl("rm", "-f", "joiner", check=False)
    rl("rm", "-f", "target", check=False)


def join(rl: Rl, *options: str, command: tuple[str, ...] = SLEEP) -> None:
    rl("run", "-d", "--name", "joiner", *options, *command)


# What is joined


@pytest.mark.parametrize("option", KINDS)
def test_namespace_is_that_of_the_container_that_was_named(
    rl: Rl, target: str, option: str
) -> None:
    join(rl, f"--{option}", f"container:{target}")
    theirs, found = (namespaces(rl, "exec", name) for name in (target, "joiner"))
    assert {kind for kind in theirs if theirs[kind] == found[kind]} == {KINDS[option], "user"}
    pid = rl("inspect", "-f", "{{.State.Pid}}", "joiner").stdout.strip()
    assert os.readlink(f"/proc/{pid}/ns/{KINDS[option]}").endswith(theirs[KINDS[option]])


def test_all_are_joined_at_once_and_through_another_joiner(rl: Rl, target: str) -> None:
    every = [f"--{option}=container:{target}" for option in KINDS]
    join(rl, *every)
    theirs, found = (namespaces(rl, "exec", name) for name in (target, "joiner"))
    assert {kind for kind in theirs if theirs[kind] == found[kind]} == set(KINDS.values())
    through = namespaces(rl, *RUN, "--network=container:joiner", "--pid=container:target", "alpine")
    assert (through["net"], through["pid"]) == (theirs["net"], theirs["pid"])
    shown = json.loads(rl("inspect", "joiner").stdout)[0]["HostConfig"]
    container_id = rl("inspect", "-f", "{{.Id}}", target).stdout.strip()
    for field in ("NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode"):
        assert shown[field] == f"container:{container_id}"


def test_servers_of_the_network_are_reached_by_localhost_and_its_names_are_known(
    rl: Rl, target: str
) -> None:
    rl("exec", "-d", target, "sh", "-c", "while :; do echo hello | nc -l -p 80; done")
    script = """
        for i in $(seq 600); do nc localhost 80 </dev/null && break; sleep 0.1; done
        hostname; cat /etc/hostname /etc/hosts
    """
    found = rl(*RUN, "--network", f"container:{target}", "alpine", "sh", "-c", script).stdout
    assert found.splitlines()[:3] == ["hello", "box", "box"]
    assert found.endswith(rl("exec", target, "cat", "/etc/hosts").stdout)
    assert "192.0.2.7\telsewhere" in found


def test_names_are_those_of_the_network_as_they_are_at_the_start(rl: Rl, target: str) -> None:
    network = ("--network", f"container:{target}")
    rl("create", "--name", "joiner", *network, "alpine", "cat", "/etc/hosts")
    rl("exec", target, "sh", "-c", "echo 192.0.2.8 later >> /etc/hosts")
    assert "192.0.2.8 later\n" in rl("start", "-a", "joiner").stdout
    # What the joiner writes is its own.
    rl(*RUN, *network, "alpine", "sh", "-c", "echo 192.0.2.9 mine > /etc/hosts")
    assert "mine" not in rl("exec", target, "cat", "/etc/hosts").stdout


def test_memory_and_message_queues_of_the_ipc_namespace_are_shared(rl: Rl, target: str) -> None:
    rl("exec", target, "sh", "-c", "echo shared > /dev/shm/m; ipcmk -Q >/dev/null 2>&1; true")
    script = "cat /dev/shm/m; echo back > /dev/shm/back; grep ' /dev/mqueue ' /proc/mounts"
    found = rl(*RUN, "--ipc", f"container:{target}", "alpine", "sh", "-c", script).stdout
    assert found.startswith("shared\nmqueue /dev/mqueue mqueue ")
    assert rl("exec", target, "cat", "/dev/shm/back").stdout == "back\n"
    join(rl, "--ipc", f"container:{target}")
    assert rl("exec", "joiner", "cat", "/dev/shm/back").stdout == "back\n"


def test_memory_is_shared_only_by_whom_wants_it(rl: Rl) -> None:
    rl("run", "-d", "--name", "closed", *SLEEP)
    assert "container closed: non-shareable IPC" in refused(rl, "--ipc", "container:closed")
    rl("rm", "-f", "closed")


def test_host_name_is_that_of_the_uts_namespace(rl: Rl, target: str) -> None:
    script = ("sh", "-c", "hostname; echo $HOSTNAME")
    assert rl(*RUN, "--uts", f"container:{target}", "alpine", *script).stdout == "box\nbox\n"


def test_processes_are_seen_and_reached_and_proc_is_theirs(rl: Rl, target: str) -> None:
    rl("exec", "-d", target, "sleep", "1004")
    script = """
        test "$(tr '\\0' ' ' < /proc/1/cmdline)" = "sleep 1000 " || exit 1
        ls /proc/1/root/etc/hosts
        for p in /proc/[0-9]*; do
            test "$(tr '\\0' ' ' < $p/cmdline)" = "sleep 1004 " && kill ${p#/proc/} && echo killed
        done
        test -w /proc/sysrq-trigger && echo open; cat /proc/keys
    """
    found = rl(*RUN, "--pid", f"container:{target}", "alpine", "sh", "-c", script, check=False)
    assert found.stdout == "/proc/1/root/etc/hosts\nkilled\n"


@pytest.mark.parametrize("mode", ["keep-id", "nomap", "auto", "single"])
def test_ids_are_those_of_the_user_namespace_and_files_are_stored_as_always(
    rl: Rl, mode: str
) -> None:
    rl("run", "-d", "--name", "target", "--userns", mode, "alpine", "sleep", "1000")
    id_map = ("cat", "/proc/self/uid_map")
    theirs = rl("exec", "target", *id_map).stdout
    join(rl, "--network", "container:target")
    assert rl("exec", "joiner", *id_map).stdout == theirs
    made = ("sh", "-c", "touch /made; stat -c %u:%g /made /bin")
    assert rl("exec", "joiner", *made).stdout == "0:0\n0:0\n"
    rl("rm", "-f", "joiner", "target")


def test_ids_of_a_joiner_are_nobody_elses_also_when_the_one_that_it_joined_is_gone(rl: Rl) -> None:
    def ids(name: str) -> tuple[int, int]:
        _, first, size = rl("exec", name, "cat", "/proc/self/uid_map").stdout.split()
        return int(first), int(size)

    rl("run", "-d", "--name", "target", "--userns", "auto", *SLEEP)
    join(rl, "--network", "container:target")
    rl("rm", "-f", "target")
    rl("run", "-d", "--name", "other", "--userns", "auto", *SLEEP)
    (mine, size), (its, _) = ids("joiner"), ids("other")
    rl("rm", "-f", "joiner", "other")
    assert its >= mine + size


# What fits not together


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--hostname", "x"), "hostname and the network mode"),
        (("-p", "80"), "port publishing and the container type network mode"),
        (("-P",), "port publishing and the container type network mode"),
        (("--expose", "80"), "port exposing and the container type network mode"),
        (("--dns", "192.0.2.1"), "dns and the network mode"),
        (("--dns-search", "x"), "dns and the network mode"),
        (("--add-host", "x:192.0.2.1"), "custom host-to-IP mapping and the network mode"),
        (("--mac-address", "92:d0:c6:0a:29:33"), "mac-address and the network mode"),
        (("--ip", "192.0.2.1"), "ip and the network mode"),
    ],
)
def test_what_another_network_has_already_is_refused(
    rl: Rl, options: tuple[str, ...], why: str
) -> None:
    found = refused(rl, "--network", "container:nobody", *options)
    assert found == f"rl: conflicting options: {why}\n"


def test_what_cannot_be_together_is_refused_with_the_reason(rl: Rl, target: str) -> None:
    network = ("--network", f"container:{target}")
    assert "hostname and the UTS mode" in refused(rl, "--uts", "container:x", "-h", "x")
    assert "cannot be used by a container that joins" in refused(rl, *network, "--pid", "host")
    assert "is in its user namespace" in refused(rl, *network, "--userns", "keep-id")
    assert "another container's network" in refused(
        rl, *network, "--sysctl", "net.ipv4.ip_forward=1"
    )
    for option in KINDS:
        assert "no such container: nobody" in refused(rl, f"--{option}", "container:nobody")
        assert "invalid" in refused(rl, f"--{option}", "container:")
    rl("run", "-d", "--name", "other", *SLEEP)
    two = ("--network", "container:other", "--uts", f"container:{target}")
    assert "each has a user namespace of its own" in refused(rl, *two)
    rl("rm", "-f", "other")
    shared = ("--pid", "host", "--network", "host", "--uts", "host")
    rl("run", "-d", "--name", "open", *shared, *SLEEP)
    assert "it has the host's PID namespace" in refused(rl, "--network", "container:open")
    rl("rm", "-f", "open")
    rl("run", "-d", "--name", "open", *shared[2:], *SLEEP)
    assert "the host's network (use --network host)" in refused(rl, "--network", "container:open")
    assert "the host's UTS namespace (use --uts host)" in refused(rl, "--uts", "container:open")
    rl("rm", "-f", "open")


# Life and death


def test_what_does_not_run_cannot_be_joined_and_what_runs_again_can(rl: Rl, target: str) -> None:
    rl(
        "create",
        "--name",
        "joiner",
        "--network",
        f"container:{target}",
        "alpine",
        "readlink",
        "/proc/self/ns/net",
    )
    assert (
        rl("start", "-a", "joiner").stdout.strip() == f"net:{namespaces(rl, 'exec', target)['net']}"
    )
    rl("stop", "-t", "0", target)
    for start in (("start", "joiner"), ("restart", "joiner")):
        done = rl(*start, check=False)
        assert done.returncode != 0
        assert "cannot join the network of a non running container: target" in done.stderr
    assert status(rl, "joiner") == "exited 125"
    rl("start", target)
    assert (
        rl("start", "-a", "joiner").stdout.strip() == f"net:{namespaces(rl, 'exec', target)['net']}"
    )
    rl("rm", "-f", target)
    done = rl("start", "joiner", check=False)
    assert "cannot join the network of container" in done.stderr
    assert "it was removed" in done.stderr


def test_joiner_goes_on_in_a_network_whose_container_was_removed(rl: Rl, target: str) -> None:
    join(rl, "--network", f"container:{target}")
    before = namespaces(rl, "exec", "joiner")
    rl("rm", "-f", target)
    assert namespaces(rl, "exec", "joiner") == before
    assert status(rl, "joiner") == "running 0"


@pytest.mark.parametrize("end", ["stop", "kill the supervisor"])
def test_joiner_of_a_pid_namespace_ends_with_it_and_says_so(rl: Rl, target: str, end: str) -> None:
    join(rl, "--pid", f"container:{target}")
    if end == "stop":
        rl("stop", "-t", "0", target)
    else:
        os.kill(supervisor_of(rl, target), signal.SIGKILL)
    assert rl("wait", "joiner").stdout == "137\n"
    assert status(rl, "joiner") == "exited 137"
    assert "cannot join the PID namespace" in rl("start", "joiner", check=False).stderr


@pytest.mark.parametrize("end", ["stop", "rm -f", "kill the supervisor, rm", "by itself"])
def test_end_of_a_joiner_is_that_of_all_its_processes_and_of_no_others(
    rl: Rl, target: str, end: str
) -> None:
    script = STRAYS if end != "by itself" else STRAYS.replace("exec sleep 1003", "cat")
    options = ("--pid", f"container:{target}")
    with rl.start(
        "run",
        "-i",
        "--name",
        "joiner",
        *options,
        "alpine",
        "sh",
        "-c",
        script,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        rl("exec", "-d", "joiner", "setsid", "sleep", "1005")
        everybody = [f"sleep {n}" for n in (1001, 1001, 1001, 1002, 1005)]
        wait_until(lambda: set(everybody) <= set(processes(rl, target)))
        assert sorted(set(everybody) & set(processes(rl, "joiner"))) == sorted(set(everybody))
        assert "sleep 1000" not in processes(rl, "joiner")
        match end:
            case "stop":
                rl("stop", "-t", "0", "joiner")
            case "kill the supervisor, rm":
                os.kill(supervisor_of(rl, "joiner"), signal.SIGKILL)
                rl("rm", "-f", "joiner")
            case "rm -f":
                rl("rm", "-f", "joiner")
            case _:
                running.stdin.close()
        running.wait(timeout=PATIENCE)
    assert processes(rl, target) == ["sleep 1000"]


def test_joiner_is_looked_into_as_any_container(rl: Rl, target: str) -> None:
    every = [f"--{option}=container:{target}" for option in KINDS]
    health = ("--health-cmd", "test -e /made", "--health-interval", "1s", "--health-retries", "1")
    join(rl, *every, *health)
    rl("exec", "joiner", "touch", "/made")
    rl("cp", "joiner:/made", "target:/copied")
    rl("exec", target, "test", "-e", "/copied")
    rl("wait", "--condition", "healthy", "joiner")
    assert "A /made\n" in rl("diff", "joiner").stdout
    assert "copied" not in rl("diff", "joiner").stdout


def test_joiner_whose_policy_says_so_takes_the_namespaces_of_a_target_that_came_back(
    rl: Rl, target: str
) -> None:
    join(rl, "--pid", f"container:{target}", "--restart", "always")
    rl("restart", "-t", "0", target)
    wait_until(
        lambda: (
            status(rl, "joiner").startswith("running") and "sleep 1000" in processes(rl, "joiner")
        )
    )
    theirs, found = (namespaces(rl, "exec", name)["pid"] for name in (target, "joiner"))
    assert theirs == found


def test_rounds_of_kill_9_leave_a_true_state_and_nobody_behind(fresh_rl: Rl) -> None:
    rl = fresh_rl
    for victims in (("target",), ("joiner",), ("joiner", "target")):
        rl("run", "-d", "--name", "target", "--ipc", "shareable", *SLEEP)
        every = [f"--{option}=container:target" for option in KINDS]
        join(rl, *every, command=("alpine", "sh", "-c", STRAYS))
        for victim in victims:
            os.kill(supervisor_of(rl, victim), signal.SIGKILL)
        for name in {"joiner", *victims}:
            wait_until_ended(rl, name)
        if "target" not in victims:
            assert status(rl, "target") == "running 0"
        rl("rm", "-f", "joiner", "target")
        assert leaks.wait_for_none(rl.directory, PATIENCE) == []
