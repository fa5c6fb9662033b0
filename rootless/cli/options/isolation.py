"""What the container's processes may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rootless.cli.options import together
from rootless.errors import RlError

options = together(
    click.option("--security-opt", multiple=True, metavar="OPTION", help="no-new-privileges"),
)


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Request's fields; RlError for an option that is not known."""
    return {"no_new_privileges": _no_new_privileges(values["security_opt"])}


def _no_new_privileges(options: tuple[str, ...]) -> bool:
    chosen = False
    for option in options:
        match option.replace("=", ":").split(":"):
            case ["no-new-privileges"] | ["no-new-privileges", "true"]:
                chosen = True
            case ["no-new-privileges", "false"]:
                chosen = False
            case _:
                raise RlError(f"unknown security option {option!r} (no-new-privileges is known)")
    return chosen
