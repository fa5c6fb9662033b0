"""`rl stats`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.cgroups.usage import Usage
    from rootless.containers.store import Container

_SECONDS = 1.0
# To add up what was written takes a walk through all of it.
_DISK_SECONDS = 10.0
_CLEAR_SCREEN = "\033[2J\033[H"


@click.command(cls=FlagCommand)
@click.option("-a", "--all", "everything", is_flag=True, help="Show those that do not run, too.")
@click.option("--no-stream", is_flag=True, help="Show it once, and not every second.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten.")
@click.option("--format", "template", metavar="FORMAT", help='"json", "table …" or a Go template.')
@click.argument("names", metavar="[CONTAINER]...", nargs=-1, shell_complete=complete.running)
@pass_settings
def stats(
    settings: Settings,
    everything: bool,
    no_stream: bool,
    no_trunc: bool,
    template: str | None,
    names: tuple[str, ...],
) -> None:
    """Show what running containers use."""
    import time

    from rootless.cli import stats_view
    from rootless.cli.output import render
    from rootless.containers import disk as disk_limits
    from rootless.containers.store import ContainerStore

    store = ContainerStore(settings.root)
    for name in names:
        store.get(name)

    def look() -> list[Container]:
        if names:
            return [store.get(name) for name in names]
        return [one for one in store.list() if everything or one.state.status == "running"]

    disk = _disk_usage()
    before = _samples(look())
    while True:
        time.sleep(_SECONDS)
        containers = look()
        after = _samples(containers)
        written = disk(containers)
        rows = [
            stats_view.row(
                container,
                before.get(container.id),
                after.get(container.id),
                network=_network(container),
                disk=written.get(container.id),
                disk_limit=disk_limits.of(container).size,
                truncate=not no_trunc,
            )
            for container in containers
        ]
        text = render(rows, stats_view.TITLES, stats_view.COLUMNS, template)
        click.echo(text if no_stream or template else _CLEAR_SCREEN + text, nl=False)
        if no_stream:
            return
        before = after


def _samples(containers: list[Container]) -> dict[str, Usage]:
    import os

    from rootless.cgroups import tree
    from rootless.cgroups.usage import sample

    return {
        one.id: sample(one.state.cgroup)
        for one in containers
        if one.state.status == "running"
        and one.state.cgroup
        and os.path.isdir(tree.leaf(one.state.cgroup))
    }


def _disk_usage() -> Callable[[list[Container]], dict[str, int]]:
    """Return a function that tells how much each has written, not newer than need be."""
    import time

    from rootless.containers.changes import sizes

    known: dict[str, int] = {}
    looked = 0.0

    def usage(containers: list[Container]) -> dict[str, int]:
        nonlocal known, looked
        if time.monotonic() - looked > _DISK_SECONDS or {one.id for one in containers} - set(known):
            known, looked = sizes(containers), time.monotonic()
        return known

    return usage


def _network(container: Container) -> tuple[int, int] | None:
    """Return the bytes that came and went, None for a container that shares the host's network."""
    init = container.state.init
    spaces = (space["type"] for space in container.config["linux"]["namespaces"])
    if init is None or "network" not in spaces:
        return None
    received = sent = 0
    try:
        with open(f"/proc/{init.pid}/net/dev", encoding="ascii") as file:
            for line in file.read().splitlines()[2:]:
                name, _, numbers = line.partition(":")
                if name.strip() != "lo":
                    received += int(numbers.split()[0])
                    sent += int(numbers.split()[8])
    except OSError:
        return None
    return received, sent
