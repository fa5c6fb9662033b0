"""The container's network and its name there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rootless.cli.options import together

options = together(
    click.option(
        "--network",
        "--net",
        type=click.Choice(["host", "none"]),
        default="host",
        show_default=True,
        help="Share the host's network, or have none.",
    ),
    click.option("-h", "--hostname", metavar="NAME", help="The container's hostname."),
)


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Request's fields."""
    return {"network": values["network"], "hostname": values["hostname"]}
