"""What a container shares with the host where that is asked for, its limits and its devices."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from rootless.containers import namespaces
from rootless.containers.namespaces import Device, Ulimit
from rootless.errors import RlError
from tests.support import leaks
from tests.support.runner import Rl

RUN = ("run", "--rm", "-q")


def out(rl: Rl, *arguments: str) -> str:
    return rl(*RUN, *arguments).stdout


def refused(rl: Rl, *arguments: str) -> str:
    """Return the one line that says why."""
    done = rl(*RUN, *arguments, "alpine", "true", check=False)
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1
    return done.stderr


# The syntax


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("/dev/fuse", Device("/dev/fuse", "/dev/fuse")),
        ("/dev/fuse:/dev/x", Device("/dev/fuse", "/dev/x")),
        ("/dev/fuse:r", Device("/dev/fuse", "/dev/fuse", "r")),
        ("/dev/fuse:/dev/x:rw", Device("/dev/fuse", "/dev/x", "rw")),
    ],
)
def test_device_is_read_as_docker_reads_it(text: str, device: Device) -> None:
    assert namespaces.parse_devices([text]) == (device,)


@pytest.mark.parametrize("text", ["", "fuse", "/dev/fuse:x", "/dev/fuse:/a:q", "/a:/b:rw:r"])
def test_bad_device_is_refused(text: str) -> None:
    with pytest.raises(RlError, match="invalid device"):
        namespaces.parse_devices([text])


def test_ulimits_are_read_as_docker_reads_them() -> None:
    texts = ["nofile=10:20", "core=0", "nofile=11"]
    assert namespaces.parse_ulimits(texts) == (Ulimit("nofile", 11, 11), Ulimit("core", 0, 0))
    for wrong in (
        "nofile",
        "nofile=",
        "nofile=a",
        "open=1",
        "nofile=20:10",
        "core=-1:5",
        "core=-2",
    ):
        with pytest.raises(RlError, match="invalid ulimit"):
            namespaces.parse_ulimits([wrong])


def test_sysctls_are_those_of_a_namespace_of_ones_own() -> None:
    own: frozenset[str] = frozenset()
    texts = ["net/ipv4/ip_forward=1", "kernel.sem=1 2 3 4", "fs.mqueue.msg_max=5"]
    assert namespaces.parse_sysctls(texts, own) == {
        "net.ipv4.ip_forward": "1",
        "kernel.sem": "1 2 3 4",
        "fs.mqueue.msg_max": "5",
    }
    for wrong in ("kernel.panic=1", "vm.swappiness=1", "net=1", "kernel.hostname=x"):
        with pytest.raises(RlError, match="not in a separate kernel namespace"):
            namespaces.parse_sysctls([wrong], own)
    for wrong in ("a", "=1", "net..x=1"):
        with pytest.raises(RlError, match="invalid sysctl"):
            namespaces.parse_sysctls([wrong], own)
    with pytest.raises(RlError, match="has the host's network"):
        namespaces.parse_sysctls(["net.x=1"], frozenset({"network"}))
    with pytest.raises(RlError, match="has the host's IPC"):
        namespaces.parse_sysctls(["kernel.sem=1"], frozenset({"ipc"}))


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts"])
def test_unknown_modes_are_refused(rl: Rl, kind: str) -> None:
    assert f"invalid --{kind} 'public'" in refused(rl, f"--{kind}", "public")


# Shared namespaces


def ours(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{kind}")


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts"])
def test_namespace_is_the_hosts_only_if_that_is_asked_for(rl: Rl, kind: str) -> None:
    look = ("alpine", "readlink", f"/proc/self/ns/{kind}")
    assert out(rl, f"--{kind}", "host", *look).strip() == ours(kind)
    assert out(rl, *look).strip() != ours(kind)


def test_host_name_and_memory_are_seen_and_exec_sees_the_same(rl: Rl) -> None:
    shared = Path(f"/dev/shm/rl-test-{os.getpid()}")
    shared.write_text("shared\n")
    try:
        modes = ("--ipc", "host", "--uts", "host", "--pid", "host")
        rl("run", "-d", "--name", "open", *modes, "--network", "none", "alpine", "sleep", "1000")
        assert rl("exec", "open", "hostname").stdout.strip() == socket.gethostname()
        assert rl("exec", "open", "cat", str(shared)).stdout == "shared\n"
        assert rl("exec", "open", "readlink", "/proc/self/ns/pid").stdout.strip() == ours("pid")
        shown = rl("inspect", "-f", "{{.HostConfig.IpcMode}} {{.HostConfig.PidMode}}", "open")
        assert shown.stdout == "host host\n"
        rl("rm", "-f", "open")
    finally:
        shared.unlink()
    assert "hostname and the UTS mode" in refused(rl, "--uts", "host", "--hostname", "box")


def test_without_shared_memory_there_is_none(rl: Rl) -> None:
    assert "shm" not in out(rl, "--ipc", "none", "alpine", "ls", "/dev").split()


# The end, where there is no PID namespace to end


STRAYS = """
    for i in 1 2 3; do setsid sh -c 'trap "" TERM HUP; while :; do sleep 1000; done' & done
    (setsid unshare -Ur sleep 1000 &)
    echo up; exec sleep 1000
"""


def start_strays(rl: Rl, name: str) -> int:
    """Start a container that leaves processes behind; return its PID 1's number."""
    rl("run", "-d", "--name", name, "--pid", "host", "alpine", "sh", "-c", STRAYS)
    rl("exec", "-d", name, "setsid", "sleep", "1000")
    with rl.start("logs", "-f", name, stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"up\n"
        follower.kill()
    return int(rl("inspect", "-f", "{{.State.Pid}}", name).stdout)


def test_no_process_of_a_container_in_the_hosts_pid_namespace_stays(fresh_rl: Rl) -> None:
    start_strays(fresh_rl, "many")
    listing = fresh_rl("top", "many", "-o", "pid,args").stdout.splitlines()
    assert len(listing) >= 6
    assert not any("pytest" in line for line in listing)
    fresh_rl("stop", "-t", "0", "many")
    assert leaks.wait_for_none(fresh_rl.directory, 0) == []
    fresh_rl("rm", "many")


def test_strays_end_with_the_command_that_ends_by_itself(fresh_rl: Rl) -> None:
    script = "setsid sleep 1000 & echo done"
    assert out(fresh_rl, "--pid", "host", "alpine", "sh", "-c", script) == "done\n"
    assert leaks.wait_for_none(fresh_rl.directory, 0) == []


def test_strays_of_a_killed_supervisor_go_with_the_container(fresh_rl: Rl) -> None:
    start_strays(fresh_rl, "orphans")
    (state,) = (fresh_rl.root / "containers").glob("*/state.json")
    os.kill(json.loads(state.read_bytes())["supervisor"]["pid"], signal.SIGKILL)
    fresh_rl("rm", "-f", "orphans")
    assert leaks.wait_for_none(fresh_rl.directory) == []


def test_the_overlay_server_is_out_of_reach_also_in_the_hosts_pid_namespace(rl: Rl) -> None:
    rl("run", "-d", "--name", "near", "--pid", "host", "--privileged", "alpine", "sleep", "1000")
    # The kernel's only mounts of type fuse-overlay are served by processes of this name.
    script = r"""
        for comm in /proc/[0-9]*/comm; do
            [ "$(cat $comm)" = rl-overlay ] || continue
            dir=${comm%/comm}; echo found
            ls $dir/root/ $dir/cwd/ 2>/dev/null; cat $dir/environ 2>/dev/null
            for fd in $dir/fd/*; do readlink $fd; done
        done
    """
    done = rl("exec", "--privileged", "near", "sh", "-c", script, check=False)
    assert set(done.stdout.split()) == {"found"}
    rl("rm", "-f", "near")


# Limits


def test_limits_are_in_force_also_for_exec(rl: Rl) -> None:
    options = ("--ulimit", "nofile=100:200", "--ulimit", "core=0", "--umask", "077")
    rl("run", "-d", "--name", "limited", *options, "--shm-size", "2m", "alpine", "sleep", "1000")
    script = "ulimit -n; ulimit -Hn; ulimit -c; umask; grep ' /dev/shm ' /proc/mounts"
    found = rl("exec", "limited", "sh", "-c", script).stdout.split()
    assert found[:4] == ["100", "200", "0", "0077"]
    assert "size=2048k" in found[7]
    form = "{{json .HostConfig.Ulimits}} {{.HostConfig.ShmSize}}"
    assert rl("inspect", "-f", form, "limited").stdout == (
        '[{"Name":"nofile","Hard":200,"Soft":100},{"Name":"core","Hard":0,"Soft":0}] 2097152\n'
    )
    rl("rm", "-f", "limited")


def test_limit_above_ones_own_is_refused_with_the_reason(rl: Rl) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = refused(rl, "--ulimit", f"nofile={hard + 1}")
    assert f"above your own hard limit of {hard}" in said


def test_sysctls_are_set_and_the_hosts_are_left(rl: Rl) -> None:
    options = ("--sysctl", "kernel.msgmax=1000", "--sysctl", "net.ipv4.ip_forward=1")
    script = "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward"
    before = Path("/proc/sys/kernel/msgmax").read_text()
    assert out(rl, *options, "--network", "none", "alpine", "sh", "-c", script) == "1000\n1\n"
    assert Path("/proc/sys/kernel/msgmax").read_text() == before
    said = refused(rl, "--sysctl", "kernel.msgmax=x")
    assert "cannot set the sysctl kernel.msgmax" in said


def groups(rl: Rl, *options: str) -> list[str]:
    status = out(rl, *options, "alpine", "cat", "/proc/self/status")
    found = re.search(r"^Groups:(.*)$", status, re.MULTILINE)
    assert found is not None
    return found[1].split()


def test_groups_are_added_by_name_and_number(rl: Rl) -> None:
    assert groups(rl, "-u", "1000:1000") == ["1000"]
    added = ("--group-add", "5", "--group-add", "nogroup")
    assert groups(rl, "-u", "1000:1000", *added) == ["5", "1000", "65534"]
    assert groups(rl, "-u", "1000:1000", "--group-add", "5,6,7") == ["5", "6", "7", "1000"]
    assert "unable to find group nosuch" in refused(rl, "--group-add", "nosuch")


def test_groups_of_the_host_are_kept_if_that_is_asked_for(rl: Rl) -> None:
    assert os.getgroups() == [os.getgid()]
    assert groups(rl, "-u", "1000:1000", "--group-add", "keep-groups") == ["0"]
    assert "cannot be used with other groups" in refused(
        rl, "--group-add", "keep-groups", "--group-add", "5"
    )


# Devices


def test_device_is_there_under_its_name_or_another_and_works(rl: Rl) -> None:
    script = "stat -c '%F %t:%T' /dev/fuse /dev/other; exec 3<>/dev/other && echo opened"
    devices = ("--device", "/dev/fuse", "--device", "/dev/fuse:/dev/other:rwm")
    found = out(rl, *devices, "alpine", "sh", "-c", script).splitlines()
    assert found == ["character special file a:e5"] * 2 + ["opened"]
    assert "fuse" not in out(rl, "alpine", "ls", "/dev").split()


def test_directory_brings_its_devices_alone(rl: Rl) -> None:
    assert out(rl, "--device", "/dev/net:/dev/mine", "alpine", "ls", "/dev/mine") == "tun\n"
    assert "no device that you may open is in it" in refused(rl, "--device", "/etc")


def test_what_is_no_device_is_refused(rl: Rl, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/etc/shadow")
    for name in ("file", "link"):
        assert "not a device node" in refused(rl, "--device", f"{tmp_path}/{name}")
    assert "No such file or directory" in refused(rl, "--device", "/dev/nosuch")
    for target in ("/", "/proc", "/dev/../proc"):
        assert "the target cannot be" in refused(rl, "--device", f"/dev/fuse:{target}")


def test_device_whose_name_comes_to_mean_something_else_is_not_given(
    rl: Rl, tmp_path: Path
) -> None:
    # A link is followed when the container is made: what it says later is of no account.
    (tmp_path / "link").symlink_to("/dev/fuse")
    device = ("--device", f"{tmp_path}/link:/dev/mine")
    rl("create", "--name", "swapped", *device, "alpine", "stat", "-c", "%t:%T", "/dev/mine")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("/dev/tty")
    assert rl("start", "-a", "swapped").stdout == "a:e5\n"
    # And of the node itself, which no user can replace, the numbers have to be the same.
    identity = rl("inspect", "-f", "{{.Id}}", "swapped").stdout.strip()
    config = rl.root / "containers" / identity / "config.json"
    spec = json.loads(config.read_text())
    spec["linux"]["devices"][0]["minor"] = 1
    config.write_text(json.dumps(spec))
    done = rl("start", "-a", "swapped", check=False)
    assert "it is not the device that it was" in done.stderr
    rl("rm", "swapped")


def test_device_target_follows_links_inside_the_container_only(rl: Rl, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    volume = ("-v", f"{tmp_path}:/v", "--device", "/dev/fuse:/v/link/rl-test-device")
    assert out(rl, *volume, "alpine", "ls", "/etc/rl-test-device") == "/etc/rl-test-device\n"
    assert not Path("/etc/rl-test-device").exists()
