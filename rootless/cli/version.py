"""`rl version`."""

from __future__ import annotations

import os
import platform
from typing import Any

import click

from rootless import __version__
from rootless.cli.flags import FlagCommand
from rootless.cli.template import Map


@click.command(cls=FlagCommand)
@click.option("-f", "--format", "template", metavar="FORMAT", help='"json" or a Go template.')
def version(template: str | None) -> None:
    """Show the versions of rl and its parts."""
    value = versions()
    if template:
        from rootless.cli.template import Template

        click.echo(Template("{{json .}}" if template == "json" else template).render(value))
        return
    client = value["Client"]
    lines = [
        ("Version", client["Version"]),
        ("Python", client["PythonVersion"]),
        ("Kernel", client["KernelVersion"]),
        ("OS/Arch", f"{client['Os']}/{client['Arch']}"),
        *client["Components"].items(),
    ]
    click.echo("Client:")
    for name, text in lines:
        click.echo(f" {name + ':':<11} {text}")


def versions() -> dict[str, dict[str, Any]]:
    """Return our version and those of what decides how we behave."""
    from importlib import metadata

    from rootless.images.platform import Platform

    host = Platform.host()
    ours = {
        "Version": __version__,
        "PythonVersion": platform.python_version(),
        "KernelVersion": os.uname().release,
        "Os": host.os,
        "Arch": host.architecture,
        "Components": Map({name: metadata.version(name) for name in ("httpx", "pyfuse3", "trio")}),
    }
    # There is no server: what scripts ask of Docker's is true of us.
    return {"Client": ours, "Server": ours}
