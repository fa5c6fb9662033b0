"""`rl rm`."""

from __future__ import annotations

import contextlib

import click

from rootless.cli import several
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@click.option("-f", "--force", is_flag=True, help="Kill containers that run.")
@click.option("-v", "--volumes", is_flag=True, help="Remove their anonymous volumes, too.")
@several.ignore
@several.patience
@several.containers("All; those that run only with --force.", running=False)
@pass_settings
def rm(
    settings: Settings,
    force: bool,
    volumes: bool,
    ignore: bool,
    seconds: int | None,
    everything: bool,
    cidfiles: tuple[str, ...],
    names: tuple[str, ...],
) -> int:
    """Remove containers.

    With --time those that run are stopped first, as rl stop does it.
    """
    from rootless.cli.report import complain, for_each
    from rootless.containers import stop as stopping
    from rootless.containers.remove import remove, remove_damaged
    from rootless.containers.store import ContainerStore
    from rootless.errors import ContainerDamaged, ContainerNotFound

    root = settings.root
    store = ContainerStore(root)
    names = several.chosen(store, names, cidfiles, everything=everything, ignore=ignore)

    def remove_one(name: str) -> None:
        try:
            container = store.get(name)
        except ContainerNotFound as error:
            # Docker's rule: what is not there is as good as removed.
            if not force:
                raise
            complain(str(error))
            return
        except ContainerDamaged as error:
            if not force:
                raise
            remove_damaged(root, error.container_id)
        else:
            if seconds is None:
                remove(root, container, force=force, volumes=volumes)
            else:
                stopping.stop(container, seconds)
                # One of --rm is gone by then.
                with contextlib.suppress(ContainerNotFound):
                    remove(root, store.by_id(container.id), force=force, volumes=volumes)
        click.echo(name)

    return for_each(names, remove_one)
