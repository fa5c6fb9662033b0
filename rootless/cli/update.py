"""`rl update`: other limits and restart policies for containers, at once where they run."""

from __future__ import annotations

from typing import Any

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.options import limits, storage
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@limits.changeable
@storage.disk_limit
@click.option(
    "--restart",
    metavar="POLICY",
    shell_complete=complete.policies,
    help="When they are started again, as in rl run.",
)
@click.argument(
    "names", metavar="CONTAINER...", nargs=-1, required=True, shell_complete=complete.containers
)
@pass_settings
def update(
    settings: Settings, /, names: tuple[str, ...], restart: str | None, **values: Any
) -> int:
    """Change the limits of containers, and when they are started again."""
    from rootless import quota
    from rootless.cli.report import complain, for_each
    from rootless.containers import cgroup, disk
    from rootless.containers.restart import Policy
    from rootless.containers.store import ContainerStore
    from rootless.errors import RlError

    store = ContainerStore(settings.root)
    given, changes = limits.given_of(values), quota.parse(values["storage_opt"])
    policy = None if restart is None else Policy.parse(restart)
    if not given and changes == quota.Disk() and policy is None:
        raise RlError("you must provide one or more flags when using this command")

    def update_one(name: str) -> None:
        container = store.get(name)
        if policy is not None:
            if container.auto_remove and policy.name != "no":
                raise RlError(f"container {container.name} is removed when it ends (--rm)")
            store.update(container, restart=restart)
        if given:
            wanted = limits.changed(cgroup.limits_of(container), given)
            if refused := cgroup.update(store, container, wanted):
                complain(f"warning: container {container.name} cannot be started yet: {refused}")
        if changes != quota.Disk() and not disk.update(store, container, changes):
            complain(
                f"warning: container {container.name} was started without a disk limit: it has "
                "one when it is started again"
            )
        click.echo(name)

    return for_each(names, update_one)
