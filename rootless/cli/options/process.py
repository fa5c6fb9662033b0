"""The process that is to run: its streams, environment, user and directory. Of exec, too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import click

from rootless.cli.options import together
from rootless.errors import RlError

options = together(
    click.option("-i", "--interactive", is_flag=True, help="Connect our standard input."),
    click.option("-t", "--tty", is_flag=True, help="Give the command a terminal."),
    click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable."),
    click.option(
        "--env-file",
        multiple=True,
        type=click.Path(),
        metavar="FILE",
        help="Set the variables in FILE.",
    ),
    click.option("-w", "--workdir", metavar="DIR", help="Start in DIR of the container."),
    click.option("-u", "--user", metavar="USER[:GROUP]", help="Run as this user of the container."),
)


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Request's fields."""
    return {
        "interactive": values["interactive"],
        "terminal": values["tty"],
        "env": environment(values),
        "workdir": values["workdir"],
        "user": values["user"],
    }


def environment(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the variables of -e and --env-file as NAME=VALUE, the later ones last."""
    if not values["env_file"] and not values["env"]:
        return ()
    from rootless.containers import request as requests

    files = [
        line for path in values["env_file"] for line in requests.parse_lines(path, "environment")
    ]
    return requests.parse_env([*files, *values["env"]], os.environ)


def check_terminal(values: Mapping[str, Any]) -> None:
    """Raise RlError if a terminal is to be typed on and we have none."""
    if values["tty"] and values["interactive"] and not values["detach"] and not os.isatty(0):
        raise RlError("the input device is not a terminal (leave out -t)")
