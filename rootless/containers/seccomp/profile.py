"""From a seccomp profile to what config.json says about system calls.

Owns Docker's JSON schema, of which the runtime specification's is a part: conditions on
capabilities, architecture and kernel are decided here. Pure but for reading the file. Called by
create.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from rootless.errors import RlError

_ACTIONS: Final = (
    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
)  # fmt: skip
_OPERATORS: Final = tuple(
    f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
)
_FLAGS: Final = (
    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
)  # fmt: skip
# As uname(2) names machines.
_MACHINES: Final = {
    "armv6l": "ARM",
    "armv7l": "ARM",
    "armv8l": "ARM",
    "i386": "X86",
    "i686": "X86",
}
_LARGEST: Final = 1 << 20
# Of a list in a profile, before somebody's mistake becomes ours.
_MOST_ARGUMENTS: Final = 6


class Host(NamedTuple):
    """What the conditions of a profile ask for: uname's machine, Go's name of it, the kernel."""

    machine: str
    architecture: str
    kernel: tuple[int, int]


def read(path: str) -> dict[str, Any]:
    """Return the profile in a file; RlError if there is none."""
    try:
        with open(path, "rb") as file:
            text = file.read(_LARGEST + 1)
    except OSError as error:
        raise RlError(f"opening seccomp profile ({path}) failed: {error.strerror}") from None
    if len(text) > _LARGEST:
        raise RlError(f"decoding seccomp profile ({path}) failed: it is larger than 1 MiB")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RlError(f"decoding seccomp profile ({path}) failed: {error}") from None
    if not isinstance(found, dict):
        raise RlError(f"decoding seccomp profile ({path}) failed: it is no JSON object")
    return found


def resolve(
    profile: Mapping[str, Any], capabilities: Collection[str], host: Host
) -> dict[str, Any]:
    """Return ``linux.seccomp`` of config.json; RlError for what is no profile."""
    resolved: dict[str, Any] = {
        "defaultAction": _one_of(_ACTIONS, profile.get("defaultAction"), "defaultAction"),
        "architectures": _architectures(profile, host),
        "syscalls": [],
    }
    if profile.get("defaultErrnoRet") is not None:
        resolved["defaultErrnoRet"] = _number(profile["defaultErrnoRet"], "defaultErrnoRet")
    if flags := _list(profile.get("flags"), "flags"):
        resolved["flags"] = [_one_of(_FLAGS, flag, "flag") for flag in flags]
    for entry in _list(profile.get("syscalls"), "syscalls"):
        rule = _rule(_object(entry, "syscalls"))
        if _applies(entry, capabilities, host):
            resolved["syscalls"].append(rule)
    return resolved


def _architectures(profile: Mapping[str, Any], host: Host) -> list[str]:
    listed = _list(profile.get("architectures"), "architectures")
    mapped = _list(profile.get("archMap"), "archMap")
    if listed and mapped:
        raise _invalid("both 'architectures' and 'archMap' are specified, use either")
    native = "SCMP_ARCH_" + _MACHINES.get(host.machine, host.machine.upper())
    for entry in mapped:
        if _object(entry, "archMap").get("architecture") == native:
            listed = [native, *_list(entry.get("subArchitectures"), "subArchitectures")]
    return [_text(name, "architecture") for name in listed] or [native]


def _rule(entry: Mapping[str, Any]) -> dict[str, Any]:
    name, names = entry.get("name"), _list(entry.get("names"), "names")
    if name and names:
        raise _invalid("both 'name' and 'names' are specified in a rule, use either")
    rule: dict[str, Any] = {
        "names": [_text(name, "name") for name in (names or [name])],
        "action": _one_of(_ACTIONS, entry.get("action"), "action"),
    }
    if entry.get("errnoRet") is not None:
        rule["errnoRet"] = _number(entry["errnoRet"], "errnoRet")
    if args := _list(entry.get("args"), "args"):
        rule["args"] = [_argument(_object(argument, "args")) for argument in args]
    return rule


def _argument(given: Mapping[str, Any]) -> dict[str, Any]:
    index = _number(given.get("index"), "index")
    if index >= _MOST_ARGUMENTS:
        raise _invalid(f"there is no argument {index}")
    return {
        "index": index,
        "value": _number(given.get("value"), "value"),
        "valueTwo": _number(given.get("valueTwo") or 0, "valueTwo"),
        "op": _one_of(_OPERATORS, given.get("op"), "op"),
    }


def _applies(entry: Mapping[str, Any], capabilities: Collection[str], host: Host) -> bool:
    """Tell whether the conditions of a rule are met."""
    wanted = _object(entry.get("includes") or {}, "includes")
    unwanted = _object(entry.get("excludes") or {}, "excludes")
    architectures = _list(wanted.get("arches"), "arches")
    return (
        (not architectures or host.architecture in architectures)
        and set(_list(wanted.get("caps"), "caps")) <= set(capabilities)
        and (not wanted.get("minKernel") or host.kernel >= _version(wanted["minKernel"]))
        and host.architecture not in _list(unwanted.get("arches"), "arches")
        and set(_list(unwanted.get("caps"), "caps")).isdisjoint(capabilities)
        and (not unwanted.get("minKernel") or host.kernel < _version(unwanted["minKernel"]))
    )


def kernel_version(release: str) -> tuple[int, int]:
    """Return major and minor number of a kernel's release: of "6.1.0-18-amd64" 6 and 1."""
    major, minor = release.split(".")[:2]
    return int(major), int(minor.partition("-")[0])


def _version(value: object) -> tuple[int, int]:
    try:
        return kernel_version(_text(value, "minKernel"))
    except ValueError:
        raise _invalid(f"minKernel {value!r} is no version") from None


def _list(value: object, field: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _invalid(f"{field} is no list")
    return value


def _object(value: object, field: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _invalid(f"{field} holds what is no object")
    return value


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise _invalid(f"{field} {value!r} is no name")
    return value


def _number(value: object, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise _invalid(f"{field} {value!r} is no number of 64 bits")
    return value


def _one_of(known: tuple[str, ...], value: object, field: str) -> str:
    if value not in known:
        raise _invalid(f"{field} {value!r} is none of {', '.join(known)}")
    return str(value)


def _invalid(why: str) -> RlError:
    return RlError(f"invalid seccomp profile: {why}")
