"""Which namespaces the container has for itself, and which it shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rootless.cli.options import together
from rootless.containers.namespaces import Namespaces

options = together(
    click.option(
        "--userns",
        default="",
        metavar="MODE",
        help="Whose ids the container's are: keep-id, nomap, auto, single, host.",
    ),
)


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Request's fields; RlError for what is no mode."""
    if userns := values["userns"]:
        from rootless.containers.idmaps import Mode

        Mode.parse(userns)
    return {"namespaces": Namespaces(userns=userns)}
