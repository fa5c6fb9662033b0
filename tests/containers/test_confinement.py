"""Capabilities, hidden paths, privileged containers: what was asked for, and what comes of it."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

import pytest

from rootless.containers import confinement
from rootless.containers.isolation import Isolation, parse
from rootless.errors import RlError
from rootless.kernel.capabilities import DEFAULT, NAMES, mask
from tests.support.runner import Rl


def asked(**options: Any) -> Isolation:
    nothing = {"privileged": False, "cap_add": (), "cap_drop": (), "security_opt": ()}
    return parse(**{**nothing, **options})


@pytest.mark.parametrize(
    ("added", "dropped", "left"),
    [
        ([], [], set(DEFAULT)),
        (["net_admin"], [], {*DEFAULT, "CAP_NET_ADMIN"}),
        (["CAP_NET_ADMIN"], ["Cap_Chown"], {*DEFAULT, "CAP_NET_ADMIN"} - {"CAP_CHOWN"}),
        ([], ["all"], set()),
        (["SETUID"], ["ALL"], {"CAP_SETUID"}),
        (["ALL"], ["SYS_ADMIN"], {*NAMES} - {"CAP_SYS_ADMIN"}),
        (["ALL"], ["ALL"], set(NAMES)),
        (["CHOWN"], ["CHOWN"], set(DEFAULT)),
    ],
)
def test_capabilities_are_added_and_dropped_as_docker_does(
    added: list[str], dropped: list[str], left: set[str]
) -> None:
    found = confinement.capabilities(asked(cap_add=added, cap_drop=dropped), connected=False)
    assert set(found) == left
    assert len(found) == len(left)


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ({"cap_add": ["CAP_CHOWND"]}, 'invalid CapAdd: unknown capability: "CAP_CHOWND"'),
        ({"cap_drop": [""]}, 'invalid CapDrop: unknown capability: "CAP_"'),
        ({"security_opt": ["no-new-privileges:maybe"]}, "neither true nor false"),
        ({"security_opt": ["unmask=proc"]}, "expected absolute paths"),
        ({"security_opt": ["label=colour:red"]}, "unknown label"),
        ({"security_opt": ["apparmor=mine"]}, "cannot load an AppArmor profile"),
        ({"security_opt": ["systempaths=confined"]}, "invalid --security-opt"),
        ({"security_opt": ["selinux"]}, "invalid --security-opt"),
    ],
)
def test_what_docker_would_not_understand_is_refused(option: dict[str, Any], why: str) -> None:
    with pytest.raises(RlError, match=why):
        asked(**option)


def test_paths_are_masked_and_unmasked_by_pattern() -> None:
    usual = confinement.masked_paths(asked())
    assert {"/proc/kcore", "/sys/firmware"} <= set(usual)
    fewer = asked(security_opt=["unmask=/proc/k*:/proc/sys", "mask=/a:/b"])
    kept = [path for path in usual if not path.startswith("/proc/k")]
    assert confinement.masked_paths(fewer) == [*kept, "/a", "/b"]
    assert "/proc/sys" not in confinement.readonly_paths(fewer)
    assert "/sys/devices/virtual/powercap" in confinement.masked_paths(
        asked(security_opt=["unmask=/sys/*"])
    )
    for everything in ("systempaths=unconfined", "unmask=ALL", "unmask=all"):
        open_to_all = asked(security_opt=[everything])
        assert confinement.masked_paths(open_to_all) == []
        assert confinement.readonly_paths(open_to_all) == []


# In containers


def status(rl: Rl, *arguments: str) -> dict[str, int]:
    """Return the capability sets of the container's command."""
    lines = rl(*arguments, "grep", "^Cap", "/proc/self/status").stdout.splitlines()
    return {name: int(value, 16) for name, value in (line.split(":\t") for line in lines)}


def run(rl: Rl, *options: str) -> dict[str, int]:
    return status(rl, "run", "--rm", *options, "alpine")


def test_command_has_the_capabilities_that_were_asked_for(rl: Rl) -> None:
    found = run(rl, "--cap-drop", "all", "--cap-add", "net_raw", "--cap-add", "CAP_SYS_ADMIN")
    wanted = mask(["CAP_NET_RAW", "CAP_SYS_ADMIN"])
    assert found == dict.fromkeys(("CapPrm", "CapEff", "CapBnd"), wanted) | {
        "CapInh": 0,
        "CapAmb": 0,
    }


def test_user_who_is_not_root_keeps_capabilities_only_as_a_bound(rl: Rl) -> None:
    found = run(rl, "--network", "none", "-u", "1000", "--cap-add", "NET_ADMIN")
    assert found.pop("CapBnd") == mask([*DEFAULT, "CAP_NET_ADMIN"])
    assert set(found.values()) == {0}


def test_capability_that_was_dropped_is_missing_and_one_that_was_added_works(rl: Rl) -> None:
    def mounts(*options: str) -> bool:
        command = ("run", "--rm", *options, "alpine", "mount", "-t", "tmpfs", "none", "/etc")
        return rl(*command, check=False).returncode == 0

    assert not mounts()
    assert mounts("--cap-add", "SYS_ADMIN")
    change = ("alpine", "sh", "-c", "touch /f && chown 5 /f")
    assert rl("run", "--rm", *change, check=False).returncode == 0
    assert rl("run", "--rm", "--cap-drop", "CHOWN", *change, check=False).returncode == 1


def test_privileged_container_has_everything_that_the_user_has(rl: Rl) -> None:
    rl("run", "-d", "--privileged", "--name", "mighty", "alpine", "sleep", "1000")
    every = mask(NAMES)
    assert status(rl, "exec", "mighty")["CapEff"] == every
    assert status(rl, "exec", "-u", "1000", "mighty")["CapEff"] == 0
    writable = "mount -t tmpfs none /etc && hostname changed && hostname"
    assert rl("exec", "mighty", "sh", "-c", writable).stdout == "changed\n"
    mounts = rl("exec", "mighty", "cat", "/proc/mounts").stdout.splitlines()
    below = [line.split(" ") for line in mounts if line.split(" ")[1].startswith(("/proc", "/sys"))]
    assert [fields for fields in below if fields[1].startswith("/proc/")] == []
    assert [
        fields for fields in below if fields[1] == "/sys" and "ro" in fields[3].split(",")
    ] == []
    inspected = json.loads(rl("inspect", "mighty").stdout)[0]["HostConfig"]
    assert inspected["Privileged"] is True
    assert inspected["MaskedPaths"] == inspected["ReadonlyPaths"] == []
    rl("rm", "-f", "mighty")


def test_privileged_container_has_the_devices_that_the_user_may_open(rl: Rl) -> None:
    script = "stat -c '%t %T' /dev/fuse; : < /dev/fuse && ls /dev"
    number, *names = rl("run", "--rm", "--privileged", "alpine", "sh", "-c", script).stdout.split(
        "\n"
    )
    device = os.stat("/dev/fuse").st_rdev
    assert number == f"{os.major(device):x} {os.minor(device):x}"
    closed = {
        entry.name
        for entry in os.scandir("/dev")
        if not entry.is_symlink()
        and stat.S_ISBLK(entry.stat().st_mode) | stat.S_ISCHR(entry.stat().st_mode)
        and not os.access(entry.path, os.R_OK)
        and not os.access(entry.path, os.W_OK)
    }
    assert closed - {"console"}
    assert not closed & set(names)
    terminals = {name for name in names if name.startswith("tty")}
    assert terminals == {"tty"}
    assert "fuse" not in rl("run", "--rm", "alpine", "ls", "/dev").stdout.split()


def test_hidden_paths_can_be_opened_and_others_hidden(rl: Rl) -> None:
    script = "wc -c < /proc/keys; wc -c < /etc/motd; grep -c ' /proc/sys ' /proc/mounts"
    options = ("--security-opt", "unmask=/proc/keys:/proc/s*", "--security-opt", "mask=/etc/motd")
    done = rl("run", "--rm", *options, "alpine", "sh", "-c", script, check=False)
    keys, motd, mounts = map(int, done.stdout.split())
    assert keys >= 0
    assert (motd, mounts) == (0, 0)


def test_processes_of_others_are_hidden_by_an_option_of_proc(rl: Rl) -> None:
    command = ("alpine", "sh", "-c", "grep ' /proc ' /proc/mounts")
    shown = rl("run", "--rm", "--security-opt", "proc-opts=hidepid=2", *command).stdout
    assert "hidepid=" in shown


def test_inspect_shows_what_was_asked_for(rl: Rl) -> None:
    rl(
        "create", "--name", "shown", "--cap-add", "net_admin", "--cap-drop", "CHOWN",
        "--cap-drop", "mknod", "--security-opt", "no-new-privileges:true",
        "--security-opt", "label=disable", "alpine", "true",
    )  # fmt: skip
    found = json.loads(rl("inspect", "shown").stdout)[0]["HostConfig"]
    assert found["CapAdd"] == ["CAP_NET_ADMIN"]
    assert found["CapDrop"] == ["CAP_CHOWN", "CAP_MKNOD"]
    assert found["SecurityOpt"] == ["no-new-privileges:true", "label=disable"]
    assert found["Privileged"] is False
    rl("rm", "shown")
