"""The compiled filter of one container, BUNDLE/seccomp.bpf, and how a process puts it on.

Owns that file. On the path of every start and exec, so it needs neither profile nor library.
Called by create, init and enter.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from rootless.errors import RlError
from rootless.kernel import syscalls

_FILE: Final = "seccomp.bpf"
# <linux/seccomp.h>
_FLAGS: Final = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
}


class Filter(NamedTuple):
    """A program for the kernel, struct sock_filter[], as text of one character a byte: JSON."""

    program: str
    flags: int


def store(bundle: Path, program: bytes) -> None:
    """Put the program where ``load`` finds it."""
    (bundle / _FILE).write_bytes(program)


def open_program(bundle: str | Path) -> int:
    """Return a descriptor of the program of a container that has a filter."""
    return os.open(os.path.join(bundle, _FILE), os.O_RDONLY | os.O_CLOEXEC)


def load(program: int, linux: dict[str, Any]) -> Filter:
    """Return the filter with the program in the descriptor, which is closed."""
    flags = set(linux["seccomp"].get("flags", ()))
    with open(program, encoding="latin-1", newline="") as file:
        return Filter(file.read(), sum(_FLAGS[name] for name in flags))


def put_on(program: Filter) -> None:
    """Filter the system calls of this process and of all that it executes, for ever.

    It takes no_new_privs, or CAP_SYS_ADMIN in the user namespace.
    """
    try:
        syscalls.seccomp_set_mode_filter(program.flags, program.program.encode("latin-1"))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        raise RlError(
            "cannot filter system calls: the kernel does not take the filter "
            "(without one: --security-opt seccomp=unconfined)"
        ) from None
