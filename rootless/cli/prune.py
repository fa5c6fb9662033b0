"""`rl container prune`."""

from __future__ import annotations

import click

from rootless.cli.settings import Settings, pass_settings


@click.command("prune")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option(
    "--filter",
    "conditions",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only some, by label, or until a time (10m, RFC 3339).",
)
@pass_settings
def prune(settings: Settings, force: bool, conditions: tuple[str, ...]) -> None:
    """Remove all containers that do not run."""
    from datetime import UTC, datetime

    from rootless.cli import filters
    from rootless.cli.logs import parse_moment
    from rootless.cli.units import parse_time, size
    from rootless.containers.changes import sizes
    from rootless.containers.remove import remove
    from rootless.containers.store import ContainerStore

    wanted = filters.parse(conditions, ("label", "until"))
    now = datetime.now(UTC)
    limits = [parse_moment(text, now) for text in wanted.get("until", ())]
    if not force:
        click.echo("WARNING! This will remove all stopped containers.")
        if not click.confirm("Are you sure you want to continue?"):
            return
    doomed = [
        container
        for container in ContainerStore(settings.root).list()
        if not container.active
        and filters.labels_match(wanted.get("label", ()), container.extra.labels)
        and all(created < limit for limit in limits if (created := parse_time(container.created)))
    ]
    freed = sum(sizes(doomed).values())
    for container in doomed:
        remove(settings.root, container)
    if doomed:
        click.echo("Deleted Containers:")
        click.echo("\n".join(container.id for container in doomed) + "\n")
    click.echo(f"Total reclaimed space: {size(freed)}")
