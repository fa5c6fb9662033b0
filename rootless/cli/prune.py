"""`rl container prune`, `rl image prune` and `rl system prune`."""

from __future__ import annotations

import click

from rootless.cli import pruning
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings

_CONDITIONS = ("label", "label!", "until")
_filter = pruning.filter_option("Only some, by label, label!, or until a time (10m, RFC 3339).")


@click.command("prune", cls=FlagCommand)
@pruning.force_option
@_filter
@pass_settings
def prune(settings: Settings, force: bool, conditions: tuple[str, ...]) -> None:
    """Remove all containers that do not run."""
    from rootless.cli import filters

    wanted = filters.parse(conditions, _CONDITIONS)
    if pruning.agreed(force, "This will remove all stopped containers."):
        pruning.say(pruning.containers(settings.root, wanted))


@click.command("prune", cls=FlagCommand)
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that have a tag.")
@pruning.force_option
@_filter
@pass_settings
def images(settings: Settings, everything: bool, force: bool, conditions: tuple[str, ...]) -> None:
    """Remove images without a tag that no container has.

    With --all those with a tag, too.
    """
    from rootless.cli import filters

    wanted = filters.parse(conditions, (*_CONDITIONS, "dangling"))
    for text in wanted.get("dangling", ()):
        everything = not filters.truth("dangling", text)
    which = "images without at least one container associated to them"
    which = f"all {which}" if everything else "all dangling images"
    if pruning.agreed(force, f"This will remove {which}."):
        pruning.say(pruning.images(settings.root, wanted, everything=everything))


@click.command("prune", cls=FlagCommand)
@click.option("-a", "--all", "everything", is_flag=True, help="Also images that have a tag.")
@click.option("--volumes", is_flag=True, help="Also volumes that nobody named.")
@pruning.force_option
@_filter
@pass_settings
def system(
    settings: Settings,
    everything: bool,
    volumes: bool,
    force: bool,
    conditions: tuple[str, ...],
) -> None:
    """Remove what is not used.

    All containers that do not run, and the networks and images that no container has then.
    """
    from rootless.cli import filters
    from rootless.errors import RlError

    wanted = filters.parse(conditions, _CONDITIONS)
    if volumes and "until" in wanted:
        raise RlError("--filter until= does not go together with --volumes")
    parts = ["all stopped containers"]
    parts.append("all networks not used by at least one container")
    parts += ["all anonymous volumes not used by at least one container"] if volumes else []
    parts.append(
        "all images without at least one container associated to them"
        if everything
        else "all dangling images"
    )
    if not pruning.agreed(force, "\n  - ".join(("This will remove:", *parts)) + "\n"):
        return
    root = settings.root
    pruned = [pruning.containers(root, wanted), pruning.networks(root, wanted)]
    if volumes:
        pruned.append(pruning.volumes(root, wanted, everything=False))
    pruning.say(*pruned, pruning.images(root, wanted, everything=everything))
