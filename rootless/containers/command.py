"""The last steps of a process of ours that becomes a container's command.

Takes the user's identity, limits and directory, all of which only give up what
it has, and executes the program. Called by ``init`` and ``join``, inside the
container.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
from collections.abc import Callable, Sequence
from typing import Any, Final

from rootless.containers import users
from rootless.containers.namespaces import KEEP_GROUPS
from rootless.containers.seccomp import program
from rootless.containers.surroundings import INIT_PATH, UNLIMITED
from rootless.errors import RlError
from rootless.kernel import capabilities, mounts, process, syscalls

# A passwd or group file larger than this is no such file.
_LARGEST_DATABASE: Final = 8 << 20

# Docker's exit codes.
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127


def set_oom_score(settings: dict[str, Any]) -> None:
    """Say how soon the kernel is to choose this process, while /proc is the host's."""
    if (score := settings.get("oomScoreAdj")) is None:
        return
    try:
        with open("/proc/self/oom_score_adj", encoding="ascii") as file:
            if int(file.read()) == score:
                # It may be inherited, and not ours to write any more.
                return
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(score))
    except OSError as error:
        raise RlError(
            f"cannot set the OOM score to {score}: {error.strerror} (only the administrator may "
            "lower it)"
        ) from None


def leave_keyring() -> None:
    """Leave the user's session keyring outside: it may hold tickets and file system keys."""
    try:
        syscalls.join_new_session_keyring()
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise


def enter_directory(root: int, path: str) -> None:
    """Make ``path`` inside ``root``, which is our root directory, the working directory."""
    try:
        directory = mounts.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
        os.fchdir(directory)
        os.close(directory)
        # It fails for a directory that is not below the root.
        os.getcwd()
    except OSError as error:
        raise RlError(
            f"cannot use {path} as the working directory: {error.strerror}", NOT_EXECUTABLE
        ) from None


def resolve_user(root: int, wanted: dict[str, Any]) -> users.User:
    """Return what ``process.user`` means in the container's own databases."""
    passwd, group = (_read_database(root, f"/etc/{name}") for name in ("passwd", "group"))
    more = () if KEEP_GROUPS in wanted.get("groups", ()) else wanted.get("groups", ())
    return users.resolve(wanted["username"], passwd, group, more)


def keeps_groups(settings: dict[str, Any]) -> bool:
    """Tell whether the process stays in the groups that the user is in outside."""
    return KEEP_GROUPS in settings["user"].get("groups", ())


def _read_database(root: int, path: str) -> str:
    """Return the text of a file of the image, "" if it has none; never waits for a FIFO."""
    try:
        fd = mounts.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return ""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return ""
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        return file.read(_LARGEST_DATABASE)


def become(user: users.User, settings: dict[str, Any], confined_by: program.Filter | None) -> None:
    """Take the container user's identity and limits; nothing can be regained afterwards.

    One capability stays until execve(2): the filter is the last that is put on, and takes it.
    """
    for fd in range(3):
        # A user who is not root opens /dev/stdout, too.
        if not stat.S_ISCHR(os.fstat(fd).st_mode) or os.isatty(fd):
            with contextlib.suppress(OSError):
                os.fchown(fd, user.uid, -1)
    for limit in settings["rlimits"]:
        values = (limit["soft"], limit["hard"])
        soft, hard = (resource.RLIM_INFINITY if value == UNLIMITED else value for value in values)
        resource.setrlimit(getattr(resource, limit["type"]), (soft, hard))
    kept = settings["capabilities"]
    capabilities.limit_bounding_set(kept["bounding"])
    kept_for_filter: tuple[str, ...] = ()
    if confined_by is not None and not settings["noNewPrivileges"]:
        kept_for_filter = ("CAP_SYS_ADMIN",)
        syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    try:
        if not keeps_groups(settings):
            # With his own among them, so that no set-group-id program takes it away
            # (CVE-2022-36109).
            _set_groups(sorted({user.gid, *user.groups}))
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise RlError(
            f"cannot become user {user.uid}:{user.gid}: the id is outside of the mapped ranges "
            "(see /etc/subuid and /etc/subgid)"
        ) from None
    capabilities.limit_to(kept["permitted"] if user.uid == 0 else (), kept_for_filter)
    if settings["noNewPrivileges"]:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if not any(item.startswith("HOME=") for item in settings["env"]):
        settings["env"].append(f"HOME={user.home}")
    os.umask(settings["user"].get("umask", 0o022))


def _set_groups(groups: Sequence[int]) -> None:
    try:
        os.setgroups(groups)
    except PermissionError:
        with open("/proc/self/setgroups", "rb") as file:
            if file.read().strip() != b"deny":
                raise


def execute(settings: dict[str, Any], confined_by: program.Filter | None) -> None:
    """Become the command, or raise RlError with NOT_FOUND or NOT_EXECUTABLE."""
    args: list[str] = settings["args"]
    env = dict(item.split("=", 1) for item in settings["env"])
    if "\0" in "".join([*args, *settings["env"]]):
        raise RlError("an argument or environment variable holds a NUL character")
    process.restore_signals()
    path = env.get("PATH", "")
    if args[:2] == [INIT_PATH, "--"]:
        # It could tell nobody but by a line on stderr, and by a status of its own.
        _first_that_works(args[2], path, _check_executable)
    if confined_by is not None:
        program.put_on(confined_by)
    _first_that_works(args[0], path, lambda candidate: os.execve(candidate, args, env))


def _first_that_works(name: str, path: str, attempt: Callable[[str], None]) -> None:
    """Attempt each file that the name of a program may mean, as execvp(3); RlError if all fail."""
    code, why = NOT_FOUND, "executable file not found in $PATH"
    if not name:
        raise RlError('cannot execute "": it is no name of a program', code)
    for candidate in _candidates(name, path):
        try:
            return attempt(candidate)
        except (FileNotFoundError, NotADirectoryError) as error:
            if candidate == name:
                why = os.strerror(error.errno or 0)
        except OSError as error:
            code, why = NOT_EXECUTABLE, os.strerror(error.errno or 0)
    raise RlError(f'cannot execute "{name}": {why}', code)


def _check_executable(path: str) -> None:
    """Raise the OSError that execve(2) has for a file, as far as it can be told without it."""
    if not stat.S_ISREG(os.stat(path).st_mode) or not os.access(path, os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def _candidates(program: str, path: str) -> Sequence[str]:
    if "/" in program:
        return [program]
    return [f"{directory or '.'}/{program}" for directory in path.split(":")]
