"""Which namespaces the container has for itself, which it shares, and what holds in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rootless.cli import complete
from rootless.cli.options import network, together
from rootless.containers import namespaces
from rootless.containers.annotation import joined, named_in

options = together(
    click.option(
        "--userns",
        default="",
        metavar="MODE",
        shell_complete=complete.joinable("keep-id", "nomap", "auto", "single", "host"),
        help="Whose ids the container's are: keep-id, nomap, auto, single, host, container:NAME.",
    ),
    click.option(
        "--pid",
        default="",
        metavar="MODE",
        shell_complete=complete.joinable("host", "private"),
        help="See the processes of the host or container:NAME.",
    ),
    click.option(
        "--ipc",
        default="",
        metavar="MODE",
        shell_complete=complete.joinable("host", "none", "private", "shareable"),
        help="Share memory: shareable, host or container:NAME; private; none.",
    ),
    click.option(
        "--uts",
        default="",
        metavar="MODE",
        shell_complete=complete.joinable("host", "private"),
        help="Have the name of the host or container:NAME.",
    ),
    click.option("--shm-size", metavar="SIZE", help="The size of /dev/shm, 64m by default."),
    click.option(
        "--sysctl", multiple=True, metavar="NAME=VALUE", help="Set one of its own namespaces."
    ),
    click.option("--ulimit", multiple=True, metavar="NAME=SOFT[:HARD]", help="Limit each process."),
    click.option(
        "--device",
        multiple=True,
        metavar="HOST[:TARGET]",
        help="Have a device of the host, or all in a directory.",
    ),
    click.option(
        "--group-add",
        multiple=True,
        metavar="GROUP",
        help="Be in a group of the container's, too; keep-groups: in yours.",
    ),
    click.option("--umask", metavar="MODE", help="The mode bits that new files lack, 0022."),
)


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Request's fields; RlError for what is none of the modes or numbers."""
    wanted: dict[str, Any] = {"userns": values["userns"]}
    if values["userns"] and not named_in(values["userns"]):
        from rootless.containers.idmaps import Mode

        Mode.parse(values["userns"])
    for kind in ("pid", "ipc", "uts"):
        wanted[kind] = namespaces.check_mode(kind, values[kind])
    if values["shm_size"] is not None:
        from rootless.sizes import parse_size

        wanted["shm_size"] = parse_size(values["shm_size"])
    wanted["ulimits"] = namespaces.parse_ulimits(values["ulimit"])
    shared = namespaces.Namespaces(**wanted).shared
    namespaces.check_hostname(values["hostname"], wanted["uts"])
    if values["sysctl"]:
        mode = network.mode_of(values)
        if mode.name == "host":
            shared |= {"network"}
        others = joined(str(mode), wanted)
        wanted["sysctls"] = namespaces.parse_sysctls(values["sysctl"], shared, others)
    return {
        "namespaces": namespaces.Namespaces(**wanted),
        "devices": namespaces.parse_devices(values["device"]),
        "group_add": namespaces.parse_groups(values["group_add"]),
        "umask": namespaces.parse_umask(values["umask"]),
    }
