"""User namespaces mapped with the ranges that the administrator gave this user.

Owns /etc/subuid and /etc/subgid as read by us, the maps made of them, and the
way into a namespace. Everything that touches files of subordinate ids runs
through ``call``. See user_namespaces(7), subuid(5), newuidmap(1).
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar

from rootless.errors import RlError
from rootless.kernel import process, syscalls

P = ParamSpec("P")
T = TypeVar("T")


class IdMap(NamedTuple):
    """``size`` ids from ``inside`` in the namespace are those from ``outside`` on the host."""

    inside: int
    outside: int
    size: int


class Maps(NamedTuple):
    """The uid and gid maps of a namespace, each in order of the ids inside."""

    uids: tuple[IdMap, ...]
    gids: tuple[IdMap, ...]


def user_name(uid: int) -> str:
    """Return the login name of ``uid``, or its number where no database knows it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def parse_ranges(text: str, name: str, uid: int) -> list[tuple[int, int]]:
    """Return the (first, count) ranges that subuid(5) ``text`` gives a user, by name or number."""
    ranges = []
    for line in text.splitlines():
        owner, _, rest = line.strip().partition(":")
        first, _, count = rest.partition(":")
        if owner in (name, str(uid)) and first.isdecimal() and count.isdecimal() and int(count):
            ranges.append((int(first), int(count)))
    return ranges


def build_map(own: int, ranges: list[tuple[int, int]]) -> tuple[IdMap, ...]:
    """Map 0 to the user's own id and 1… to the ranges one after the other, as Podman does."""
    maps = [IdMap(0, own, 1)]
    for first, count in ranges:
        maps.append(IdMap(maps[-1].inside + maps[-1].size, first, count))
    return tuple(maps)


def user_maps() -> Maps:
    """Return this user's maps; RlError says what the administrator has to do if there are none."""
    return Maps(
        build_map(os.getuid(), _ranges("uid", "/etc/subuid")),
        build_map(os.getgid(), _ranges("gid", "/etc/subgid")),
    )


def own_maps() -> Maps:
    """Return the maps of a user who is root and nobody else: there is no range to be had."""
    return Maps((IdMap(0, os.getuid(), 1),), (IdMap(0, os.getgid(), 1),))


def storage_maps() -> Maps:
    """Return the maps under which files are stored: the user's, or if there are none his own id."""
    try:
        return user_maps()
    except RlError:
        return own_maps()


def _ranges(kind: str, path: str) -> list[tuple[int, int]]:
    uid = os.getuid()
    name = user_name(uid)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            ranges = parse_ranges(file.read(), name, uid)
    except FileNotFoundError:
        ranges = []
    if not ranges:
        raise RlError(
            f"cannot map {kind}s: {name} has no range in {path} (ask the administrator for: "
            f"usermod --add-sub{kind}s 100000-165535 {name}; or do without, as root and nobody "
            "else: rl run --userns=single)"
        )
    return ranges


def write_maps(pid: int, maps: Maps) -> None:
    """Map the ids of ``pid``'s new user namespace with newuidmap and newgidmap, side by side.

    One's own id alone may be mapped without them; groups can then not be left.
    """
    if [entry.size for entry in (*maps.uids, *maps.gids)] == [1, 1]:
        _write_own(pid, maps)
        return
    helpers = [
        _start_helper("newuidmap", pid, maps.uids),
        _start_helper("newgidmap", pid, maps.gids),
    ]
    failures = [message for helper in helpers if (message := _finish_helper(*helper))]
    if failures:
        raise RlError(failures[0])


def _write_own(pid: int, maps: Maps) -> None:
    try:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", "{0.inside} {0.outside} 1".format(*maps.uids)),
            ("gid_map", "{0.inside} {0.outside} 1".format(*maps.gids)),
        ):
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write(text)
    except OSError as error:
        raise RlError(f"cannot map your own id: {error.strerror}") from None


def _start_helper(program: str, pid: int, maps: tuple[IdMap, ...]) -> tuple[str, int, int]:
    arguments = [program, str(pid)]
    for entry in maps:
        arguments += [str(entry.inside), str(entry.outside), str(entry.size)]
    reader, writer = os.pipe()
    try:
        helper = os.posix_spawnp(
            program, arguments, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 2)]
        )
    except FileNotFoundError:
        os.close(reader)
        raise RlError(
            f"cannot map ids: {program} is not installed (Debian, Ubuntu: uidmap; "
            "Fedora: shadow-utils)"
        ) from None
    finally:
        os.close(writer)
    return program, helper, reader


def _finish_helper(program: str, helper: int, reader: int) -> str | None:
    with open(reader, encoding="utf-8", errors="replace") as stderr:
        said = " ".join(stderr.read().split())
    _, status = os.waitpid(helper, 0)
    if status == 0:
        return None
    return f"cannot map ids: {said or program + ' failed'} (see `rl info`, and subuid(5))"


def creation_error(error: OSError) -> RlError:
    """Say why the kernel refused a new user namespace, and what to do."""
    remedies = {
        "/proc/sys/kernel/unprivileged_userns_clone": "0",
        "/proc/sys/user/max_user_namespaces": "0",
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1",
    }
    for path, refusing in remedies.items():
        try:
            with open(path, encoding="ascii") as file:
                if file.read().strip() == refusing:
                    name = path.removeprefix("/proc/sys/").replace("/", ".")
                    return RlError(
                        f"cannot make a user namespace: the sysctl {name} is {refusing} "
                        "(ask the administrator to change it)"
                    )
        except OSError:
            continue
    return RlError(f"cannot make a user namespace: {error.strerror}")


def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return ``function(*args)``, run by a forked child that is root of a new user namespace.

    The result and any exception must be picklable. The child shares
    everything else with the caller (files, network, terminal) and dies with it.
    """
    import pickle

    maps = storage_maps()
    mapped_reader, mapped_writer = os.pipe()
    reader, writer = os.pipe()

    def main() -> int:
        if os.read(mapped_reader, 1):
            syscalls.become_root()
            process.die_with_parent()
            with open(writer, "wb") as file:
                pickle.dump(_outcome(function, args, kwargs), file)
        return 0

    try:
        child = process.fork(main, syscalls.CLONE_NEWUSER, keep=(mapped_reader, writer))
    except OSError as error:
        for fd in (mapped_reader, mapped_writer, reader, writer):
            os.close(fd)
        raise creation_error(error) from None
    os.close(mapped_reader)
    os.close(writer)
    with open(reader, "rb") as answer:
        try:
            with open(mapped_writer, "wb", buffering=0) as mapped:
                write_maps(child.pid, maps)
                mapped.write(b"m")
            answered = answer.read()
        finally:
            # Also after ^C, which the child got as well: let it finish cleaning up.
            status = child.wait()
    try:
        result, failure = pickle.loads(answered)
    except (EOFError, pickle.UnpicklingError):
        raise RlError(f"a helper process of ours ended unexpectedly (status {status})") from None
    if failure is not None:
        raise failure
    return result  # type: ignore[no-any-return]


def _outcome(
    function: Callable[..., T], args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[T | None, BaseException | None]:
    import pickle

    try:
        result = function(*args, **kwargs)
        pickle.dumps(result)
        return result, None
    except BaseException as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return None, RlError(f"{type(error).__name__}: {error}")
        return None, error
