"""System calls that the standard library does not offer, one typed function each.

Owns the ctypes bindings and the kernel's constants for them. Never decides
anything: callers in rootless/kernel and rootless/containers do. Every function
raises OSError with the call's own errno.

Numbers from 424 on are the same on all architectures, so only those are named
here; the older calls go through libc's own functions.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

# PyDLL keeps the interpreter's lock during the call: clone3 must return in the
# child with the lock still held, and none of the others blocks for long.
_libc: Final = ctypes.PyDLL(None, use_errno=True)
_python: Final = ctypes.pythonapi

# <linux/sched.h>
CLONE_PIDFD: Final = 0x00001000
CLONE_PARENT: Final = 0x00008000
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
CLONE_INTO_CGROUP: Final = 0x200000000

# <linux/mount.h>
MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_SYNCHRONOUS: Final = 16
MS_DIRSYNC: Final = 128
MS_NOATIME: Final = 1024
MS_NODIRATIME: Final = 2048
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20
MS_RELATIME: Final = 1 << 21
MS_STRICTATIME: Final = 1 << 24
MNT_DETACH: Final = 2
OPEN_TREE_CLONE: Final = 1
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
MOUNT_ATTR_RDONLY: Final = 0x01
MOUNT_ATTR_NOSUID: Final = 0x02
MOUNT_ATTR_NODEV: Final = 0x04
MOUNT_ATTR_NOEXEC: Final = 0x08

# <linux/openat2.h>
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_IN_ROOT: Final = 0x10

# <linux/fcntl.h>
AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000

# <linux/prctl.h>
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_SET_KEEPCAPS: Final = 8
PR_CAPBSET_DROP: Final = 24
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

# <sys/inotify.h>
IN_MODIFY: Final = 0x00000002
IN_MOVED_TO: Final = 0x00000080
IN_CREATE: Final = 0x00000100

_SYS_OPEN_TREE: Final = 428
_SYS_MOVE_MOUNT: Final = 429
_SYS_CLONE3: Final = 435
_SYS_CLOSE_RANGE: Final = 436
_SYS_OPENAT2: Final = 437
_SYS_MOUNT_SETATTR: Final = 442

# The older ones that libc has no function for, or one that is not ours to use: x86-64 numbers
# them by itself, all newer architectures alike.
_X86_64: Final = os.uname().machine == "x86_64"
_SYS_KEYCTL: Final = 250 if _X86_64 else 219
_SYS_SETGROUPS: Final = 116 if _X86_64 else 159
_SYS_SETRESUID: Final = 117 if _X86_64 else 147
_SYS_SETRESGID: Final = 119 if _X86_64 else 149
_SYS_SECCOMP: Final = 317 if _X86_64 else 277
_SECCOMP_SET_MODE_FILTER: Final = 1
_KEYCTL_JOIN_SESSION_KEYRING: Final = 1

_LINUX_CAPABILITY_VERSION_3: Final = 0x20080522


class _CloneArgs(ctypes.Structure):
    """struct clone_args (Linux 5.7)."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid "
            "set_tid_size cgroup"
        ).split()
    ]


class _OpenHow(ctypes.Structure):
    """struct open_how (Linux 5.6)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


class _MountAttr(ctypes.Structure):
    """struct mount_attr (Linux 5.12)."""

    _fields_ = [
        (name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")
    ]


class _SockFprog(ctypes.Structure):
    """struct sock_fprog: how many instructions, of eight bytes each, and where."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def _check(result: int, *paths: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        names = [path for path in paths if path]
        raise OSError(number, os.strerror(number), *names[:1])
    return result


def _bytes(path: str | None) -> bytes | None:
    return None if path is None else os.fsencode(path)


def _syscall(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    return result


def clone3(flags: int, cgroup: int = -1) -> tuple[int, int]:
    """Fork into the new namespaces that ``flags`` names (Linux 5.3), and into a cgroup (5.7).

    Returns (pid, pidfd) in the parent and (0, -1) in the child, which with CLONE_PARENT is one
    of our parent's. The caller must be single-threaded. The PyOS_* calls are what CPython's C
    API asks of a process that clones itself without os.fork().
    """
    pidfd = ctypes.c_int(-1)
    flags |= CLONE_PIDFD | (CLONE_INTO_CGROUP if cgroup >= 0 else 0)
    # A sibling signals its end as we do ours.
    exit_signal = 0 if flags & CLONE_PARENT else 17
    arguments = _CloneArgs(flags=flags, pidfd=ctypes.addressof(pidfd), exit_signal=exit_signal)
    arguments.cgroup = max(cgroup, 0)
    size = ctypes.c_size_t(ctypes.sizeof(arguments))
    _python.PyOS_BeforeFork()
    pid = _syscall(_SYS_CLONE3, ctypes.byref(arguments), size)
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return 0, -1
    _python.PyOS_AfterFork_Parent()
    return _check(pid), pidfd.value


def setns(fd: int, flags: int) -> None:
    """Enter the namespaces of a namespace descriptor or, since Linux 5.8, of a pidfd."""
    _check(_libc.setns(fd, flags))


def unshare(flags: int) -> None:
    """Leave for new namespaces, unshare(2)."""
    _check(_libc.unshare(flags))


def mount(source: str, target: str, fstype: str | None, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    _check(
        _libc.mount(
            _bytes(source), _bytes(target), _bytes(fstype), ctypes.c_ulong(flags), _bytes(data)
        ),
        target,
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(_bytes(target), flags), target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2); ``pivot_root(".", ".")`` stacks the old root on the new one."""
    _check(_libc.pivot_root(_bytes(new_root), _bytes(put_old)), new_root)


def open_tree(path: str, flags: int, directory: int = AT_FDCWD) -> int:
    """Return a descriptor of a (cloned) mount tree, open_tree(2), Linux 5.2."""
    flags |= os.O_CLOEXEC
    return _check(_syscall(_SYS_OPEN_TREE, directory, _bytes(path), ctypes.c_uint(flags)), path)


def move_mount(mount_fd: int, target_fd: int) -> None:
    """Attach a detached mount on the file or directory ``target_fd``, Linux 5.2."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    _check(_syscall(_SYS_MOVE_MOUNT, mount_fd, b"", target_fd, b"", ctypes.c_uint(flags)))


def mount_setattr(mount_fd: int, attributes: int, propagation: int, recursive: bool) -> None:
    """Set MOUNT_ATTR_* flags and the propagation of a mount (tree), Linux 5.12."""
    value = _MountAttr(attr_set=attributes, propagation=propagation)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _check(
        _syscall(
            _SYS_MOUNT_SETATTR,
            mount_fd,
            b"",
            ctypes.c_uint(flags),
            ctypes.byref(value),
            ctypes.c_size_t(ctypes.sizeof(value)),
        )
    )


def openat2(directory: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """Open ``path`` under ``directory`` within the limits of RESOLVE_* flags, Linux 5.6."""
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    return _check(
        _syscall(
            _SYS_OPENAT2,
            directory,
            _bytes(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        ),
        path,
    )


def file_system_type(fd: int) -> int:
    """Return what statfs(2) calls f_type."""
    words = (ctypes.c_long * 32)()
    _check(_libc.fstatfs(fd, words))
    return words[0]


def close_range(first: int, last: int) -> None:
    """Close all descriptors from ``first`` to ``last``, both included, Linux 5.9."""
    if first <= last:
        _check(_syscall(_SYS_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(last), 0))


def join_new_session_keyring() -> None:
    """Leave the session keyring for a new and empty one, keyctl(2)."""
    _check(_syscall(_SYS_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, None))


def become_root(*, keep_groups: bool = False) -> None:
    """Become uid and gid 0 with no supplementary groups, unless they are to be kept.

    Not by libc's functions, which wait for the other threads that libc knows: a
    child by clone3 has none, and may wait for ever for those of its parent.
    """
    zero = ctypes.c_uint(0)
    if not keep_groups:
        left = _syscall(_SYS_SETGROUPS, ctypes.c_size_t(0), None)
        # EPERM: a namespace of one's own id alone, where nobody may leave a group.
        if ctypes.get_errno() != errno.EPERM:
            _check(left)
    _check(_syscall(_SYS_SETRESGID, zero, zero, zero))
    _check(_syscall(_SYS_SETRESUID, zero, zero, zero))


def inotify_init() -> int:
    """Return a descriptor that becomes readable when a watched file changes, inotify(7)."""
    return _check(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))


def inotify_add_watch(fd: int, path: str, events: int) -> None:
    """Watch a file for IN_* events."""
    _check(_libc.inotify_add_watch(fd, _bytes(path), ctypes.c_uint32(events)), path)


def prctl(option: int, argument: int = 0, argument3: int = 0) -> int:
    """prctl(2)."""
    words = [ctypes.c_ulong(value) for value in (argument, argument3, 0, 0)]
    return _check(_libc.prctl(option, *words))


def set_process_name(name: str) -> None:
    """Set the name that ps shows (15 bytes at most)."""
    buffer = ctypes.create_string_buffer(os.fsencode(name)[:15])
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def seccomp_set_mode_filter(flags: int, program: bytes) -> None:
    """Put a filter, struct sock_filter[], over this process, seccomp(2)."""
    value = _SockFprog(len(program) // 8, program)
    words = ctypes.c_uint(_SECCOMP_SET_MODE_FILTER), ctypes.c_uint(flags)
    _check(_syscall(_SYS_SECCOMP, *words, ctypes.byref(value)))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the capability sets of this thread, bit masks over capability numbers."""
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    words = (ctypes.c_uint32 * 6)()
    for index, mask in enumerate((effective, permitted, inheritable)):
        words[index] = mask & 0xFFFFFFFF
        words[index + 3] = mask >> 32
    _check(_libc.capset(header, words))
