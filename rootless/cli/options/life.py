"""How long a container lives, what ends it, what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rootless.cli import complete
from rootless.cli.options import together
from rootless.containers.request import parse_lines
from rootless.errors import RlError

options = together(
    click.option("--name", metavar="NAME", help="Name the container."),
    click.option("--replace", is_flag=True, help="Remove the container that has the name."),
    click.option("--rm", "auto_remove", is_flag=True, help="Remove the container when it ends."),
    click.option(
        "-l", "--label", multiple=True, metavar="NAME[=VALUE]", help="Label the container."
    ),
    click.option(
        "--label-file", multiple=True, metavar="FILE", help="Label it as the lines of FILE say."
    ),
    click.option("--cidfile", metavar="FILE", help="Write the container's ID to FILE."),
    click.option("--init", is_flag=True, help="Run a small init as PID 1 that reaps processes."),
    click.option(
        "--stop-signal",
        metavar="SIGNAL",
        shell_complete=complete.signals,
        help="The signal that stops it.",
    ),
    click.option(
        "--stop-timeout",
        type=click.IntRange(min=0),
        metavar="SECONDS",
        help="How long to wait before it is killed.",
    ),
    click.option(
        "--restart",
        default="no",
        show_default=True,
        metavar="POLICY",
        shell_complete=complete.policies,
        help="When it is started again: on-failure[:N], always, unless-stopped.",
    ),
    click.option(
        "--log-driver",
        type=click.Choice(["json-file", "none"]),
        default="json-file",
        show_default=True,
        help="Whether what it prints is kept for rl logs.",
    ),
    click.option(
        "--log-opt",
        multiple=True,
        metavar="NAME=VALUE",
        shell_complete=complete.keys("max-file", "max-size"),
        help="max-size=10m, max-file=3.",
    ),
)


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Request's fields; RlError where the options contradict each other."""
    if values["replace"] and not values["name"]:
        raise RlError("--replace removes the container that has the name: give it with --name")
    if values["stop_signal"] is not None:
        from rootless.containers.stop import parse_signal

        parse_signal(values["stop_signal"])
    if values["restart"] != "no":
        from rootless.containers.restart import Policy

        if Policy.parse(values["restart"]).name != "no" and values["auto_remove"]:
            raise RlError("--restart and --rm contradict each other")
    kept = ("name", "auto_remove", "init", "stop_signal", "stop_timeout", "restart", "log_driver")
    from_files = [line for path in values["label_file"] for line in parse_lines(path, "label")]
    log_options = dict(item.partition("=")[::2] for item in values["log_opt"])
    if log_options:
        from rootless.containers import log

        log.Limits.parse(log_options)
    return {
        **{name: values[name] for name in kept},
        "log_options": log_options,
        "labels": dict(item.partition("=")[::2] for item in (*from_files, *values["label"])),
    }
