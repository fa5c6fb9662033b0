"""`rl create`: what `rl run` makes, without running it."""

from __future__ import annotations

from typing import Any

import click

from rootless.cli.flags import FlagCommand
from rootless.cli.run import (
    check_cidfile,
    find_or_pull,
    make_request,
    remove_named,
    run,
    warn,
    write_cidfile,
)
from rootless.cli.settings import Settings, pass_settings

_NOT_HERE = ("detach", "detach_keys", "sig_proxy")


@click.command(
    cls=FlagCommand,
    params=[param for param in run.params if param.name not in _NOT_HERE],
    context_settings=run.context_settings,
)
@pass_settings
def create(settings: Settings, /, **values: Any) -> None:
    """Make a container of an image, to be started later."""
    from rootless.containers.create import create as make
    from rootless.containers.create import warnings

    wanted, cidfile = make_request(values), values["cidfile"]
    if cidfile is not None:
        check_cidfile(cidfile)
    image = find_or_pull(settings.root, values)
    if values["replace"]:
        remove_named(settings.root, wanted.name)
    container = make(settings.root, wanted, image)
    warn(warnings(settings.root, wanted, image))
    if wanted.limits is not None:
        from rootless.containers.cgroup import undelegated

        if refused := undelegated(wanted.limits):
            warn([f"container {container.name} cannot be started yet: {refused}"])
    if cidfile is not None:
        write_cidfile(cidfile, container.id)
    click.echo(container.id)
