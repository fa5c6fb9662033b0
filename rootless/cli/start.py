"""`rl start`, and what it has in common with `rl run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.options import looking
from rootless.cli.settings import Settings, pass_settings

if TYPE_CHECKING:
    from pathlib import Path

    from rootless.containers.attach import Onlooking
    from rootless.containers.launch import Launch
    from rootless.containers.store import Container

_PAUSED: Final = "cannot start a paused container, try unpause instead"


@click.command(cls=FlagCommand)
@click.option("-a", "--attach", is_flag=True, help="Show its output, and leave with its status.")
@click.option("-i", "--interactive", is_flag=True, help="Connect our standard input.")
@looking.options
@click.option("--all", "everything", is_flag=True, help="Start all, or all that a filter chooses.")
@click.option(
    "-f",
    "--filter",
    "conditions",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete.container_filters,
    help="Which of all, as in rl ps: restart-policy=always, should-start-on-boot=true.",
)
@click.argument("names", metavar="CONTAINER...", nargs=-1, shell_complete=complete.idle)
@pass_settings
def start(
    settings: Settings,
    /,
    attach: bool,
    interactive: bool,
    everything: bool,
    conditions: tuple[str, ...],
    names: tuple[str, ...],
    **values: Any,
) -> int:
    """Start containers that do not run."""
    from rootless.cli.report import for_each
    from rootless.containers import attach as attaching
    from rootless.containers.store import ContainerStore
    from rootless.errors import RlError

    root = settings.root
    store = ContainerStore(root)
    if everything or conditions:
        names = _all(root, conditions, names)
    elif not names:
        raise RlError("name the containers to start, or use --all (see 'rl start --help')")
    if attach or interactive:
        if len(names) != 1:
            raise RlError("you cannot start and attach multiple containers at once")
        container = store.get(names[0])
        if container.paused:
            raise RlError(_PAUSED)
        if container.active:
            # As Docker: it runs already, and is looked on at.
            from rootless.cli.attach import look_on

            return look_on(container, stdin=interactive, values=values)
        request = container.extra.request
        onlooking = attaching.Onlooking(
            stdin=interactive and request["interactive"],
            terminal=request["terminal"],
            keys=looking.keys(values),
        )
        return start_one(root, container, onlooking, proxy=values["sig_proxy"])

    def start_named(name: str) -> None:
        container = store.get(name)
        if container.paused:
            raise RlError(_PAUSED)
        if not container.active:
            start_one(root, container, None)
        click.echo(name)

    return for_each(names, start_named)


def _all(root: Path, conditions: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the containers that do not run, or those of them that are chosen."""
    from rootless.cli.selection import choose
    from rootless.errors import RlError

    if names:
        raise RlError("--all and --filter choose the containers: name none")
    chosen, _ = choose(root, conditions)
    return tuple(container.name for container in reversed(chosen) if not container.active)


def start_one(
    root: Path, container: Container, onlooking: Onlooking | None, *, proxy: bool = True
) -> int:
    """Start a container that does not run; return its exit code, or 0 if nobody looks on."""
    from rootless.containers import stop
    from rootless.containers.launch import Launch
    from rootless.containers.state import Process
    from rootless.containers.store import ContainerStore

    if not container.active:
        # What its last run left to do comes first.
        stop.wait_for_supervisor(container)
    launch = Launch.next()
    try:
        claimed = ContainerStore(root).claim(container, Process.of(launch.child.pid))
        return follow(root, claimed.id, launch, onlooking, proxy=proxy)
    except BaseException:
        launch.end()
        raise


def follow(
    root: Path,
    container_id: str,
    launch: Launch,
    onlooking: Onlooking | None,
    *,
    proxy: bool = True,
) -> int:
    """Have a supervisor start its container; return its exit code, or 0 if nobody looks on."""
    from rootless.containers import attach

    launch.supervise(root, container_id, onlooking.handed if onlooking else {})
    if onlooking is None:
        from rootless.containers import logout

        attach.await_start(launch.channel)
        if said := logout.warning(launch.child.pid):
            click.echo(f"rl: warning: {said}", err=True)
        return 0
    onlooking.close_handed()
    code = onlooking.follow(launch.channel, proxy=proxy)
    return 0 if code is None else code
