"""Filters of system calls, compiled by libseccomp from what config.json says, seccomp(2).

Owns the bindings to the library, which knows the system calls of every architecture by name.
Decides nothing: a profile does. Takes 25 ms, so it is called by the cache of filters alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Mapping
from typing import Any, Final

from rootless.errors import RlError

# <linux/seccomp.h>
_ACTIONS: Final = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
# Those that carry a number, EPERM if none is given.
_WITH_NUMBER: Final = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_PERMISSIVE: Final = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
# <seccomp.h>
_OPERATORS: Final = {
    f"SCMP_CMP_{name}": number
    for number, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), 1)
}
_UNKNOWN: Final = -1  # __NR_SCMP_ERROR
_OPTIMIZE: Final = 8  # SCMP_FLTATR_CTL_OPTIMIZE
_BINARY_TREE: Final = 2
_X86_64: Final = 0xC000003E
_X32: Final = 0x4000003E
_X32_BIT: Final = 0x40000000

# <linux/filter.h>: what the few instructions of ours are made of.
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_IF_GREATER: Final = 0x25  # BPF_JMP | BPF_JGT | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_NUMBER_AT: Final = 0  # in struct seccomp_data
_ARCHITECTURE_AT: Final = 4


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


class _Version(ctypes.Structure):
    """struct scmp_version."""

    _fields_ = [("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint)]


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise RlError(
            "cannot filter system calls: libseccomp is not installed (Debian, Ubuntu: libseccomp2; "
            "Fedora: libseccomp; or --security-opt seccomp=unconfined)"
        ) from None
    library.seccomp_version.restype = ctypes.POINTER(_Version)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    return library


def library_version() -> str:
    """Return the version of libseccomp: another one knows other system calls."""
    version = _library().seccomp_version().contents
    return f"{version.major}.{version.minor}.{version.micro}"


def is_available() -> bool:
    """Tell whether the kernel can filter system calls."""
    return os.path.exists("/proc/sys/kernel/seccomp/actions_avail")


def compile_filter(seccomp: Mapping[str, Any]) -> bytes:
    """Return the program for the kernel, struct sock_filter[], of config.json's linux.seccomp.

    A system call that the library does not know is left out.
    """
    library = _library()
    default = _action(seccomp["defaultAction"], seccomp.get("defaultErrnoRet"))
    address = library.seccomp_init(ctypes.c_uint32(default))
    if address is None:
        raise RlError("cannot compile the seccomp profile: libseccomp does not take it")
    context = ctypes.c_void_p(address)
    try:
        tokens = _add_architectures(library, context, seccomp["architectures"])
        # From 2.5 on; without it the filter is slower and does the same.
        library.seccomp_attr_set(context, _OPTIMIZE, ctypes.c_uint32(_BINARY_TREE))
        names = set()
        for rule in seccomp["syscalls"]:
            names.update(rule["names"])
            action = _action(rule["action"], rule.get("errnoRet"))
            if action != default:
                for name in rule["names"]:
                    _add_rule(library, context, action, name, rule.get("args", []))
        program = _export(library, context)
        if seccomp["defaultAction"] not in _PERMISSIVE:
            program = _for_newer(library, tokens, names) + program
        return program
    finally:
        library.seccomp_release(context)


def _action(name: str, number: int | None) -> int:
    value = _ACTIONS[name]
    if name in _WITH_NUMBER:
        value |= (errno.EPERM if number is None else number) & 0xFFFF
    return value


def _add_architectures(
    library: ctypes.CDLL, context: ctypes.c_void_p, names: list[str]
) -> list[int]:
    """Add them beside the native one, which is there; return their tokens."""
    tokens = []
    for name in names:
        short = name.removeprefix("SCMP_ARCH_").lower()
        token = library.seccomp_arch_resolve_name(short.encode())
        if not token:
            raise RlError(f"invalid seccomp profile: unknown architecture {name}")
        result = library.seccomp_arch_add(context, ctypes.c_uint32(token))
        if result not in (0, -errno.EEXIST):
            raise _failure(f"architecture {name}", result)
        tokens.append(token)
    return tokens


def _add_rule(
    library: ctypes.CDLL,
    context: ctypes.c_void_p,
    action: int,
    name: str,
    arguments: list[dict[str, Any]],
) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number == _UNKNOWN:
        return
    comparisons = [
        _Comparison(item["index"], _OPERATORS[item["op"]], item["value"], item["valueTwo"])
        for item in arguments
    ]
    # Conditions on one and the same argument are alternatives, as in runc.
    together = len({item["index"] for item in arguments}) == len(arguments)
    for group in [comparisons] if together else [[comparison] for comparison in comparisons]:
        result = library.seccomp_rule_add_array(
            context,
            ctypes.c_uint32(action),
            number,
            ctypes.c_uint(len(group)),
            (_Comparison * len(group))(*group),
        )
        if result not in (0, -errno.EEXIST):
            raise _failure(f"system call {name}", result)


def _export(library: ctypes.CDLL, context: ctypes.c_void_p) -> bytes:
    memory = os.memfd_create("filter")
    with open(memory, "rb") as file:
        result = library.seccomp_export_bpf(context, memory)
        if result != 0:
            raise _failure("it", result)
        file.seek(0)
        return file.read()


def _failure(what: str, result: int) -> RlError:
    return RlError(f"cannot compile the seccomp profile: {what}: {os.strerror(-result)}")


def _for_newer(library: ctypes.CDLL, tokens: list[int], names: set[str]) -> bytes:
    """Return instructions that answer ENOSYS to system calls newer than all that the profile names.

    As runc does it: programs that try a new one then fall back to an old one, which they do not
    after EPERM.
    """
    program = b""
    for token in tokens:
        resolve = library.seccomp_syscall_resolve_name_arch
        numbers = [resolve(ctypes.c_uint32(token), name.encode()) for name in names]
        newest = max((number for number in numbers if number >= 0), default=None)
        if newest is None:
            continue
        # Both have one architecture for the kernel.
        ceiling = _X32_BIT - 1 if token == _X86_64 else 0xFFFFFFFF
        program += b"".join(
            (
                _instruction(_LOAD, _ARCHITECTURE_AT),
                _instruction(_IF_EQUAL, _X86_64 if token == _X32 else token, 0, 4),
                _instruction(_LOAD, _NUMBER_AT),
                _instruction(_IF_GREATER, newest, 0, 2),
                _instruction(_IF_GREATER, ceiling, 1, 0),
                _instruction(_RETURN, _ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS),
            )
        )
    return program


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
