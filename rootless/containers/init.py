"""PID 1 of a container, from the moment it is cloned until it becomes the container's command.

Carries out a config.json: mounts, devices, masks, identity, limits, exec. It
runs as root of the new user namespace, alone: no process of the container
exists before it executes the command. It decides nothing that spec could have
decided. Started by the supervisor.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import socket
import stat
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from fuse_overlay.mount import mount_data
from rootless.containers import interpreter, owner, rootfs, users
from rootless.containers.annotation import Spec, read_extra
from rootless.containers.channel import Channel
from rootless.containers.namespaces import KEEP_GROUPS
from rootless.containers.seccomp import program
from rootless.containers.surroundings import INIT_PATH, UNLIMITED
from rootless.errors import RlError
from rootless.kernel import capabilities, mounts, process, syscalls
from rootless.networks import confine, loopback, routes

# A passwd or group file larger than this is no such file.
_LARGEST_DATABASE: Final = 8 << 20
# Characters of an error: it may quote an argument of any length.
_LONGEST: Final = 1000

# Docker's exit codes.
FAILED: Final = 125
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127

_PTMX: Final = os.makedev(5, 2)
_TIOCSCTTY: Final = 0x540E
_TIOCGPTPEER: Final = 0x5441
_TIOCSPTLCK: Final = 0x40045431


def main(spec: Spec, stdio: Sequence[int], channel: Channel, *, changeable: bool) -> int:
    """Set up and execute the container's command; returns only to report a failure.

    ``stdio`` are its three standard streams, or none for a terminal of its own;
    ``changeable`` says whether the container could change our interpreter.
    """
    with failures_sent(channel):
        wait_for_go(channel)
        set_oom_score(spec["process"])
        if any(space["type"] == "cgroup" for space in spec["linux"]["namespaces"]):
            syscalls.unshare(syscalls.CLONE_NEWCGROUP)
        # Nothing mounted from here on may reach the host; what the host mounts may reach us.
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
        # As the user himself: root of the container may be somebody else, whom paths are closed to.
        extra = read_extra(spec)
        sources, fillings = rootfs.open_sources(spec, extra), rootfs.open_fillings(spec, extra)
        bundle = os.path.dirname(spec["root"]["path"])
        filters = [program.open_program(bundle)] if "seccomp" in spec["linux"] else []
        root = mount_root(spec, channel, *_begin_network(spec))
        outside = rootfs.Outside(root, sources, os.getuid(), filters, fillings)
        if changeable:
            config = os.open(f"{bundle}/config.json", os.O_RDONLY)
            syscalls.become_root(keep_groups=keeps_groups(spec["process"]))
            for fd in (config, channel.fileno(), *stdio, *outside.descriptors):
                os.set_inheritable(fd, True)
            kept = {"config": config, "channel": channel.fileno(), "stdio": list(stdio)}
            interpreter.execute_read_only(
                "rootless.containers.init", json.dumps({**kept, "outside": asdict(outside)})
            )
        syscalls.become_root(keep_groups=keeps_groups(spec["process"]))
        _proceed(spec, outside, stdio, channel)
    return FAILED


def main_anew(kept: str) -> int:
    """Go on where ``main`` left off to execute the interpreter anew."""
    descriptors = json.loads(kept)
    outside = rootfs.Outside(**descriptors["outside"])
    channel = Channel(socket.socket(fileno=descriptors["channel"]))
    for fd in (channel.fileno(), *outside.descriptors):
        os.set_inheritable(fd, False)
    with failures_sent(channel):
        with open(descriptors["config"], "rb") as file:
            spec = json.load(file)
        _proceed(spec, outside, descriptors["stdio"], channel)
    return FAILED


def _proceed(spec: Spec, outside: rootfs.Outside, stdio: Sequence[int], channel: Channel) -> None:
    os.setsid()
    process.die_with_parent()
    os.umask(0o022)
    leave_keyring()
    confined_by = program.load(outside.filter[0], spec["linux"]) if outside.filter else None
    _set_up(spec, outside, stdio, channel, confined_by)
    wait_for_go(channel)
    execute(spec["process"], confined_by)


@contextlib.contextmanager
def failures_sent(channel: Channel) -> Iterator[None]:
    """Send what fails in this block to the supervisor."""
    try:
        yield
    except RlError as error:
        channel.send({"error": str(error)[:_LONGEST], "exit_code": error.exit_code})
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        text = f"cannot set up the container: {error.strerror}{where}"
        channel.send({"error": text[:_LONGEST], "exit_code": FAILED, "errno": error.errno})
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error}"
        channel.send({"error": text[:_LONGEST], "exit_code": FAILED})


def set_oom_score(settings: dict[str, Any]) -> None:
    """Say how soon the kernel is to choose this process, while /proc is the host's."""
    if (score := settings.get("oomScoreAdj")) is None:
        return
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(score))
    except OSError as error:
        raise RlError(
            f"cannot set the OOM score to {score}: {error.strerror} (only the administrator may "
            "lower it)"
        ) from None


def wait_for_go(channel: Channel) -> None:
    """Wait for the supervisor's go-ahead; without it there is nobody to run for."""
    message, _ = channel.receive()
    if message is None:
        os._exit(FAILED)


def _set_up(
    spec: Spec,
    outside: rootfs.Outside,
    stdio: Sequence[int],
    channel: Channel,
    confined_by: program.Filter | None,
) -> None:
    root = outside.root
    if any(space["type"] == "uts" for space in spec["linux"]["namespaces"]):
        socket.sethostname(spec["hostname"])
    # Prepared while the overlay server is still loading; what follows waits for it.
    extra = read_extra(spec)
    for name, line in extra.accounts.items():
        rootfs.add_account(root, f"/etc/{name}", line)
    rootfs.assemble(spec, extra, outside)
    if stdio:
        master = take(stdio)
    else:
        master = open_terminal(root)
        _bind_console(root)
    os.close(mounts.make_directories(root, spec["process"]["cwd"]))
    user = resolve_user(root, spec["process"]["user"])
    for target in extra.given:
        owner.give(outside.sources[target], user.uid, user.gid, target)
    if spec["root"]["readonly"]:
        mounts.set_readonly(f"/proc/self/fd/{root}")
    # Nothing of the host is open any more where a path that the container can change is followed.
    process.close_all_but([channel.fileno(), root, *master])
    _enter(root)
    enter_directory(root, spec["process"]["cwd"])
    become(user, spec["process"], confined_by)
    # Once more: the change of identity has cleared it.
    process.die_with_parent()
    channel.send({"ready": True}, *master)
    process.close_all_but([channel.fileno()])


def leave_keyring() -> None:
    """Leave the user's session keyring outside: it may hold tickets and file system keys."""
    try:
        syscalls.join_new_session_keyring()
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise


def _begin_network(spec: Spec) -> list[int]:
    """Bring the loopback of our own network up.

    Returns what the supervisor connects it by: what hears of its routes, and our namespaces,
    which it cannot open any more once we have become somebody else.
    """
    if not any(space["type"] == "network" for space in spec["linux"]["namespaces"]):
        return []
    loopback.bring_up()
    if read_extra(spec).request["network"] == "none":
        return []
    confine.keep_loopback_inside()
    flags = os.O_RDONLY | os.O_CLOEXEC
    return [routes.watch(), *(os.open(f"/proc/self/ns/{name}", flags) for name in ("user", "net"))]


def mount_root(spec: Spec, channel: Channel, *more: int) -> int:
    """Mount the overlay, hand its descriptor to whoever serves it, return the root directory.

    The descriptors ``more`` go the same way.
    """
    merged = spec["root"]["path"]
    try:
        fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise RlError(
            f"cannot open /dev/fuse: {error.strerror} (ask the administrator for: "
            "modprobe fuse; chmod 666 /dev/fuse)"
        ) from None
    syscalls.mount("fuse-overlay", merged, "fuse", syscalls.MS_NODEV, mount_data(fuse))
    channel.send({"fuse": True}, fuse, *more)
    for fd in (fuse, *more):
        os.close(fd)
    return os.open(merged, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _enter(root: int) -> None:
    """Make ``root`` the root directory and leave the host's tree behind, pivot_root(2)."""
    os.fchdir(root)
    syscalls.pivot_root(".", ".")
    # The old root now lies on top of the new one.
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")


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


def open_terminal(root: int) -> list[int]:
    """Make a terminal in the container's devpts, our standard streams its slave; return [master].

    Everything goes by descriptor: no path of the container is trusted to be the
    terminal (CVE-2025-52565).
    """
    # Not through /dev/ptmx, which is a link.
    flags = os.O_RDWR | os.O_NOCTTY
    master = mounts.open_in_root(root, "/dev/pts/ptmx", flags)
    if os.fstat(master).st_rdev != _PTMX:
        # A file system of the container's own could answer what it likes, a number of ours too.
        raise RlError("cannot make a terminal: the container has changed its /dev/pts/ptmx")
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, flags)
    for fd in range(3):
        os.dup2(slave, fd)
    os.close(slave)
    fcntl.ioctl(0, _TIOCSCTTY, 0)
    return [master]


def _bind_console(root: int) -> None:
    """Let /dev/console be our terminal, too."""
    console = mounts.make_target(root, "/dev/console", directory=False)
    tree = syscalls.open_tree("", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH, directory=0)
    mounts.attach(tree, console, mounts.parse_options(()))
    os.close(console)


def take(stdio: Sequence[int]) -> list[int]:
    """Make these our standard streams; return no master."""
    for number, fd in enumerate(stdio):
        os.dup2(fd, number)
    return []


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
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
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
        # Root is alone in this user namespace, and nobody in it may leave a group of the host.


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


if __name__ == "__main__":
    sys.exit(main_anew(*sys.argv[1:]))
