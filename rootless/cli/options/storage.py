"""The container's file systems: what is mounted, and what may be written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rootless import quota
from rootless.cli import complete
from rootless.cli.options import together
from rootless.containers import request as requests

disk_limit = click.option(
    "--storage-opt",
    multiple=True,
    metavar="KEY=VALUE",
    help="What the container may write: size=2G, inodes=100000.",
)
options = together(
    click.option(
        "-v",
        "--volume",
        multiple=True,
        metavar="[SOURCE:]TARGET[:OPTIONS]",
        shell_complete=complete.sources,
        help="Mount a host directory, a file or a named volume.",
    ),
    click.option(
        "--volumes-from",
        multiple=True,
        metavar="CONTAINER[:ro]",
        shell_complete=complete.containers,
        help="Mount what another container has mounted.",
    ),
    click.option(
        "--volume-driver",
        type=click.Choice(["local"]),
        expose_value=False,
        help="Accepted: volumes are directories here.",
    ),
    click.option(
        "--mount", multiple=True, metavar="KEY=VALUE,…", help="Mount: bind, volume, tmpfs."
    ),
    click.option("--tmpfs", multiple=True, metavar="TARGET[:OPTIONS]", help="Mount a tmpfs."),
    click.option("--read-only", is_flag=True, help="Mount the container's root read-only."),
    disk_limit,
)


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Request's fields."""
    for text in values["volumes_from"]:
        requests.parse_volumes_from(text)
    return {
        "mounts": (
            *map(requests.parse_volume, values["volume"]),
            *map(requests.parse_mount, values["mount"]),
            *map(requests.parse_tmpfs, values["tmpfs"]),
        ),
        "volumes_from": values["volumes_from"],
        "read_only": values["read_only"],
        "disk": quota.parse(values["storage_opt"]),
    }
