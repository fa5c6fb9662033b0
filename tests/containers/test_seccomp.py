"""Which system calls a container may make: the default, profiles, and the filter in the kernel."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rootless.containers.isolation import Isolation
from rootless.containers.seccomp import default, filters, profile
from rootless.errors import RlError
from rootless.kernel import seccomp
from rootless.kernel.capabilities import DEFAULT
from tests.support.runner import Rl

HOST = profile.Host("x86_64", "amd64", (6, 1))
ALLOW = "SCMP_ACT_ALLOW"
ERRNO = "SCMP_ACT_ERRNO"


def rules(given: dict[str, Any], *capabilities: str, host: profile.Host = HOST) -> list[str]:
    """Return the names in the rules that are left of a profile."""
    found = profile.resolve({"defaultAction": ERRNO, **given}, capabilities, host)
    return [name for rule in found["syscalls"] for name in rule["names"]]


# Profiles, without a kernel


@pytest.mark.parametrize(
    ("conditions", "applies"),
    [
        ({}, True),
        ({"includes": {"caps": ["CAP_CHOWN"]}}, True),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_KILL"]}}, False),
        ({"excludes": {"caps": ["CAP_CHOWN", "CAP_KILL"]}}, False),
        ({"excludes": {"caps": ["CAP_KILL"]}}, True),
        ({"includes": {"arches": ["arm64", "amd64"]}}, True),
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "6.1"}}, True),
        ({"includes": {"minKernel": "6.10"}}, False),
        ({"excludes": {"minKernel": "4.8"}}, False),
        ({"includes": {"caps": ["CAP_CHOWN"], "arches": ["arm64"]}}, False),
        ({"includes": {}, "excludes": None}, True),
    ],
)
def test_rule_applies_under_its_conditions(conditions: dict[str, Any], applies: bool) -> None:
    rule = {"names": ["read"], "action": ALLOW, **conditions}
    assert rules({"syscalls": [rule]}, "CAP_CHOWN") == (["read"] if applies else [])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"defaultAction": "SCMP_ACT_PERHAPS"}, "defaultAction 'SCMP_ACT_PERHAPS' is none of"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "is none of"),
        ({"syscalls": {}}, "syscalls is no list"),
        ({"syscalls": [1]}, "syscalls holds what is no object"),
        ({"syscalls": [{"name": "a", "names": ["b"], "action": ALLOW}]}, "'name' and 'names'"),
        ({"syscalls": [{"names": ["a\n"], "action": ALLOW}]}, "is no name"),
        ({"syscalls": [{"action": ALLOW}]}, "name None is no name"),
        ({"syscalls": [{"name": "a", "action": ALLOW, "errnoRet": -1}]}, "no number of 64 bits"),
        ({"syscalls": [{"name": "a", "action": ALLOW, "includes": {"minKernel": "x"}}]}, "version"),
        ({"architectures": ["a"], "archMap": [{}]}, "'architectures' and 'archMap'"),
        ({"flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}, "flag 'SECC"),
        (
            {"syscalls": [{"name": "a", "action": ALLOW, "args": [{"index": 6, "value": 0}]}]},
            "there is no argument 6",
        ),
    ],
)
def test_what_is_no_profile_is_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(RlError, match=f"invalid seccomp profile: .*{why}"):
        rules(given)


def test_architectures_are_the_hosts_with_those_that_it_runs_too() -> None:
    found = profile.resolve(default.profile(), DEFAULT, HOST)["architectures"]
    assert found == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    arm = profile.Host("aarch64", "arm64", (6, 1))
    found = profile.resolve(default.profile(), DEFAULT, arm)["architectures"]
    assert found == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert "set_tls" in rules(default.profile(), host=arm)


def test_default_allows_what_a_capability_is_for() -> None:
    usual = rules(default.profile(), *DEFAULT)
    assert {"read", "execve", "chroot", "ptrace"} <= set(usual)
    assert not {"mount", "unshare", "bpf", "keyctl", "io_uring_setup"} & set(usual)
    assert {"mount", "unshare", "bpf"} <= set(rules(default.profile(), *DEFAULT, "CAP_SYS_ADMIN"))
    assert "chroot" not in rules(default.profile(), "CAP_CHOWN")


def test_privileged_container_is_filtered_only_by_a_profile_of_its_own(tmp_path: Path) -> None:
    assert filters.wanted(Isolation(privileged=True), DEFAULT) is None
    assert filters.wanted(Isolation(seccomp="unconfined"), DEFAULT) is None
    assert filters.wanted(Isolation(privileged=True, seccomp="builtin"), DEFAULT)
    file = tmp_path / "profile.json"
    file.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    assert filters.wanted(Isolation(privileged=True, seccomp=str(file)), DEFAULT)


# Filters, in the kernel

UNDER_A_FILTER = """
import ctypes, json, sys
from rootless.containers.seccomp.program import Filter, put_on
from rootless.errors import RlError
from rootless.kernel import syscalls
program, flags, calls = json.load(sys.stdin)
libc = ctypes.CDLL(None, use_errno=True)
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
put_on(Filter(program, flags))
for number, *arguments in calls:
    ctypes.set_errno(0)
    result = libc.syscall(*(ctypes.c_long(word) for word in (number, *arguments)))
    print(ctypes.get_errno() if result == -1 else 0, flush=True)
try:
    put_on(Filter(program, flags))
except RlError as error:
    print(error)
"""


def under(
    given: dict[str, Any], calls: list[tuple[int, ...]], flags: int = 0
) -> tuple[int, list[str]]:
    """Make system calls under a profile; return how that process ended and what each returned."""
    wanted = profile.resolve(given, (), profile.Host(os.uname().machine, "amd64", (6, 1)))
    program = seccomp.compile_filter(wanted).decode("latin-1")
    done = subprocess.run(
        [sys.executable, "-c", UNDER_A_FILTER],
        input=json.dumps([program, flags, calls]),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines()


def denying(name: str, **how: Any) -> dict[str, Any]:
    rule = {"names": [name], "action": ERRNO, **how}
    return {"defaultAction": ALLOW, "syscalls": [rule]}


# Numbers of x86-64, and of the machines that came after it.
PERSONALITY = 135 if platform.machine() == "x86_64" else 92
SECCOMP = 317 if platform.machine() == "x86_64" else 277


def test_action_and_error_number_are_those_of_the_rule() -> None:
    call: list[tuple[int, ...]] = [(PERSONALITY, 0xFFFFFFFF)]
    assert under(denying("personality"), call)[1][0] == str(errno.EPERM)
    assert under(denying("personality", errnoRet=77), call)[1][0] == "77"
    assert under(denying("personality", action="SCMP_ACT_LOG"), call)[1][0] == "0"
    for action in ("SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"):
        assert under(denying("personality", action=action), call) == (-31, [])


def test_arguments_decide_where_a_rule_says_so() -> None:
    calls: list[tuple[int, ...]] = [(PERSONALITY, value) for value in (0, 8, 0xFFFFFFFF)]

    def outcome(*conditions: tuple[int, str, int]) -> list[str]:
        args = [
            {"index": index, "op": f"SCMP_CMP_{name}", "value": value, "valueTwo": 0}
            for index, name, value in conditions
        ]
        return under(denying("personality", args=args), calls)[1][:3]

    assert outcome((0, "EQ", 8)) == ["0", "1", "0"]
    assert outcome((0, "NE", 8)) == ["1", "0", "1"]
    assert outcome((0, "GE", 8)) == ["0", "1", "1"]
    assert outcome((0, "LT", 8)) == ["1", "0", "0"]
    # No bit of the mask is set.
    assert outcome((0, "MASKED_EQ", 7)) == ["1", "1", "0"]
    # Conditions on one argument are alternatives, on several they have to be met together.
    assert outcome((0, "EQ", 0), (0, "EQ", 8)) == ["1", "1", "0"]
    assert outcome((0, "EQ", 0), (1, "EQ", 99)) == ["0", "0", "0"]


def test_system_call_newer_than_the_profile_is_said_not_to_exist() -> None:
    given = default.profile()
    outcome = under(given, [(PERSONALITY, 1), (4000, 0)])[1][:2]
    assert outcome == [str(errno.EPERM), str(errno.ENOSYS)]


def test_kernel_that_cannot_filter_is_named_with_the_way_out() -> None:
    _, (said,) = under(denying("seccomp", errnoRet=errno.ENOSYS), [])
    assert "the kernel does not take the filter" in said
    assert "--security-opt seccomp=unconfined" in said


def test_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(RlError, match="libseccomp is not installed"):
        seccomp.library_version()


# Containers


def filtered(rl: Rl, *arguments: str) -> str:
    line = rl(*arguments, "grep", "Seccomp:", "/proc/self/status").stdout
    return {"0": "no", "2": "yes"}[line.split()[1]]


def test_every_process_of_a_container_is_filtered_unless_it_is_privileged(
    rl: Rl, tmp_path: Path
) -> None:
    for options in [], ["-u", "1000"], ["--security-opt", "no-new-privileges"]:
        assert filtered(rl, "run", "--rm", *options, "alpine") == "yes"
    for options in ["--privileged"], ["--security-opt", "seccomp=unconfined"]:
        assert filtered(rl, "run", "--rm", *options, "alpine") == "no"
    rl("run", "-d", "--name", "within", "alpine", "sleep", "1000")
    for options in [], ["--privileged"], ["-u", "1000"]:
        assert filtered(rl, "exec", *options, "within") == "yes"
    rl("rm", "-f", "within")


# Prints the error number of each, 0 for success: also by the 32-bit gate of x86.
PROBE = """
import ctypes, mmap, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*words):
    ctypes.set_errno(0)
    return ctypes.get_errno() if libc.syscall(*map(ctypes.c_long, words)) == -1 else 0
memory = mmap.mmap(-1, 4096, prot=7)
# push rbx; mov eax, edi; mov ebx, esi; xor ecx, ecx; int 0x80; pop rbx; ret
memory.write(bytes.fromhex("5389f889f331c9cd805bc3"))
gate = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(
    ctypes.addressof(ctypes.c_char.from_buffer(memory)))
print("keyctl", call(250, 0, -3, 0), -gate(288, 0) if gate(288, 0) < 0 else 0)
print("personality", call(135, 0x40000), -gate(136, 0x40000) if gate(136, 0x40000) < 0 else 0)
print("vsock", call(41, 40, 1, 0) == 1)
# Of the old way to make a socket, without arguments that it could read.
print("socketcall", -gate(102, 1))
print("unix", call(41, 1, 1, 0))
print("clone3", call(435, 0, 0))
print("newer", call(4000))
print("unshare", call(272, 0x10000000))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")
def test_default_lets_neither_64_nor_32_bit_programs_at_what_docker_forbids(
    rl: Rl, debian: str
) -> None:
    def probe(*options: str) -> dict[str, list[str]]:
        done = rl("run", "-q", "--rm", *options, debian, "python3", "-c", PROBE)
        return {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}

    eperm, enosys = str(errno.EPERM), str(errno.ENOSYS)
    assert probe() == {
        "keyctl": [eperm, eperm],
        "personality": [eperm, eperm],
        "vsock": ["True"],
        "socketcall": [enosys],
        "unix": ["0"],
        "clone3": [enosys],
        "newer": [enosys],
        "unshare": [eperm],
    }
    # Nothing but the filter was in the way.
    free = probe("--security-opt", "seccomp=unconfined")
    assert (free["keyctl"][0], free["personality"]) == ("0", ["0", "0"])
    assert free["keyctl"][1] == str(errno.EINVAL)
    assert (free["unshare"], free["vsock"]) == (["0"], ["False"])
    assert free["socketcall"] == [str(errno.EFAULT)]
    assert free["clone3"] == [str(errno.EINVAL)]
    assert probe("--cap-add", "SYS_ADMIN")["unshare"] == ["0"]


def test_profile_of_a_file_takes_the_place_of_the_default(rl: Rl, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(denying("mkdirat", errnoRet=95) | denying("mkdir", errnoRet=95)))
    for value in f"={file}", f":{file}", "=profile.json":
        option = ("--security-opt", f"seccomp{value}")
        done = rl("run", "--rm", *option, "alpine", "mkdir", "/x", check=False, cwd=tmp_path)
        assert "Not supported" in done.stderr or "not supported" in done.stderr
    file.write_text('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [')
    done = rl("run", "--rm", *option, "alpine", "true", check=False, cwd=tmp_path)
    assert (done.returncode, "decoding seccomp profile" in done.stderr) == (125, True)
    done = rl("run", "--rm", "--security-opt", "seccomp=/none", "alpine", "true", check=False)
    assert done.stderr == (
        "rl: opening seccomp profile (/none) failed: No such file or directory\n"
    )
    assert done.returncode == 125


def test_profile_is_recorded_as_the_runtime_specification_has_it(rl: Rl) -> None:
    container = rl("create", "alpine", "true").stdout.strip()
    config = json.loads((rl.root / "containers" / container / "config.json").read_text())
    found = config["linux"]["seccomp"]
    assert found["defaultAction"] == ERRNO
    assert any("execve" in rule["names"] and rule["action"] == ALLOW for rule in found["syscalls"])
    rl("rm", container)


def test_filter_is_compiled_once_and_a_damaged_one_anew(fresh_rl: Rl) -> None:
    assert filtered(fresh_rl, "run", "--rm", "alpine") == "yes"
    (cached,) = (fresh_rl.root / "seccomp").iterdir()
    before = cached.stat()
    whole = cached.read_bytes()
    assert filtered(fresh_rl, "run", "--rm", "alpine") == "yes"
    assert (cached.stat().st_ino, cached.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    for damage in (b"", b"{}\n" + b"\0" * 64, b"\xff\xfe"):
        cached.write_bytes(damage)
        assert filtered(fresh_rl, "run", "--rm", "alpine") == "yes"
        assert cached.read_bytes() == whole


def test_info_tells_of_the_filter(rl: Rl) -> None:
    options = rl("info", "--format", "{{.SecurityOptions}}").stdout
    assert "name=seccomp,profile=builtin" in options
