"""PID 1 of a container, from the moment it is cloned until it becomes the container's command.

Carries out a config.json: mounts, devices, masks, identity, limits, exec. It
runs as root of the new user namespace, alone: no process of the container
exists before it executes the command. It decides nothing that spec could have
decided. Started by the supervisor.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence

from fuse_overlay.mount import mount_data
from rootless.channel import Channel
from rootless.containers import command, handshake, interpreter, owner, rootfs, terminal
from rootless.containers.annotation import Extra, Spec, read_extra
from rootless.containers.seccomp import program
from rootless.errors import RlError
from rootless.kernel import mounts, process, syscalls
from rootless.networks import confine, loopback, routes
from rootless.values import as_dict


def main(
    spec: Spec,
    stdio: Sequence[int],
    channel: Channel,
    trees: Mapping[str, int],
    *,
    changeable: bool,
) -> int:
    """Set up and execute the container's command; returns only to report a failure.

    ``stdio`` are its three standard streams, or none for a terminal of its own; ``trees`` are
    mounts that were made for it, by their targets;
    ``changeable`` says whether the container could change our interpreter.
    """
    with handshake.failures_sent(channel):
        handshake.wait_for_go(channel)
        command.set_oom_score(spec["process"])
        extra = read_extra(spec)
        _begin_among_others(extra, channel)
        if any(space["type"] == "cgroup" for space in spec["linux"]["namespaces"]):
            syscalls.unshare(syscalls.CLONE_NEWCGROUP)
        # Nothing mounted from here on may reach the host; what the host mounts may reach us.
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
        # As the user himself: root of the container may be somebody else, whom paths are closed to.
        sources = rootfs.open_sources(spec, extra, trees)
        fillings = rootfs.open_fillings(spec, extra)
        bundle = os.path.dirname(spec["root"]["path"])
        filters = [program.open_program(bundle)] if "seccomp" in spec["linux"] else []
        root = mount_root(spec, channel, *_begin_network(spec))
        outside = rootfs.Outside(root, sources, os.getuid(), filters, fillings, tuple(trees))
        if changeable:
            config = os.open(f"{bundle}/config.json", os.O_RDONLY)
            syscalls.become_root(keep_groups=command.keeps_groups(spec["process"]))
            for fd in (config, channel.fileno(), *stdio, *outside.descriptors):
                os.set_inheritable(fd, True)
            kept = {"config": config, "channel": channel.fileno(), "stdio": list(stdio)}
            interpreter.execute_read_only(
                "rootless.containers.init", json.dumps({**kept, "outside": as_dict(outside)})
            )
        syscalls.become_root(keep_groups=command.keeps_groups(spec["process"]))
        _proceed(spec, outside, stdio, channel)
    return handshake.FAILED


def main_anew(kept: str) -> int:
    """Go on where ``main`` left off to execute the interpreter anew."""
    descriptors = json.loads(kept)
    outside = rootfs.Outside(**descriptors["outside"])
    channel = Channel(socket.socket(fileno=descriptors["channel"]))
    for fd in (channel.fileno(), *outside.descriptors):
        os.set_inheritable(fd, False)
    with handshake.failures_sent(channel):
        with open(descriptors["config"], "rb") as file:
            spec = json.load(file)
        _proceed(spec, outside, descriptors["stdio"], channel)
    return handshake.FAILED


def _proceed(spec: Spec, outside: rootfs.Outside, stdio: Sequence[int], channel: Channel) -> None:
    os.setsid()
    process.die_with_parent()
    os.umask(0o022)
    command.leave_keyring()
    confined_by = program.load(outside.filter[0], spec["linux"]) if outside.filter else None
    _set_up(spec, outside, stdio, channel, confined_by)
    handshake.wait_for_go(channel)
    command.execute(spec["process"], confined_by)


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
    extra = read_extra(spec)
    for name, line in extra.accounts.items():
        rootfs.add_account(root, f"/etc/{name}", line)
    rootfs.assemble(spec, extra, outside)
    if stdio:
        master = terminal.take(stdio)
    else:
        master = terminal.open_terminal(root)
        terminal.bind_console(root)
    os.close(mounts.make_directories(root, spec["process"]["cwd"]))
    user = command.resolve_user(root, spec["process"]["user"])
    for target in extra.given:
        owner.give(outside.sources[target], user.uid, user.gid, target)
    if spec["root"]["readonly"]:
        mounts.set_readonly(f"/proc/self/fd/{root}")
    # Nothing of the host is open any more where a path that the container can change is followed.
    process.close_all_but([channel.fileno(), root, *master])
    _enter(root)
    command.enter_directory(root, spec["process"]["cwd"])
    command.become(user, spec["process"], confined_by)
    # Once more: the change of identity has cleared it.
    process.die_with_parent()
    channel.send({"ready": True}, *master)
    process.close_all_but([channel.fileno()])


def _begin_among_others(extra: Extra, channel: Channel) -> None:
    """Tell the supervisor what our processes are known by, in a PID namespace of another one."""
    if "pid" not in extra.joined:
        return
    mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    channel.send({"mounts": True}, mounts)
    os.close(mounts)


def _begin_network(spec: Spec) -> list[int]:
    """Bring the loopback of our own network up.

    Returns what the supervisor connects it by: what hears of its routes, and our namespaces,
    which it cannot open any more once we have become somebody else.
    """
    if not any(space["type"] == "network" for space in spec["linux"]["namespaces"]):
        return []
    loopback.bring_up()
    request = read_extra(spec).request
    if request["network"] == "none" and not request["net"].get("networks"):
        return []
    confine.keep_loopback_inside()
    confine.forward_nothing()
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

    # Root is alone in this user namespace, and nobody in it may leave a group of the host.


if __name__ == "__main__":
    sys.exit(main_anew(*sys.argv[1:]))
