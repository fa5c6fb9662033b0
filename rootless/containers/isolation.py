"""What the processes of a container may do, as a person asks for it.

Owns the syntax of --cap-add, --cap-drop and --security-opt. Pure, and light: what it comes to in
config.json is confinement's. Made by the command line, a part of the Request.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from rootless.errors import RlError

# The one word for all capabilities, and for all masked paths.
ALL = "ALL"
# What --security-opt seccomp= may be beside the file of a profile.
SECCOMP_WORDS = ("builtin", "unconfined")


class Isolation(NamedTuple):
    """Capabilities by their full names or ALL; ``security_opt`` as it was given, and its meaning.

    ``seccomp`` is "unconfined", "builtin", the file of a profile, or "" for what is usual.
    ``masked`` are paths to hide beside the usual ones, ``unmasked`` are patterns of those not to.
    """

    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: str = ""
    masked: tuple[str, ...] = ()
    unmasked: tuple[str, ...] = ()
    proc_options: tuple[str, ...] = ()


def parse(
    *,
    privileged: bool,
    cap_add: Iterable[str],
    cap_drop: Iterable[str],
    security_opt: Iterable[str],
) -> Isolation:
    """Read the options; RlError for what Docker and Podman would not understand either."""
    added, dropped = _capabilities("CapAdd", cap_add), _capabilities("CapDrop", cap_drop)
    options = tuple(security_opt)
    no_new_privileges = False
    seccomp = ""
    masked: list[str] = []
    unmasked: list[str] = []
    proc_options: list[str] = []
    for option in options:
        name, value = _split(option)
        match name:
            case "no-new-privileges":
                no_new_privileges = _truth(value, option)
            case "seccomp" if value:
                seccomp = value if value in SECCOMP_WORDS else os.path.abspath(value)
            case "mask":
                masked += _paths(value, option)
            case "unmask" if value.upper() == ALL:
                unmasked.append(ALL)
            case "unmask":
                unmasked += _paths(value, option)
            case "systempaths" if value == "unconfined":
                unmasked.append(ALL)
            case "proc-opts" if value:
                proc_options += value.split(",")
            case "label":
                _check_label(value, option)
            case "apparmor" if value == "unconfined":
                pass
            case "apparmor":
                raise RlError(
                    f"invalid --security-opt {option!r}: a user cannot load an AppArmor profile "
                    "(apparmor=unconfined is known)"
                )
            case _:
                raise RlError(
                    f"invalid --security-opt {option!r}: there are no-new-privileges, seccomp, "
                    "mask, unmask, systempaths=unconfined, proc-opts, label and apparmor=unconfined"
                )
    return Isolation(
        privileged=privileged,
        cap_add=tuple(sorted(added)),
        cap_drop=tuple(sorted(dropped - added)),
        security_opt=options,
        no_new_privileges=no_new_privileges,
        seccomp=seccomp,
        masked=tuple(masked),
        unmasked=tuple(unmasked),
        proc_options=tuple(proc_options),
    )


def _split(option: str) -> tuple[str, str]:
    """Return name and value; Docker once separated them by a colon, and still takes it."""
    separators = [index for index in (option.find("="), option.find(":")) if index >= 0]
    end = min(separators, default=len(option))
    return option[:end], option[end + 1 :]


def _capabilities(field: str, names: Iterable[str]) -> set[str]:
    """Return what the names mean: of any case, with or without CAP_; ALL takes in all others."""
    found = set()
    for given in names:
        from rootless.kernel.capabilities import NAMES

        name = given.upper()
        if name != ALL:
            name = "CAP_" + name.removeprefix("CAP_")
            if name not in NAMES:
                raise RlError(f'invalid {field}: unknown capability: "{name}"')
        found.add(name)
    return {ALL} if ALL in found else found


def _truth(value: str, option: str) -> bool:
    match value.lower():
        case "" | "true" | "1" | "t":
            return True
        case "false" | "0" | "f":
            return False
    raise RlError(f"invalid --security-opt {option!r}: {value!r} is neither true nor false")


def _paths(value: str, option: str) -> list[str]:
    paths = value.split(":")
    if not all(path.startswith("/") for path in paths):
        raise RlError(
            f"invalid --security-opt {option!r}: expected absolute paths with ':' between"
        )
    return paths


def _check_label(value: str, option: str) -> None:
    # Of SELinux. A container of ours has no label of its own, so none can be chosen or disabled.
    if value.partition(":")[0] not in (
        "disable", "nested", "user", "role", "type", "level", "filetype",
    ):  # fmt: skip
        raise RlError(f"invalid --security-opt {option!r}: unknown label")
